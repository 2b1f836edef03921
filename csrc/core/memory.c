#include "core/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#define HUGE_PAGE ((size_t)2 << 20)

static atomic_llong live, total, fail_in;

/* Counts one attempt; true when the test hook says that this one is to fail. */
static int attempt_fails(void) {
    atomic_fetch_add(&total, 1);
    if (atomic_load(&fail_in) <= 0) return 0;
    return atomic_fetch_sub(&fail_in, 1) == 1;
}

static gap_status acquire(void **out, size_t count, size_t size) {
    *out = NULL;
    if (size != 0 && count > (SIZE_MAX - HUGE_PAGE) / size)
        return gap_fail(GAP_ERR_MEMORY, "memory: %zu x %zu bytes is more than can be addressed", count, size);
    size_t bytes = count * size;
    size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : GAP_ALIGN;
    bytes = bytes == 0 ? align : (bytes + align - 1) / align * align; /* aligned_alloc asks for a multiple */
    void *p = attempt_fails() ? NULL : aligned_alloc(align, bytes);
    if (p == NULL) return gap_fail(GAP_ERR_MEMORY, "memory: could not allocate %zu bytes", bytes);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (align == HUGE_PAGE) (void)madvise(p, bytes, MADV_HUGEPAGE); /* a wish; refused without harm */
#endif
    atomic_fetch_add(&live, 1);
    *out = p;
    return GAP_OK;
}

gap_status gap_alloc_dirty(void *out_ptr, size_t count, size_t size) {
    void *p = NULL;
    gap_status st = acquire(&p, count, size);
    memcpy(out_ptr, &p, sizeof p);
    return st;
}

gap_status gap_alloc(void *out_ptr, size_t count, size_t size) {
    void *p = NULL;
    gap_status st = acquire(&p, count, size);
    if (st == GAP_OK) memset(p, 0, count * size);
    memcpy(out_ptr, &p, sizeof p);
    return st;
}

gap_status gap_grow(void *ptr_ptr, size_t old_count, size_t count, size_t size) {
    void *old, *p = NULL;
    memcpy(&old, ptr_ptr, sizeof old);
    gap_status st = acquire(&p, count, size);
    if (st != GAP_OK) return st;
    size_t kept = old == NULL ? 0 : (old_count < count ? old_count : count) * size;
    if (kept) memcpy(p, old, kept);
    memset((char *)p + kept, 0, count * size - kept);
    gap_free(old);
    memcpy(ptr_ptr, &p, sizeof p);
    return GAP_OK;
}

gap_status gap_strdup(char **out, const char *text) {
    size_t bytes = strlen(text) + 1;
    gap_status st = gap_alloc(out, bytes, 1);
    if (st == GAP_OK) memcpy(*out, text, bytes);
    return st;
}

void gap_free(void *p) {
    if (p == NULL) return;
    atomic_fetch_sub(&live, 1);
    free(p);
}

int64_t gap_memory_live(void) { return atomic_load(&live); }
int64_t gap_memory_count(void) { return atomic_load(&total); }
void gap_memory_fail_after(int64_t k) { atomic_store(&fail_in, k); }

#include "core/buffer.h"

#include <stdatomic.h>

#include "core/memory.h"

struct gap_buf {
    atomic_int count;
    void *mem;
    size_t bytes;
    void (*drop)(void *cookie);
    void *cookie;
};

gap_status gap_buf_wrap(gap_buf **out, void *mem, size_t bytes, void (*drop)(void *cookie), void *cookie) {
    gap_buf *b = NULL;
    *out = NULL;
    gap_status st = GAP_NEW(b);
    if (st != GAP_OK) return st;
    atomic_init(&b->count, 1);
    b->mem = mem, b->bytes = bytes, b->drop = drop, b->cookie = cookie;
    *out = b;
    return GAP_OK;
}

gap_status gap_buf_new(gap_buf **out, size_t bytes) {
    gap_status st = GAP_OK;
    void *mem = NULL;
    *out = NULL;
    GAP_TRY(gap_alloc(&mem, bytes, 1));
    GAP_TRY(gap_buf_wrap(out, mem, bytes, gap_free, mem));
    mem = NULL;
done:
    gap_free(mem);
    return st;
}

gap_buf *gap_buf_ref(gap_buf *b) {
    atomic_fetch_add(&b->count, 1);
    return b;
}

void gap_buf_unref(gap_buf **b) {
    gap_buf *old = *b;
    *b = NULL;
    if (old == NULL || atomic_fetch_sub(&old->count, 1) != 1) return;
    if (old->drop != NULL) old->drop(old->cookie);
    gap_free(old);
}

void *gap_buf_data(const gap_buf *b) { return b->mem; }
size_t gap_buf_bytes(const gap_buf *b) { return b->bytes; }

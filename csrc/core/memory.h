/* memory.h — the only callers of malloc in the core.
 *
 * Every block is zeroed and aligned to GAP_ALIGN (`_dirty`: aligned, contents undefined).
 * Test hook: gap_memory_fail_after(k) makes the k-th allocation from now fail once (0: off), so that
 * tests can sweep k = 1, 2, 3 … until a scenario passes. The counters are process-wide and atomic.
 */
#ifndef GAP_CORE_MEMORY_H
#define GAP_CORE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* Gives zeroed memory of count * size bytes (checked for overflow); *out is NULL on failure. count 0 gives a block. */
GAP_MUST_USE gap_status gap_alloc(void *out_ptr, size_t count, size_t size);
/* As gap_alloc, contents undefined. From 2 MB on, huge pages are asked for. */
GAP_MUST_USE gap_status gap_alloc_dirty(void *out_ptr, size_t count, size_t size);
/* Grows *ptr to count * size bytes; contents up to old_count are kept, the rest zeroed. On failure *ptr is as it was. */
GAP_MUST_USE gap_status gap_grow(void *ptr_ptr, size_t old_count, size_t count, size_t size);
/* Gives a copy of `text` in *out. */
GAP_MUST_USE gap_status gap_strdup(char **out, const char *text);
void gap_free(void *p); /* NULL is fine */

/* p: pointer to a struct; GAP_NEW(p) sets it to one zeroed struct. memcpy inside keeps the aliasing rules. */
#define GAP_NEW(p) gap_alloc(&(p), 1, sizeof *(p))
#define GAP_NEW_ARRAY(p, n) gap_alloc(&(p), (size_t)(n), sizeof *(p))

int64_t gap_memory_live(void);   /* blocks allocated and not yet freed */
int64_t gap_memory_count(void);  /* allocations since the process began */
void gap_memory_fail_after(int64_t k);

#endif

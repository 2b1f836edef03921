#include "graph/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

/* Largest first; among equals the earlier in the list, so that the order is one and the same with every qsort. */
static int by_size(const void *left, const void *right) {
    const gap_lifetime *a = *(gap_lifetime *const *)left, *b = *(gap_lifetime *const *)right;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? 1 : -1;
    return a < b ? -1 : a > b;
}

static bool alive_together(const gap_lifetime *a, const gap_lifetime *b) { return a->first <= b->last && b->first <= a->last; }

/* Lowest offset where b fits beside placed[0..n), which are in the order of their offsets. */
static size_t first_fit(const gap_lifetime *b, gap_lifetime *const *placed, int n) {
    size_t at = 0;
    for (int k = 0; k < n; k++) {
        const gap_lifetime *p = placed[k];
        if (!alive_together(b, p)) continue;
        if (p->offset >= at + b->bytes) break;
        if (p->offset + p->bytes > at) at = p->offset + p->bytes;
    }
    return at;
}

/* Puts b into placed[0..n), keeping the order of offsets. */
static void insert(gap_lifetime **placed, int n, gap_lifetime *b) {
    int k = n;
    for (; k > 0 && placed[k - 1]->offset > b->offset; k--) placed[k] = placed[k - 1];
    placed[k] = b;
}

gap_status gap_arena_place(gap_lifetime *buffer, int n, size_t *total) {
    gap_status st = GAP_OK;
    gap_lifetime **order = NULL, **placed = NULL; /* (n) */
    size_t sum = 0;
    *total = 0;
    for (int k = 0; k < n; k++) {
        if (buffer[k].bytes > SIZE_MAX / 2 - GAP_ALIGN || sum > SIZE_MAX / 2 - buffer[k].bytes - GAP_ALIGN)
            return gap_fail(GAP_ERR_MEMORY, "plan: the network needs more memory than can be addressed");
        buffer[k].bytes = (buffer[k].bytes + GAP_ALIGN - 1) / GAP_ALIGN * GAP_ALIGN;
        sum += buffer[k].bytes;
    }
    GAP_TRY(GAP_NEW_ARRAY(order, n));
    GAP_TRY(GAP_NEW_ARRAY(placed, n));
    for (int k = 0; k < n; k++) order[k] = &buffer[k];
    qsort(order, (size_t)n, sizeof *order, by_size);
    for (int k = 0; k < n; k++) {
        gap_lifetime *b = order[k];
        b->offset = first_fit(b, placed, k);
        insert(placed, k, b);
        if (b->offset + b->bytes > *total) *total = b->offset + b->bytes;
    }
done:
    gap_free(order);
    gap_free(placed);
    return st;
}

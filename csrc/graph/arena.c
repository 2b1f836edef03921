#include "graph/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/compiler.h"
#include "core/memory.h"

typedef int order_fn(const void *left, const void *right); /* of pointers to buffers */

/* Among equals the earlier in the list, so that an order is one and the same with every qsort. */
static int by_place(const gap_lifetime *a, const gap_lifetime *b) { return a < b ? -1 : a > b; }

#define BUFFERS(left, right) const gap_lifetime *a = *(gap_lifetime *const *)(left), *b = *(gap_lifetime *const *)(right)

static int by_size(const void *left, const void *right) {
    BUFFERS(left, right);
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? 1 : -1;
    return by_place(a, b);
}

static int by_life(const void *left, const void *right) {
    BUFFERS(left, right);
    const int life = a->last - a->first, other = b->last - b->first;
    return life != other ? (life < other ? 1 : -1) : by_size(left, right);
}

static int by_area(const void *left, const void *right) {
    BUFFERS(left, right);
    const double area = (double)a->bytes * (a->last - a->first + 1), other = (double)b->bytes * (b->last - b->first + 1);
    if (area > other || area < other) return area < other ? 1 : -1;
    return by_place(a, b);
}

/* Values of forward die in the order opposite to that of their birth: a stack fits them without holes. */
static int by_birth(const void *left, const void *right) {
    BUFFERS(left, right);
    if (a->first != b->first) return a->first < b->first ? -1 : 1;
    return a->last != b->last ? (a->last < b->last ? 1 : -1) : by_size(left, right);
}

static int by_death(const void *left, const void *right) {
    BUFFERS(left, right);
    if (a->last != b->last) return a->last < b->last ? 1 : -1;
    return a->first != b->first ? (a->first < b->first ? -1 : 1) : by_size(left, right);
}

static order_fn *const orders[] = {by_size, by_life, by_area, by_birth, by_death};

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

/* Places order[0..n) one after the other; gives the arena's bytes. */
static size_t place_all(gap_lifetime *const *order, gap_lifetime **placed, int n) {
    size_t total = 0;
    for (int k = 0; k < n; k++) {
        gap_lifetime *b = order[k];
        b->offset = first_fit(b, placed, k);
        insert(placed, k, b);
        if (b->offset + b->bytes > total) total = b->offset + b->bytes;
    }
    return total;
}

/* What lives at once at most: it is reached when some buffer is born. */
static size_t most_alive(const gap_lifetime *buffer, int n) {
    size_t most = 0;
    for (int k = 0; k < n; k++) {
        size_t now = 0;
        for (int j = 0; j < n; j++)
            if (buffer[j].first <= buffer[k].first && buffer[k].first <= buffer[j].last) now += buffer[j].bytes;
        if (now > most) most = now;
    }
    return most;
}

gap_status gap_arena_place(gap_lifetime *buffer, int n, size_t *total, size_t *alive) {
    gap_status st = GAP_OK;
    gap_lifetime **order = NULL, **placed = NULL; /* (n) */
    size_t sum = 0, best = SIZE_MAX;
    int which = 0, stands = 0; /* the best order; the one that the offsets are of */
    *total = 0;
    for (int k = 0; k < n; k++) {
        if (buffer[k].bytes > SIZE_MAX / 2 - GAP_ALIGN || sum > SIZE_MAX / 2 - buffer[k].bytes - GAP_ALIGN)
            return gap_fail(GAP_ERR_MEMORY, "plan: the network needs more memory than can be addressed");
        buffer[k].bytes = (buffer[k].bytes + GAP_ALIGN - 1) / GAP_ALIGN * GAP_ALIGN;
        sum += buffer[k].bytes;
    }
    const size_t most = most_alive(buffer, n);
    if (alive != NULL) *alive = most;
    GAP_TRY(GAP_NEW_ARRAY(order, n));
    GAP_TRY(GAP_NEW_ARRAY(placed, n));
    for (int k = 0; k < n; k++) order[k] = &buffer[k];
    for (int o = 0; o < GAP_COUNTOF(orders) && best > most; o++) {
        qsort(order, (size_t)n, sizeof *order, orders[o]);
        const size_t bytes = place_all(order, placed, n);
        stands = o;
        if (bytes < best) best = bytes, which = o;
    }
    if (stands != which) {
        qsort(order, (size_t)n, sizeof *order, orders[which]);
        (void)place_all(order, placed, n);
    }
    *total = n > 0 ? best : 0;
done:
    gap_free(order);
    gap_free(placed);
    return st;
}

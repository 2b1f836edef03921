/* arena.h — one block of memory for buffers that do not all live at the same time. */
#ifndef GAP_GRAPH_ARENA_H
#define GAP_GRAPH_ARENA_H

#include <stddef.h>

#include "core/status.h"

/* A buffer that is alive from time `first` to time `last`, both included. */
typedef struct {
    size_t bytes;
    int first, last;
    size_t offset; /* found by gap_arena_place; a multiple of GAP_ALIGN */
} gap_lifetime;

/* Gives every buffer an offset such that two that are alive at once do not overlap: in each of a few orders (by size, by life)
 * every buffer goes to the lowest offset that is free for its whole life, and the smallest arena is taken; *total: its bytes.
 * alive not NULL: bytes alive at once at most. Depends on nothing but the arguments. */
GAP_MUST_USE gap_status gap_arena_place(gap_lifetime *buffer, int n, size_t *total, size_t *alive);

#endif

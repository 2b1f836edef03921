/* scratch.h — private pieces of an op's workspace for the threads that are at work.
 *
 * The number of pieces is settled when the plan is made; threads added later wait their turn, so that no setting can
 * overrun a workspace. What a piece holds is undefined when it is taken.
 */
#ifndef GAP_OPS_SCRATCH_H
#define GAP_OPS_SCRATCH_H

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>

#include "core/shape.h"
#include "core/compiler.h"
#include "core/cpu.h"
#include "core/threads.h"

#define GAP_SCRATCH_MAX 256

typedef struct {
    unsigned char *base;
    size_t bytes; /* of one piece */
    int n;
    atomic_flag busy[GAP_SCRATCH_MAX];
} gap_scratch;

/* How many pieces to plan for. */
static inline int gap_scratch_count(void) {
    const int threads = gap_threads_get(), cpus = gap_cpu_count(), n = threads > cpus ? threads : cpus;
    return n < GAP_SCRATCH_MAX ? n : GAP_SCRATCH_MAX;
}

/* Rounds up to whole cache lines, so that pieces never share one. */
static inline size_t gap_scratch_round(size_t bytes) { return (bytes + GAP_ALIGN - 1) / GAP_ALIGN * GAP_ALIGN; }

static inline void gap_scratch_begin(gap_scratch *s, void *base, size_t bytes, int n) {
    s->base = base, s->bytes = gap_scratch_round(bytes), s->n = n;
    for (int k = 0; k < n; k++) atomic_flag_clear(&s->busy[k]);
}

/* Takes a piece for a chunk that runs in `thread`; *slot goes to gap_scratch_give. */
static inline void *gap_scratch_take(gap_scratch *s, int thread, int *slot) {
    int k = thread % s->n;
    while (atomic_flag_test_and_set_explicit(&s->busy[k], memory_order_acquire)) {
        k = (k + 1) % s->n;
        if (k == thread % s->n) sched_yield();
    }
    *slot = k;
    return s->base + (size_t)k * s->bytes;
}

static inline void gap_scratch_give(gap_scratch *s, int slot) { atomic_flag_clear_explicit(&s->busy[slot], memory_order_release); }

#endif

/* threads.h — the process's one pool. Work is a list of chunks fixed by shape; threads only decide who does which.
 *
 * The calling thread works too. Each thread begins with a share of successive chunks, the same of every job of as many chunks
 * (in layer after layer it finds in its cache what it wrote), and helps with the others' then, so nothing may depend on which
 * thread ran a chunk; sums are kept per chunk and added in chunk order by the caller. Nested calls run in the calling thread.
 * A job is open while it has chunks to claim: workers join it when they come, and the caller waits for those who joined,
 * never for one who is asleep or whose CPU is taken away. So a slow helper costs its own chunk, not its share.
 * Workers spin briefly, then sleep (at once where there are more threads than CPUs); nobody is called who is awake.
 * After fork() the child makes new workers at first use.
 * Every participating thread runs with denormals flushed while it works (see core/cpu.h).
 */
#ifndef GAP_CORE_THREADS_H
#define GAP_CORE_THREADS_H

#include <stdint.h>

#include "core/status.h"

typedef void gap_chunk_fn(void *arg, int64_t chunk, int thread); /* thread: 0 <= thread < gap_threads_get(), for scratch only */

/* Around a fork whose caller holds a lock that a poll may wait for (Python's GIL): begin waits, without that lock, until no
 * parallel call runs, and keeps new ones out until end. Without the pair a fork still waits by itself. */
void gap_threads_fork_begin(void);
void gap_threads_fork_end(void); /* in parent and child */

/* Polled in the calling thread between its chunks; non-zero abandons the chunks not yet begun. */
typedef int gap_interrupted_fn(void *cookie);

/* Number of threads (caller included). set: 1..256, GAP_ERR_VALUE otherwise; takes effect at the next parallel call. */
GAP_MUST_USE gap_status gap_threads_set(int n);
int gap_threads_get(void); /* default: GAPLESS_NUM_THREADS, else gap_cpu_count() */

/* Runs fn(arg, 0..n_chunks). Returns GAP_OK, or GAP_ERR_INTERRUPTED when this thread's poll said so.
 * Thread safe: a second caller waits for the first. */
GAP_MUST_USE gap_status gap_parallel(int64_t n_chunks, gap_chunk_fn *fn, void *arg);
/* The same, told how long all chunks take one thread, about: it asks for no more helpers than there are pieces of
 * GAP_WORTH_NS beyond the first, so that small work stays in the calling thread. Changes no result. */
GAP_MUST_USE gap_status gap_parallel_sized(int64_t n_chunks, gap_chunk_fn *fn, void *arg, int64_t work_ns);
#define GAP_WORTH_NS 3000 /* a few times what bench_threads prints for an empty call with the workers awake */
/* Guesses for it, for one core of any machine that we run on: within a factor of four is good enough. */
static inline int64_t gap_ns_of_floats(int64_t n) { return n / 4; }  /* read and written once */
static inline int64_t gap_ns_of_fmas(int64_t n) { return n / 32; }

/* Sets this thread's poll (NULL: none) for the gap_parallel calls that it makes; returns the old one through the pointers. */
void gap_interrupt_set(gap_interrupted_fn *fn, void *cookie, gap_interrupted_fn **old_fn, void **old_cookie);
/* Asks this thread's poll now; non-zero: stop. For long loops that are not parallel. */
int gap_interrupt_poll(void);

#endif

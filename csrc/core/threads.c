#include "core/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "core/cpu.h"
#include "core/event.h"

#define MAX_THREADS 256
#define SPIN_NS 100000 /* longer than the gap between two layers, shorter than a time slice */

/* The job's word: number << 32 | open << 31 | helpers << 16 | workers inside. One word, so that joining and closing are one
 * step each: a worker joins only an open job that wants it, and nobody joins once the caller has closed it. */
#define NUMBER_SHIFT 32
#define OPEN ((uint64_t)1 << 31)
#define HELPERS_SHIFT 16
#define INSIDE_MASK 0xFFFFu

typedef struct {
    _Alignas(64) gap_event bell; /* rung for this worker alone */
    atomic_bool asleep;          /* it may be waiting on its bell */
} worker_state;

/* Chunks that one thread takes first: successive ones, so that what it wrote in the last layer is what it reads in this one,
 * and lies in its own cache. Claimed one by one, by its thread and then by whoever has done his own. */
typedef struct {
    _Alignas(64) atomic_int_fast64_t next; /* chunk to claim; past `end`: none is left */
    int64_t end;
} share;

typedef struct {
    _Alignas(64) atomic_uint_fast64_t word;
    /* Of the open job: written before it opens, read by those inside. */
    _Alignas(64) int n_shares;
    gap_chunk_fn *fn;
    void *arg;
    atomic_bool stop;
    _Alignas(64) gap_event left;           /* rung by the last worker to leave a closed job */
    atomic_bool caller_asleep;
    int n_workers;                         /* alive; under `callers` */
    atomic_int wanted;                     /* threads asked for, caller included; 0: not yet decided */
    atomic_int_fast64_t spin_ns;
    worker_state worker[MAX_THREADS];
    share share[MAX_THREADS];
} pool_state;

static pool_state pool;
static pthread_mutex_t callers = PTHREAD_MUTEX_INITIALIZER; /* one parallel call at a time */
static pthread_once_t at_fork = PTHREAD_ONCE_INIT;
static GAP_THREAD_LOCAL bool inside; /* this thread is running a chunk: calls from it are nested */
static GAP_THREAD_LOCAL int my_thread;
static GAP_THREAD_LOCAL bool forking; /* this thread holds `callers` around a fork */
static GAP_THREAD_LOCAL gap_interrupted_fn *poll_fn;
static GAP_THREAD_LOCAL void *poll_cookie;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint32_t number_of(uint64_t word) { return (uint32_t)(word >> NUMBER_SHIFT); }
static int helpers_of(uint64_t word) { return (int)(word >> HELPERS_SHIFT & (MAX_THREADS - 1)); }

/* The next chunk for this thread: of its own share, then of the others', from the one after it on. -1: none is left. */
static int64_t claim(int thread) {
    for (int k = 0, at = thread; k < pool.n_shares; k++, at = at + 1 < pool.n_shares ? at + 1 : 0) {
        share *s = &pool.share[at];
        if (atomic_load_explicit(&s->next, memory_order_relaxed) >= s->end) continue;
        const int64_t chunk = (int64_t)atomic_fetch_add(&s->next, 1);
        if (chunk < s->end) return chunk;
    }
    return -1;
}

static void run_chunks(int thread) {
    for (int64_t chunk; !atomic_load_explicit(&pool.stop, memory_order_relaxed) && (chunk = claim(thread)) >= 0;)
        pool.fn(pool.arg, chunk, thread);
}

static bool job_moved(uint32_t seen) { return number_of(atomic_load(&pool.word)) != seen; }
static bool all_left(uint32_t unused) { return (void)unused, (atomic_load(&pool.word) & INSIDE_MASK) == 0; }

/* Spins until done(seen), for a while; false: it is not. */
static bool spin(bool (*done)(uint32_t), uint32_t seen) {
    const int64_t limit = atomic_load_explicit(&pool.spin_ns, memory_order_relaxed);
    int64_t until = 0;
    if (limit == 0) return done(seen);
    for (int k = 1; !done(seen); k++) {
        relax();
        if (k % 64 != 0) continue; /* the clock costs as much as many looks */
        const int64_t now = now_ns();
        if (until == 0) until = now + limit;
        if (now > until) return false;
    }
    return true;
}

/* Until done(seen). `asleep` tells those who make it so to ring. */
static void sleep_until(bool (*done)(uint32_t), uint32_t seen, gap_event *bell, atomic_bool *asleep) {
    atomic_store(asleep, true);
    for (;;) {
        const uint32_t rung = gap_event_now(bell);
        if (done(seen)) break;
        gap_event_wait(bell, rung);
    }
    atomic_store(asleep, false);
}

/* Joins the open job where it wants this worker. *seen becomes the number of the job that was looked at. */
static bool join_job(int index, uint32_t *seen, bool *wanted) {
    uint64_t word = atomic_load(&pool.word);
    do {
        *seen = number_of(word);
        *wanted = index < helpers_of(word);
        if (!*wanted || !(word & OPEN)) return false;
    } while (!atomic_compare_exchange_weak(&pool.word, &word, word + 1));
    return true;
}

/* The last to leave a closed job calls the caller, who may have gone to sleep. */
static void leave_job(void) {
    const uint64_t word = atomic_fetch_sub(&pool.word, 1);
    if ((word & INSIDE_MASK) == 1 && !(word & OPEN) && atomic_load(&pool.caller_asleep)) gap_event_ring(&pool.left);
}

static _Noreturn void worker_loop(int index) {
    uint32_t seen = 0;
    bool wanted = true;
    gap_cpu_flush_denormals();
    inside = true;
    my_thread = index + 1;
    for (;;) {
        if (join_job(index, &seen, &wanted)) {
            run_chunks(my_thread);
            leave_job();
        }
        /* Whom the last job did not want will not be wanted soon. */
        if (!wanted || !spin(job_moved, seen)) sleep_until(job_moved, seen, &pool.worker[index].bell, &pool.worker[index].asleep);
    }
}

static void *worker_main(void *cookie) { worker_loop((int)(intptr_t)cookie); }

/* In the child of a fork there are no workers, and what other threads held is stale: start afresh. */
static void after_fork_child(void) {
    pthread_mutex_init(&callers, NULL);
    gap_event_after_fork();
    pool.n_workers = 0;
    atomic_store(&pool.word, atomic_load(&pool.word) >> NUMBER_SHIFT << NUMBER_SHIFT);
    atomic_store(&pool.caller_asleep, false);
    for (int k = 0; k < MAX_THREADS; k++) atomic_store(&pool.worker[k].asleep, false);
    inside = false;
    forking = false;
    my_thread = 0;
}

/* `inside`: a poll forks; the lock is this thread's already. */
static void lock_callers(void) {
    if (!forking && !inside) pthread_mutex_lock(&callers);
}

static void unlock_callers(void) {
    if (!forking && !inside) pthread_mutex_unlock(&callers);
}

void gap_threads_fork_begin(void) {
    if (forking || inside) return;
    pthread_mutex_lock(&callers);
    forking = true;
}

void gap_threads_fork_end(void) {
    if (!forking) return; /* also in the child, where after_fork_child has made the lock anew */
    forking = false;
    pthread_mutex_unlock(&callers);
}

/* Forking waits for a parallel call in another thread to end, so that the child never inherits a half-done job. */
static void register_fork(void) { pthread_atfork(lock_callers, unlock_callers, after_fork_child); }

static int decide_wanted(void) {
    const char *text = getenv("GAPLESS_NUM_THREADS");
    int n = text != NULL ? atoi(text) : 0;
    if (n < 1) n = gap_cpu_count();
    return n > MAX_THREADS ? MAX_THREADS : n;
}

/* Where threads outnumber CPUs, who spins keeps the CPU from who works. */
static void set_wanted(int n) {
    atomic_store(&pool.spin_ns, n > gap_cpu_count() ? 0 : SPIN_NS);
    atomic_store(&pool.wanted, n);
}

int gap_threads_get(void) {
    if (atomic_load_explicit(&pool.wanted, memory_order_relaxed) == 0) set_wanted(decide_wanted());
    return atomic_load_explicit(&pool.wanted, memory_order_relaxed);
}

gap_status gap_threads_set(int n) {
    if (n < 1 || n > MAX_THREADS) return gap_fail(GAP_ERR_VALUE, "threads: number must be in [1, %d], got %d", MAX_THREADS, n);
    pthread_mutex_lock(&callers);
    set_wanted(n);
    pthread_mutex_unlock(&callers);
    return GAP_OK;
}

/* Makes workers up to `n`; fewer than asked is not an error: the caller can always do the work. */
static void ensure_workers(int n) {
    while (pool.n_workers < n) {
        pthread_t t;
        if (pthread_create(&t, NULL, worker_main, (void *)(intptr_t)pool.n_workers) != 0) return;
        pthread_detach(t);
        pool.n_workers++;
    }
}

/* A share for the caller and one for each helper. */
static void deal(int64_t n_chunks, int helpers) {
    const int64_t n = helpers + 1, each = n_chunks / n, more = n_chunks % n;
    int64_t end = 0;
    pool.n_shares = (int)n;
    for (int k = 0; k < n; k++) {
        atomic_store_explicit(&pool.share[k].next, end, memory_order_relaxed);
        pool.share[k].end = end += each + (k < more);
    }
}

/* Lets workers in, and calls those who sleep. */
static void open_job(int helpers) {
    const uint64_t number = (uint64_t)number_of(atomic_load(&pool.word)) + 1;
    atomic_store(&pool.stop, false);
    atomic_store(&pool.word, number << NUMBER_SHIFT | OPEN | (uint64_t)helpers << HELPERS_SHIFT);
    for (int k = 0; k < helpers; k++)
        if (atomic_load(&pool.worker[k].asleep)) gap_event_ring(&pool.worker[k].bell);
}

/* Lets nobody in any more, and waits for those inside. */
static void close_job(void) {
    const uint64_t word = atomic_fetch_and(&pool.word, ~OPEN);
    if ((word & INSIDE_MASK) != 0 && !spin(all_left, 0)) sleep_until(all_left, 0, &pool.left, &pool.caller_asleep);
}

static gap_status run_alone(int64_t n_chunks, gap_chunk_fn *fn, void *arg, int thread) {
    for (int64_t k = 0; k < n_chunks; k++) {
        if (gap_interrupt_poll()) return gap_fail(GAP_ERR_INTERRUPTED, "interrupted");
        fn(arg, k, thread);
    }
    return GAP_OK;
}

/* The calling thread's share of a job: its own chunks, with a poll between them. True: it was told to stop. */
static bool work_and_poll(void) {
    for (;;) {
        if (gap_interrupt_poll()) {
            atomic_store(&pool.stop, true);
            return true;
        }
        const int64_t chunk = claim(0);
        if (chunk < 0) return false;
        pool.fn(pool.arg, chunk, 0);
    }
}

/* The caller's state of mind around its own chunks. */
static unsigned begin_work(void) {
    inside = true;
    return gap_cpu_flush_denormals();
}

static void end_work(unsigned float_state) {
    inside = false;
    gap_cpu_restore(float_state);
}

static gap_status run_with_helpers(int64_t n_chunks, gap_chunk_fn *fn, void *arg, int64_t helpers) {
    pthread_mutex_lock(&callers);
    ensure_workers((int)helpers);
    if (helpers > pool.n_workers) helpers = pool.n_workers;
    const unsigned float_state = begin_work();
    pool.fn = fn, pool.arg = arg;
    deal(n_chunks, (int)helpers);
    open_job((int)helpers);
    const bool stopped = work_and_poll();
    close_job();
    end_work(float_state);
    pthread_mutex_unlock(&callers);
    return stopped ? gap_fail(GAP_ERR_INTERRUPTED, "interrupted") : GAP_OK;
}

gap_status gap_parallel_sized(int64_t n_chunks, gap_chunk_fn *fn, void *arg, int64_t work_ns) {
    if (inside) return run_alone(n_chunks, fn, arg, my_thread); /* nested: a worker's own chunk, or a caller's */
    pthread_once(&at_fork, register_fork);
    int64_t helpers = gap_threads_get() - 1;
    if (helpers > n_chunks - 1) helpers = n_chunks - 1;
    if (helpers > work_ns / GAP_WORTH_NS - 1) helpers = work_ns / GAP_WORTH_NS - 1;
    if (helpers > 0) return run_with_helpers(n_chunks, fn, arg, helpers);
    const unsigned float_state = begin_work();
    const gap_status st = run_alone(n_chunks, fn, arg, 0);
    end_work(float_state);
    return st;
}

gap_status gap_parallel(int64_t n_chunks, gap_chunk_fn *fn, void *arg) { return gap_parallel_sized(n_chunks, fn, arg, INT64_MAX); }

void gap_interrupt_set(gap_interrupted_fn *fn, void *cookie, gap_interrupted_fn **old_fn, void **old_cookie) {
    if (old_fn != NULL) *old_fn = poll_fn;
    if (old_cookie != NULL) *old_cookie = poll_cookie;
    poll_fn = fn;
    poll_cookie = cookie;
}

int gap_interrupt_poll(void) { return poll_fn != NULL ? poll_fn(poll_cookie) : 0; }

#include "core/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "core/cpu.h"
#include "core/memory.h"

#define MAX_THREADS 256
#define HELPERS_MASK 0xFFFFu
#define SPIN_NS 50000 /* longer than the gap between two layers, shorter than a time slice */

typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t wake, idle;
    int n_workers;             /* alive */
    int wanted;                /* threads asked for, caller included; 0: not yet decided */
    atomic_uint_fast64_t job;  /* (number of the job) << 16 | helpers; workers wait for it to move */
    atomic_int busy;           /* workers still inside the job */
    atomic_int_fast64_t next;  /* chunk to claim */
    int64_t n_chunks;
    gap_chunk_fn *fn;
    void *arg;
    atomic_bool stop;
} pool_state;

static pool_state pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER};
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

static void run_chunks(int thread) {
    for (;;) {
        if (atomic_load_explicit(&pool.stop, memory_order_relaxed)) return;
        int64_t chunk = (int64_t)atomic_fetch_add(&pool.next, 1);
        if (chunk >= pool.n_chunks) return;
        pool.fn(pool.arg, chunk, thread);
    }
}

/* Waits until the job number differs from `seen`: spins a little, then sleeps. */
static uint64_t wait_for_job(uint64_t seen) {
    int64_t until = now_ns() + SPIN_NS;
    for (int k = 0;; k++) {
        uint64_t job = atomic_load(&pool.job);
        if (job != seen) return job;
        relax();
        if ((k & 63) == 63 && now_ns() > until) break;
    }
    pthread_mutex_lock(&pool.mutex);
    while (atomic_load(&pool.job) == seen) pthread_cond_wait(&pool.wake, &pool.mutex);
    uint64_t job = atomic_load(&pool.job);
    pthread_mutex_unlock(&pool.mutex);
    return job;
}

static _Noreturn void worker_loop(int index) {
    gap_cpu_flush_denormals();
    inside = true;
    my_thread = index + 1;
    /* Starting from 0 is safe: a job older than this worker had fewer helpers than this worker's index. */
    uint64_t seen = 0;
    for (;;) {
        uint64_t job = wait_for_job(seen);
        seen = job;
        /* The number of helpers travels in the same word as the job's number: read apart, a worker that slept
         * through one job could take part in the next one twice. */
        if (index >= (int)(job & HELPERS_MASK)) continue;
        run_chunks(my_thread);
        if (atomic_fetch_sub(&pool.busy, 1) == 1) {
            pthread_mutex_lock(&pool.mutex);
            pthread_cond_signal(&pool.idle);
            pthread_mutex_unlock(&pool.mutex);
        }
    }
}

static void *worker_main(void *cookie) { worker_loop((int)(intptr_t)cookie); }

/* In the child of a fork there are no workers, and locks held by other threads are stale: start afresh. */
static void after_fork_child(void) {
    pthread_mutex_init(&pool.mutex, NULL);
    pthread_mutex_init(&callers, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.idle, NULL);
    pool.n_workers = 0;
    atomic_store(&pool.job, 0);
    atomic_store(&pool.busy, 0);
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

int gap_threads_get(void) {
    if (pool.wanted == 0) pool.wanted = decide_wanted();
    return pool.wanted;
}

gap_status gap_threads_set(int n) {
    if (n < 1 || n > MAX_THREADS) return gap_fail(GAP_ERR_VALUE, "threads: number must be in [1, %d], got %d", MAX_THREADS, n);
    pthread_mutex_lock(&callers);
    pool.wanted = n;
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

static void wait_idle(void) {
    int64_t until = now_ns() + SPIN_NS;
    for (int k = 0; atomic_load(&pool.busy) != 0; k++) {
        relax();
        if ((k & 63) != 63 || now_ns() <= until) continue;
        pthread_mutex_lock(&pool.mutex);
        while (atomic_load(&pool.busy) != 0) pthread_cond_wait(&pool.idle, &pool.mutex);
        pthread_mutex_unlock(&pool.mutex);
    }
}

static gap_status run_alone(int64_t n_chunks, gap_chunk_fn *fn, void *arg) {
    for (int64_t k = 0; k < n_chunks; k++) {
        if (gap_interrupt_poll()) return gap_fail(GAP_ERR_INTERRUPTED, "interrupted");
        fn(arg, k, 0);
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
        int64_t chunk = (int64_t)atomic_fetch_add(&pool.next, 1);
        if (chunk >= pool.n_chunks) return false;
        pool.fn(pool.arg, chunk, 0);
    }
}

gap_status gap_parallel(int64_t n_chunks, gap_chunk_fn *fn, void *arg) {
    if (inside) { /* nested: a worker's own chunk, or a caller's */
        for (int64_t k = 0; k < n_chunks; k++) fn(arg, k, my_thread);
        return GAP_OK;
    }
    pthread_once(&at_fork, register_fork);
    unsigned float_state = gap_cpu_flush_denormals();
    gap_status st = GAP_OK;
    if (n_chunks < 2 || gap_threads_get() == 1) {
        inside = true;
        st = run_alone(n_chunks, fn, arg);
        inside = false;
        gap_cpu_restore(float_state);
        return st;
    }
    pthread_mutex_lock(&callers);
    int helpers = gap_threads_get() - 1;
    if (helpers > n_chunks - 1) helpers = (int)(n_chunks - 1);
    ensure_workers(helpers);
    if (helpers > pool.n_workers) helpers = pool.n_workers;
    inside = true;
    pool.fn = fn, pool.arg = arg, pool.n_chunks = n_chunks;
    atomic_store(&pool.next, 0);
    atomic_store(&pool.stop, false);
    atomic_store(&pool.busy, helpers);
    pthread_mutex_lock(&pool.mutex);
    atomic_store(&pool.job, ((atomic_load(&pool.job) >> 16) + 1) << 16 | (uint64_t)helpers);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.mutex);
    bool stopped = work_and_poll();
    wait_idle();
    inside = false;
    pthread_mutex_unlock(&callers);
    gap_cpu_restore(float_state);
    return stopped ? gap_fail(GAP_ERR_INTERRUPTED, "interrupted") : GAP_OK;
}

void gap_interrupt_set(gap_interrupted_fn *fn, void *cookie, gap_interrupted_fn **old_fn, void **old_cookie) {
    if (old_fn != NULL) *old_fn = poll_fn;
    if (old_cookie != NULL) *old_cookie = poll_cookie;
    poll_fn = fn;
    poll_cookie = cookie;
}

int gap_interrupt_poll(void) { return poll_fn != NULL ? poll_fn(poll_cookie) : 0; }

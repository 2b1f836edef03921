#include "core/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

#define CHUNKS 1000

static void mark(void *arg, int64_t chunk, int thread) {
    atomic_int *seen = arg;
    CHECK(thread >= 0 && thread < 8);
    atomic_fetch_add(&seen[chunk], 1);
}

static bool every_chunk_once(void) {
    static atomic_int seen[CHUNKS];
    for (int k = 0; k < CHUNKS; k++) atomic_store(&seen[k], 0);
    if (gap_parallel(CHUNKS, mark, seen) != GAP_OK) return false;
    for (int k = 0; k < CHUNKS; k++)
        if (atomic_load(&seen[k]) != 1) return false;
    return true;
}

static void test_threads_run_every_chunk_once(void) {
    for (int n = 1; n <= 8; n++) {
        CHECK_OK(gap_threads_set(n));
        for (int round = 0; round < 200; round++) CHECK(every_chunk_once());
    }
    /* Going up and down again: workers that sat out a job must not join the next one twice. */
    for (int round = 0; round < 400; round++) {
        CHECK_OK(gap_threads_set(1 + round % 8));
        CHECK(every_chunk_once());
    }
}

static void nested_inner(void *arg, int64_t chunk, int thread) {
    (void)chunk, (void)thread;
    atomic_fetch_add((atomic_int *)arg, 1);
}
static void nested_outer(void *arg, int64_t chunk, int thread) {
    (void)chunk, (void)thread;
    gap_status st = gap_parallel(10, nested_inner, arg);
    CHECK(st == GAP_OK);
}

static void test_threads_nested_calls_run_in_place(void) {
    atomic_int count = 0;
    CHECK_OK(gap_threads_set(3));
    CHECK_OK(gap_parallel(50, nested_outer, &count));
    CHECK(atomic_load(&count) == 500);
}

typedef struct { atomic_int done, elsewhere; } counted;
static void where(void *arg, int64_t chunk, int thread) {
    (void)chunk;
    counted *c = arg;
    atomic_fetch_add(&c->done, 1);
    if (thread != 0) atomic_fetch_add(&c->elsewhere, 1);
}

static void test_threads_small_work_stays_with_the_caller(void) {
    CHECK_OK(gap_threads_set(4));
    counted c = {0};
    for (int k = 0; k < 200; k++) CHECK_OK(gap_parallel_sized(50, where, &c, GAP_WORTH_NS));
    CHECK(atomic_load(&c.done) == 200 * 50 && atomic_load(&c.elsewhere) == 0);
    for (int k = 0; k < 200; k++) CHECK_OK(gap_parallel_sized(50, where, &c, (k % 6) * GAP_WORTH_NS));
    CHECK(atomic_load(&c.done) == 2 * 200 * 50);
    CHECK_OK(gap_parallel_sized(0, where, &c, INT64_MAX));
    CHECK(atomic_load(&c.done) == 2 * 200 * 50);
}

/* A chunk that waits until some other thread has run one: workers that sleep must be called. */
static void meet(void *arg, int64_t chunk, int thread) {
    (void)chunk;
    atomic_int *threads_seen = arg;
    atomic_fetch_or(threads_seen, 1 << thread);
    while (atomic_load(threads_seen) != 3) sched_yield();
}

static void test_threads_call_those_who_sleep(void) {
    CHECK_OK(gap_threads_set(2));
    for (int k = 0; k < 40; k++) {
        const struct timespec pause = {.tv_nsec = 10000 * k}; /* up to four times as long as a worker spins */
        atomic_int threads_seen = 0;
        nanosleep(&pause, NULL);
        CHECK_OK(gap_parallel(2, meet, &threads_seen));
        CHECK(atomic_load(&threads_seen) == 3);
    }
}

/* Jobs that end before a worker has come: what they were given is gone by then, and must not be touched. */
static void test_threads_late_workers_touch_nothing(void) {
    CHECK_OK(gap_threads_set(8));
    for (int k = 0; k < 3000; k++) {
        counted *c = NULL;
        CHECK_OK(GAP_NEW(c));
        CHECK_OK(gap_parallel(3, where, c));
        CHECK(atomic_load(&c->done) == 3);
        gap_free(c);
    }
}

static int stop_now(void *cookie) { return ++*(int *)cookie > 3; }

static void test_threads_stop_when_the_poll_says_so(void) {
    for (int n = 1; n <= 2; n++) {
        int polls = n == 1 ? 0 : 3; /* with a helper the first poll stops: it may do all chunks before a fourth */
        atomic_int count = 0;
        CHECK_OK(gap_threads_set(n));
        gap_interrupt_set(stop_now, &polls, NULL, NULL);
        CHECK_FAILS(gap_parallel(100000, nested_inner, &count), GAP_ERR_INTERRUPTED);
        gap_interrupt_set(NULL, NULL, NULL, NULL);
        CHECK(n > 1 || atomic_load(&count) == 3);
        CHECK(every_chunk_once());
    }
}

static void *caller(void *arg) {
    for (int k = 0; k < 50; k++)
        if (!every_chunk_once()) *(int *)arg = 1;
    return NULL;
}

static void test_threads_two_callers_take_turns(void) {
    /* The other thread uses every_chunk_once's array, this one its own: only the pool is shared. */
    CHECK_OK(gap_threads_set(4));
    int failed = 0;
    pthread_t t;
    CHECK(pthread_create(&t, NULL, caller, &failed) == 0);
    atomic_int count = 0;
    for (int k = 0; k < 50; k++) CHECK_OK(gap_parallel(100, nested_inner, &count));
    pthread_join(t, NULL);
    CHECK(failed == 0 && atomic_load(&count) == 5000);
}

#if !defined(__SANITIZE_THREAD__) /* TSan cannot follow new threads in a forked child */
static void test_threads_survive_fork(void) {
    CHECK_OK(gap_threads_set(3));
    CHECK(every_chunk_once());
    for (int round = 0; round < 20; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(20);
            _exit(every_chunk_once() ? 0 : 1);
        }
        int status = 1;
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
        CHECK(every_chunk_once());
    }
}

#endif

static void test_threads_number_is_checked(void) {
    CHECK_FAILS(gap_threads_set(0), GAP_ERR_VALUE);
    CHECK_FAILS(gap_threads_set(100000), GAP_ERR_VALUE);
    CHECK_OK(gap_threads_set(2));
    CHECK(gap_threads_get() == 2);
}

int main(void) {
    RUN(test_threads_run_every_chunk_once);
    RUN(test_threads_nested_calls_run_in_place);
    RUN(test_threads_small_work_stays_with_the_caller);
    RUN(test_threads_call_those_who_sleep);
    RUN(test_threads_late_workers_touch_nothing);
    RUN(test_threads_stop_when_the_poll_says_so);
    RUN(test_threads_two_callers_take_turns);
#if !defined(__SANITIZE_THREAD__)
    RUN(test_threads_survive_fork);
#endif
    RUN(test_threads_number_is_checked);
    return harness_end();
}

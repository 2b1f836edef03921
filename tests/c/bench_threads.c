/* bench_threads.c — what a parallel call costs, and what it brings.
 *
 *     bench_threads [THREADS]     default: 2
 *
 * Prints nanoseconds of an empty call: calls back to back (the workers spin), calls with a pause between them (the workers
 * sleep), one chunk (nobody is asked); and how much faster N threads are than one at chunks of a compute-bound loop. On a
 * machine whose CPUs are stolen the medians count: each line gives the best tenth, the median and the worst hundredth.
 */
#include <time.h>

#include "core/threads.h"
#include "harness.h"

#define CALLS 20000
#define SLOW_CALLS 300
#define PAUSE_NS 300000 /* longer than a worker spins */

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void nothing(void *arg, int64_t chunk, int thread) { (void)arg, (void)chunk, (void)thread; }

static void price(const char *name, int64_t chunks, int calls, double pause_ns) {
    static double took[CALLS];
    for (int k = 0; k < calls; k++) {
        const double begin = now_ns();
        if (pause_ns > 0) {
            const struct timespec t = {.tv_nsec = (long)pause_ns};
            nanosleep(&t, NULL);
        }
        const double start = pause_ns > 0 ? now_ns() : begin;
        CHECK_OK(gap_parallel(chunks, nothing, NULL));
        took[k] = now_ns() - start;
    }
    qsort(took, (size_t)calls, sizeof took[0], by_value);
    printf("%-34s %8.0f  %8.0f  %8.0f ns\n", name, took[calls / 10], took[calls / 2], took[calls - 1 - calls / 100]);
}

typedef struct { float out[64][16]; int turns; } work;

/* Sixteen chains of additions and products: nothing but arithmetic. */
static void compute(void *arg, int64_t chunk, int thread) {
    (void)thread;
    work *w = arg;
    float x[16];
    for (int l = 0; l < 16; l++) x[l] = 1.0f + (float)l * 0.001f;
    for (int k = 0; k < w->turns; k++)
        for (int l = 0; l < 16; l++) x[l] = x[l] * 0.999f + 0.001f;
    memcpy(w->out[chunk % 64], x, sizeof x);
}

static double seconds_of(int threads, int64_t chunks, work *w) {
    double best = 1e18;
    CHECK_OK(gap_threads_set(threads));
    for (int rep = 0; rep < 15; rep++) {
        const double start = now_ns();
        for (int k = 0; k < 20; k++) CHECK_OK(gap_parallel(chunks, compute, w));
        const double took = now_ns() - start;
        if (took < best) best = took;
    }
    return best * 1e-9 / 20;
}

static void scaling(int threads, int64_t chunks, int turns) {
    static work w;
    w.turns = turns;
    const double one = seconds_of(1, chunks, &w), many = seconds_of(threads, chunks, &w);
    printf("%3lld chunks of %7.1f us: %d threads are %.2f times as fast as 1\n", (long long)chunks, one / (double)chunks * 1e6, threads, one / many);
}

int main(int argc, char **argv) {
    const int threads = argc > 1 ? atoi(argv[1]) : 2;
    printf("%-34s %8s  %8s  %8s\n", "an empty call", "best 10%", "median", "worst 1%");
    CHECK_OK(gap_threads_set(1));
    price("1 thread, 8 chunks", 8, CALLS, 0);
    CHECK_OK(gap_threads_set(threads));
    price("all threads, 1 chunk", 1, CALLS, 0);
    price("all threads, 2 chunks, awake", 2, CALLS, 0);
    price("all threads, 8 chunks, awake", 8, CALLS, 0);
    price("all threads, 8 chunks, asleep", 8, SLOW_CALLS, PAUSE_NS);
    scaling(threads, 2, 20000), scaling(threads, 16, 2500), scaling(threads, 16, 250), scaling(threads, 15, 20000), scaling(threads, 16, 25);
    return harness_end();
}

#define _GNU_SOURCE
#include "ops/peak.h"

#include <time.h>

#include "core/memory.h"
#include "core/threads.h"

#define FMA_RUNS 40 /* short ones: among them some that nobody interrupted */
#define TRIAD_RUNS 12
#define RUN_SECONDS 0.004
#define CHUNK_FLOATS ((size_t)1 << 14) /* 64 KB of each array */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct {
    const gap_peak_kernels *kernel;
    int64_t rounds;
    float *sum; /* (threads) kept, so that nothing is left out as unused */
} fma_job;

static void fma_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    fma_job *job = arg;
    job->sum[chunk] = job->kernel->fma(job->rounds, 0.999f, 0.001f);
}

/* A chunk per thread. A run in which one thread did two of them takes longer and is not the best one. */
gap_status gap_peak_fma(const gap_kernels *k, double *flop_per_second) {
    gap_status st = GAP_OK;
    int threads = gap_threads_get();
    fma_job job = {.kernel = k->peak, .rounds = 1000};
    double best = 0;
    GAP_TRY(GAP_NEW_ARRAY(job.sum, threads));
    for (int run = 0; run < FMA_RUNS; run++) {
        double began = now();
        GAP_TRY(gap_parallel(threads, fma_chunk, &job));
        double seconds = now() - began, rate = 2.0 * (double)job.kernel->fmas * (double)job.rounds * threads / seconds;
        if (rate > best) best = rate;
        if (seconds < RUN_SECONDS / 2) job.rounds *= 2, run--;
    }
    *flop_per_second = best;
done:
    gap_free(job.sum);
    return st;
}

typedef struct {
    const gap_peak_kernels *kernel;
    size_t n;
    float *a, *b, *y;
} triad_job;

static void triad_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    triad_job *job = arg;
    size_t begin = (size_t)chunk * CHUNK_FLOATS, left = job->n - begin, n = left < CHUNK_FLOATS ? left : CHUNK_FLOATS;
    job->kernel->triad(n, job->a + begin, job->b + begin, 3.0f, job->y + begin);
}

gap_status gap_peak_triad(const gap_kernels *k, size_t bytes, double *bytes_per_second) {
    gap_status st = GAP_OK;
    triad_job job = {.kernel = k->peak, .n = bytes / (3 * sizeof(float)) / 16 * 16};
    double best = 0;
    if (job.n == 0) return gap_fail(GAP_ERR_VALUE, "triad: bytes must be >= 192, got %zu", bytes);
    GAP_TRY(gap_alloc_dirty(&job.a, job.n, sizeof(float)));
    GAP_TRY(gap_alloc_dirty(&job.b, job.n, sizeof(float)));
    GAP_TRY(gap_alloc_dirty(&job.y, job.n, sizeof(float)));
    for (size_t i = 0; i < job.n; i++) job.a[i] = 1.0f, job.b[i] = 2.0f, job.y[i] = 0.0f; /* every page touched */
    for (int run = 0; run < TRIAD_RUNS; run++) {
        double began = now();
        GAP_TRY(gap_parallel((int64_t)((job.n + CHUNK_FLOATS - 1) / CHUNK_FLOATS), triad_chunk, &job));
        double rate = 3.0 * sizeof(float) * (double)job.n / (now() - began);
        if (rate > best) best = rate;
    }
    *bytes_per_second = best;
done:
    gap_free(job.a);
    gap_free(job.b);
    gap_free(job.y);
    return st;
}

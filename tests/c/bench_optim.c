/* bench_optim.c — the update phase on a flat store of 25.5 million weights (resnet50), against the memory's own pace.
 *
 *     bench_optim [SET] [THREADS]     SET: avx512, avx2, ref …; default: the best one, GAPLESS_NUM_THREADS
 *
 * The pace is STREAM's triad on planes of the same size, which moves 16 bytes per weight: two read, one fetched and written.
 * A line's share is the bytes that the pass must move, divided by that pace, over the time it took. Alternating with the triad,
 * so that a busy machine counts for both; best of nine each.
 */
#include <time.h>

#include "core/threads.h"
#include "harness.h"
#include "kernels/kernels.h"
#include "optim/optimizer.h"

#define N ((size_t)25557032)
#define CHUNK ((size_t)16384)
#define ROUNDS 9

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct {
    const gap_kernels *kernels;
    const gap_optimizer_def *def;
    double hyper[8];
    bool ema, update, check, triad;
    float *plane[6]; /* weight, gradient, ema, slots */
} work;

static void chunk_of(void *arg, int64_t chunk, int thread) {
    (void)thread;
    work *w = arg;
    const size_t at = (size_t)chunk * CHUNK, n = N - at < CHUNK ? N - at : CHUNK;
    if (w->triad)
        for (size_t k = at; k < at + n; k++) w->plane[2][k] = w->plane[0][k] + 0.5f * w->plane[1][k];
    if (w->check) CHECK(!w->kernels->optim->nonfinite(n, w->plane[1] + at));
    if (!w->update) return;
    const gap_optim_range r = {.n = n, .weight = w->plane[0] + at, .gradient = w->plane[1] + at, .ema = w->ema ? w->plane[2] + at : NULL,
                               .ema_move = 0.001f, .slot = {w->plane[3] + at, w->plane[4] + at, w->plane[5] + at}};
    w->def->update(w->kernels->optim, w->hyper, 2, &r);
}

static double once(work *w) {
    const double start = now();
    CHECK_OK(gap_parallel((int64_t)((N + CHUNK - 1) / CHUNK), chunk_of, w));
    return now() - start;
}

static void line(work *w, const char *name, double bytes_per_weight) {
    double best = 1e9, triad = 1e9;
    work stream = {.triad = true, .plane = {w->plane[3], w->plane[1], w->plane[2]}};
    for (int k = 0; k < ROUNDS; k++) {
        const double s = once(&stream), t = once(w);
        if (s < triad) triad = s;
        if (t < best) best = t;
    }
    const double bound = triad * bytes_per_weight / 16;
    printf("%-28s %7.2f ms  %5.1f GB/s  %3.0f %% of the triad's pace (%.1f GB/s)\n", name, best * 1e3,
           (double)N * bytes_per_weight / best * 1e-9, bound / best * 100, (double)N * 16 / triad * 1e-9);
}

int main(int argc, char **argv) {
    work w = {.check = true};
    CHECK_OK(gap_kernels_find(&w.kernels, argc > 1 ? argv[1] : NULL));
    if (argc > 2) CHECK_OK(gap_threads_set(atoi(argv[2])));
    printf("set %s, %d threads, %zu weights\n", gap_kernel_set_name(w.kernels->id), gap_threads_get(), N);
    for (int k = 0; k < 6; k++) {
        CHECK_OK(gap_alloc(&w.plane[k], N, 4));
        if (k < 2) harness_fill(w.plane[k], N, (uint32_t)k);
    }
    line(&w, "check alone", 4);
    w.check = false, w.update = true;
    static const struct { const char *name, *optimizer; double hyper[8], bytes; } rows[] = {
        {"SGD", "SGD", {1e-3}, 12}, {"SGD, momentum", "SGD", {1e-3, 0.9, 0, 1e-4}, 20},
        {"Adam", "Adam", {1e-3, 0.9, 0.999, 1e-8}, 28}, {"AdamW", "AdamW", {1e-3, 0.9, 0.999, 1e-8, 1e-2}, 28},
        {"RMSprop, momentum", "RMSprop", {1e-3, 0.9, 1e-3, 0, 0.9}, 28},
    };
    for (int k = 0; k < GAP_COUNTOF(rows); k++)
        for (int ema = 0; ema < 2; ema++) {
            char name[64];
            snprintf(name, sizeof name, "%s%s", rows[k].name, ema ? " and EMA" : "");
            w.def = gap_optimizer_find(rows[k].optimizer), w.ema = ema != 0;
            memcpy(w.hyper, rows[k].hyper, sizeof w.hyper);
            line(&w, name, rows[k].bytes + 8 * ema);
        }
    for (int k = 0; k < 6; k++) gap_free(w.plane[k]);
    return harness_end();
}

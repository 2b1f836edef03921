/* bench_linear.c — each pass of linear layers of usual sizes, beside this machine's own peak and its memory's pace.
 *
 *     bench_linear [SET] [THREADS]     SET: avx512, avx2, ref, blas …; default: the best one, GAPLESS_NUM_THREADS
 *
 * A pass is given its floating-point operations per second as a share of the peak (a tile in the first cache), and its bytes
 * per second (each operand read once, the result written once and, where it is not small, fetched before) as a share of STREAM's
 * triad. One of the two is the limit. With one thread the time is this process's own.
 */
#include <time.h>

#include "op_harness.h"

static double now(void) {
    struct timespec t;
    clock_gettime(gap_threads_get() == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Best of runs that take at least 0.15 s together. */
#define BEST(out, call)                                                        \
    do {                                                                       \
        double total = 0;                                                      \
        out = 1e9;                                                             \
        for (int rep = 0; rep < 3 || (total < 0.15 && rep < 200); rep++) {     \
            const double start = now();                                        \
            CHECK_OK(call);                                                    \
            const double took = now() - start;                                 \
            total += took;                                                     \
            if (took < out) out = took;                                        \
        }                                                                      \
    } while (0)

static double peak(const gap_kernels *k) {
    static _Alignas(64) float a[12 * 128], b[128 * 64], c[12 * 64];
    const gap_linear_product p = {.a = a, .a_i = 128, .a_j = 1, .b = b, .b_row = 64, .c = c, .c_row = 64, .rows = 12, .depth = 128, .cols = 64};
    double best = 1e9;
    for (int rep = 0; rep < 40; rep++) {
        const double start = now();
        for (int j = 0; j < 100; j++) k->linear->product(&p);
        if (now() - start < best) best = now() - start;
    }
    return 2.0 * 12 * 128 * 64 * 100 / best;
}

#define STREAM ((size_t)16 << 20)
static float *plane[3];
static void triad_chunk(void *arg, int64_t chunk, int thread) {
    (void)arg, (void)thread;
    for (size_t k = (size_t)chunk << 14; k < (size_t)(chunk + 1) << 14; k++) plane[0][k] = plane[1][k] + 0.5f * plane[2][k];
}
static double triad(void) {
    double best;
    for (int k = 0; k < 3; k++) CHECK_OK(gap_alloc(&plane[k], STREAM, 4));
    BEST(best, gap_parallel(STREAM >> 14, triad_chunk, NULL));
    for (int k = 0; k < 3; k++) gap_free(plane[k]);
    return 16.0 * (double)STREAM / best;
}

static void pass(const char *name, double seconds, double flop, double bytes, double top, double stream) {
    printf("  %-3s %8.3f ms %4.0f %% %4.0f %%", name, seconds * 1e3, flop / seconds / top * 100, bytes / seconds / stream * 100);
}

static void bench(int64_t n, int64_t f, int64_t of, const gap_kernels *kernels, double top, double stream) {
    op_bench b;
    char name[64];
    memset(&b, 0, sizeof b);
    gap_oplist_init(&b.list, true);
    const gap_desc in = gap_desc_vector(f);
    const gap_origin who = {"fc", 0};
    int value, out;
    CHECK_OK(gap_oplist_value(&b.list, &in, &value));
    CHECK_OK(gap_emit_linear(&b.list, who, value, of, 0, -1, &out));
    const size_t n_w[2] = {(size_t)(f * of), (size_t)of};
    op_bench_make(&b, kernels, n, true, n_w, 3);
    const double flop = 2.0 * (double)(n * f * of), weights = 4.0 * (double)(f * of), rest = 4.0 * (double)(n * (f + of));
    double fwd, dx, dw, pack = 0;
    if (b.op->def->derive) BEST(pack, b.op->def->derive(b.op, &b.ctx));
    BEST(fwd, b.op->def->forward(b.op, &b.ctx));
    b.ctx.dweight[0] = NULL;
    BEST(dx, b.op->def->backward(b.op, &b.ctx));
    b.ctx.dweight[0] = b.dw[0], b.ctx.din[0] = NULL;
    BEST(dw, b.op->def->backward(b.op, &b.ctx));
    snprintf(name, sizeof name, "%lld-%lld b%lld", (long long)f, (long long)of, (long long)n);
    printf("%-16s", name);
    pass("fwd", fwd, flop, weights + rest, top, stream), pass("dx", dx, flop, weights + rest, top, stream);
    pass("dw", dw, flop, 2 * weights + rest, top, stream);
    if (b.op->def->derive) printf("  derive %.3f ms", pack * 1e3);
    printf("\n");
    op_bench_free(&b);
}

int main(int argc, char **argv) {
    static const int64_t shapes[][3] = {{128, 3136, 128}, {128, 512, 10}, {32, 512, 1000}, {128, 512, 1000}, {32, 2048, 1000}, {128, 2048, 1000},
                                        {16, 8192, 4096}, {1, 512, 1000}, {1, 2048, 1000}, {4, 2048, 1000}, {8, 2048, 1000}, {1, 8192, 4096}};
    const gap_kernels *kernels = NULL;
    CHECK_OK(gap_kernels_find(&kernels, argc > 1 ? argv[1] : NULL));
    CHECK_OK(gap_threads_set(argc > 2 ? atoi(argv[2]) : gap_threads_get()));
    const double top = peak(kernels) * gap_threads_get(), stream = triad();
    printf("set %s, %d threads, peak %.1f GFLOP/s, triad %.1f GB/s; share of peak, share of triad\n", gap_kernel_set_name(kernels->id),
           gap_threads_get(), top * 1e-9, stream * 1e-9);
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) bench(shapes[k][0], shapes[k][1], shapes[k][2], kernels, top, stream);
    return harness_end();
}

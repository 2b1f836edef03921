/* bench_conv.c — GFLOP/s of each pass of the convolutions of usual networks, beside this machine's own peak; of groups, only
 * what connects counts.
 *
 *     bench_conv [SET] [THREADS] [FIRST [LAST]]     SET: avx512, avx2, ref, blas …; default: the best one, GAPLESS_NUM_THREADS;
 *                                                   rows FIRST..LAST of the table only
 */
#include <time.h>

#include "op_harness.h"

typedef struct { const char *name; int64_t n, c, h, oc, k, s, g; bool nhwc; } shape;
static const shape shapes[] = {
    {"3x3 64 @32", 16, 64, 32, 64, 3, 1, 1, false},       {"3x3 128 @16", 16, 128, 16, 128, 3, 1, 1, false},
    {"3x3 256 @8", 16, 256, 8, 256, 3, 1, 1, false},      {"3x3 512 @4", 32, 512, 4, 512, 3, 1, 1, false},
    {"3x3 64 @56", 4, 64, 56, 64, 3, 1, 1, false},        {"3x3 512 @7", 8, 512, 7, 512, 3, 1, 1, false},
    {"3x3/2 64-128 @32", 16, 64, 32, 128, 3, 2, 1, false}, {"1x1/2 64-128 @32", 32, 64, 32, 128, 1, 2, 1, false},
    {"3x3 32-64 @28", 32, 32, 28, 64, 3, 1, 1, false},    {"3x3 16 @32", 32, 16, 32, 16, 3, 1, 1, false},
    {"1x1 16-96 @112", 16, 16, 112, 96, 1, 1, 1, false},   {"1x1 64-256 @56", 4, 64, 56, 256, 1, 1, 1, false},
    {"1x1 24-144 @56", 16, 24, 56, 144, 1, 1, 1, false},   {"1x1 384-64 @14", 16, 384, 14, 64, 1, 1, 1, false},
    {"1x1 512-2048 @7", 8, 512, 7, 2048, 1, 1, 1, false}, {"depthwise 96 @112", 4, 96, 112, 96, 3, 1, 96, false},
    {"depthwise/2 96 @112", 4, 96, 112, 96, 3, 2, 96, false}, {"depthwise 384 @14", 16, 384, 14, 384, 3, 1, 384, false},
    {"3x3 3-64 @32", 32, 3, 32, 64, 3, 1, 1, false},      {"7x7/2 3-64 @224", 2, 3, 224, 64, 7, 2, 1, false},
    {"3x3 1-32 @28", 64, 1, 28, 32, 3, 1, 1, false},      {"3x3 24-24 @28 g3", 32, 24, 28, 24, 3, 1, 3, false},
    {"image 3x3 3-64 @32", 32, 3, 32, 64, 3, 1, 1, true}, {"image 7x7/2 3-64 @224", 2, 3, 224, 64, 7, 2, 1, true},
    {"image 3x3 1-32 @28", 64, 1, 28, 32, 3, 1, 1, true}, {"3x3/2 128 @56", 16, 128, 56, 128, 3, 2, 1, false},
    {"3x3/2 256 @28", 16, 256, 28, 256, 3, 2, 1, false},  {"3x3/2 512 @14", 16, 512, 14, 512, 3, 2, 1, false},
    {"3x3 128 @56 g32", 16, 128, 56, 128, 3, 1, 32, false}, {"3x3 256 @28 g32", 16, 256, 28, 256, 3, 1, 32, false},
    {"3x3 512 @14 g32", 16, 512, 14, 512, 3, 1, 32, false}, {"3x3 1024 @7 g32", 16, 1024, 7, 1024, 3, 1, 32, false},
    {"3x3/2 256 @56 g32", 16, 256, 56, 256, 3, 2, 32, false}, {"3x3/2 512 @28 g32", 16, 512, 28, 512, 3, 2, 32, false},
    {"3x3/2 1024 @14 g32", 16, 1024, 14, 1024, 3, 2, 32, false}, {"1x1 24-96 @28", 16, 24, 28, 96, 1, 1, 1, false},
};

/* Seconds; of this process's own work where it has one thread, so that neighbours on the machine do not count. */
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

/* The fastest that `rows` can be: one tile, everything in the first cache. */
static double peak(const gap_kernels *k) {
    static _Alignas(64) float x[64 * 16], w[2 * 4096], y[2 * 64 * 16];
    static const int64_t off[1] = {0};
    harness_fill(x, 64 * 16, 1), harness_fill(w, 8192, 2);
    const gap_conv_rows r = {.a = x, .a_px = 16, .a_row = 0, .off = off, .taps = 1, .blocks = 4, .chain = 4, .kc = 16, .kc_last = 16, .w = w, .w_block = 256,
                             .w_oc = 4096, .y = y, .y_px = 16, .y_oc = 1024, .pixels = 12, .rows = 1000, .oc_blocks = 2};
    double best = 1e9;
    for (int rep = 0; rep < 30; rep++) {
        const double start = now();
        k->conv->rows(&r);
        if (now() - start < best) best = now() - start;
    }
    return 2.0 * 64 * 32 * 12 * 1000 / best * 1e-9;
}

/* The op at the end of b's list: forward, input gradient and weight gradient apart. */
static void measure(op_bench *b, const char *name, const gap_kernels *kernels, int64_t n, const size_t n_w[2], double flop, bool has_dx, double top) {
    op_bench_make(b, kernels, n, true, n_w, 3);
    double fwd, dx = 0, dw, pack;
    BEST(pack, b->op->def->derive(b->op, &b->ctx));
    BEST(fwd, b->op->def->forward(b->op, &b->ctx));
    b->ctx.dweight[0] = NULL;
    if (has_dx) BEST(dx, b->op->def->backward(b->op, &b->ctx));
    b->ctx.dweight[0] = b->dw[0], b->ctx.din[0] = NULL;
    BEST(dw, b->op->def->backward(b->op, &b->ctx));
    char text[96] = "";
    b->op->def->describe(b->op, text, sizeof text);
    printf("%-22s fwd %7.1f (%3.0f %%)  dx %7.1f (%3.0f %%)  dw %7.1f (%3.0f %%)  derive %6.2f ms  %s\n", name, flop / fwd * 1e-9,
           flop / fwd * 1e-7 / top, dx > 0 ? flop / dx * 1e-9 : 0, dx > 0 ? flop / dx * 1e-7 / top : 0, flop / dw * 1e-9, flop / dw * 1e-7 / top,
           pack * 1e3, text);
    op_bench_free(b);
}

static void bench(const shape *s, const gap_kernels *kernels, double top) {
    op_bench b;
    memset(&b, 0, sizeof b);
    gap_oplist_init(&b.list, true);
    gap_desc in = gap_desc_image(s->c, s->h, s->h);
    if (s->nhwc) in.layout = GAP_NHWC, in.cb = 0;
    const gap_conv_attr attr = {.out_channels = s->oc, .kernel = {s->k, s->k}, .stride = {s->s, s->s}, .padding = {s->k / 2, s->k / 2},
                                .dilation = {1, 1}, .groups = s->g};
    const gap_origin who = {"conv", 0};
    int value, out;
    CHECK_OK(gap_oplist_value(&b.list, &in, &value));
    CHECK_OK(gap_emit_conv(&b.list, who, value, &attr, 0, -1, &out));
    const size_t n_w[2] = {(size_t)(s->oc * s->c / s->g * s->k * s->k), (size_t)s->oc};
    const gap_desc *o = &b.list.value[out];
    const double flop = 2.0 * (double)(s->n * o->dim[0] * o->dim[1] * o->dim[2] * (s->c / s->g) * s->k * s->k);
    measure(&b, s->name, kernels, s->n, n_w, flop, !s->nhwc, top);
}

int main(int argc, char **argv) {
    const gap_kernels *kernels = NULL;
    CHECK_OK(gap_kernels_find(&kernels, argc > 1 ? argv[1] : NULL));
    if (argc > 2) CHECK_OK(gap_threads_set(atoi(argv[2])));
    const int first = argc > 3 ? atoi(argv[3]) : 0, last = argc > 4 ? atoi(argv[4]) : argc > 3 ? first : GAP_COUNTOF(shapes) - 1;
    const double top = peak(kernels) * gap_threads_get();
    printf("set %s, %d threads, peak %.1f GFLOP/s\n", gap_kernel_set_name(kernels->id), gap_threads_get(), top);
    for (int k = first; k <= last && k < GAP_COUNTOF(shapes); k++) bench(&shapes[k], kernels, top);
    return harness_end();
}

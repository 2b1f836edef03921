/* bench_winograd.c — 3x3 convolutions at stride 1: the direct kernels beside Winograd's tiles, one pass at a time, in effective
 * GFLOP/s (those of the definition, by time) and in percent of this machine's own peak; with errors against a sum in double.
 *
 *     bench_winograd [SET] [THREADS] [WORD] [BATCH] [SAMPLES]     WORD: only shapes whose name holds it; SAMPLES: outputs whose errors are measured
 */
#include <time.h>

#include "kernels/stream.h"
#include "op_harness.h"
#include "ops/conv_plan.h"
#include "ops/conv_winograd.h"

typedef struct { const char *name; int64_t n, c, h, oc; } shape;
static const shape shapes[] = {
    {"64 @32", 16, 64, 32, 64}, {"128 @16", 16, 128, 16, 128}, {"256 @8", 32, 256, 8, 256}, {"512 @4", 64, 512, 4, 512},
    {"64 @56", 4, 64, 56, 64}, {"128 @28", 4, 128, 28, 128}, {"256 @14", 8, 256, 14, 256}, {"512 @7", 16, 512, 7, 512},
    {"16 @32", 32, 16, 32, 16}, {"32 @32", 16, 32, 32, 32}, {"32-64 @28", 32, 32, 28, 64}, {"16 @8", 64, 16, 8, 16},
    {"64 @5", 64, 64, 5, 64}, {"64 @6", 64, 64, 6, 64}, {"64 @3", 64, 64, 3, 64}, {"24-40 @20", 16, 24, 20, 40},
    {"32 @112", 1, 32, 112, 32}, {"48 @9", 32, 48, 9, 48}, {"64 @10", 32, 64, 10, 64},
};

static int samples_wanted = 20000;

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

/* The fastest that the direct kernel can be: one tile, everything in the first cache. */
static double peak(const gap_kernels *k) {
    static _Alignas(64) float x[64 * 16], w[2 * 4096], y[2 * 64 * 16];
    static const int64_t off[1] = {0};
    harness_fill(x, 64 * 16, 1), harness_fill(w, 8192, 2);
    const gap_conv_rows r = {.a = x, .a_px = 16, .a_row = 0, .off = off, .taps = 1, .blocks = 4, .chain = 4, .kc = 16, .kc_last = 16, .w = w,
                             .w_block = 256, .w_oc = 4096, .y = y, .y_px = 16, .y_oc = 1024, .pixels = 12, .rows = 1000, .oc_blocks = 2};
    double best = 1e9;
    for (int rep = 0; rep < 30; rep++) {
        const double start = now();
        k->conv->rows(&r);
        if (now() - start < best) best = now() - start;
    }
    return 2.0 * 64 * 32 * 12 * 1000 / best * 1e-9;
}

/* ---- errors ---- */

typedef struct { double max, rms; } error;

static int64_t at(const gap_desc *d, int64_t n, int64_t c, int64_t i, int64_t j) {
    return n * gap_desc_stored(d) + ((c / 16 * d->dim[1] + i) * d->dim[2] + j) * 16 + c % 16;
}

/* Of about `samples` outputs (or gradients of inputs) drawn at random, by the largest and the root mean square of them. */
static error pass_error(const op_bench *b, bool backward, const float *got, int samples) {
    const gap_desc *in = backward ? &b->op->out_desc[0] : &b->op->in_desc[0], *out = backward ? &b->op->in_desc[0] : &b->op->out_desc[0];
    const float *x = backward ? b->dy : b->x;
    double worst = 0, largest = 0, sum = 0, all = 0;
    uint32_t state = 5;
    for (int s = 0; s < samples; s++) {
        const int64_t n = harness_u32(&state) % (uint32_t)b->ctx.n, o = harness_u32(&state) % (uint32_t)out->dim[0];
        const int64_t i = harness_u32(&state) % (uint32_t)out->dim[1], j = harness_u32(&state) % (uint32_t)out->dim[2];
        double y = 0;
        for (int64_t c = 0; c < in->dim[0]; c++)
            for (int64_t t = 0; t < 9; t++) {
                const int64_t r = i + t / 3 - 1, q = j + t % 3 - 1;
                if (r < 0 || q < 0 || r >= in->dim[1] || q >= in->dim[2]) continue;
                const float w = backward ? b->w[0][(c * out->dim[0] + o) * 9 + 8 - t] : b->w[0][(o * in->dim[0] + c) * 9 + t];
                y += (double)w * (double)x[at(in, n, c, r, q)];
            }
        const double d = fabs((double)got[at(out, n, o, i, j)] - y);
        worst = d > worst ? d : worst, largest = fabs(y) > largest ? fabs(y) : largest, sum += d * d, all += y * y;
    }
    return (error){worst / largest, sqrt(sum / all)};
}

static error weight_error(const op_bench *b, const float *got, int samples) {
    const gap_desc *in = &b->op->in_desc[0], *out = &b->op->out_desc[0];
    double worst = 0, largest = 0, sum = 0, all = 0;
    uint32_t state = 7;
    for (int s = 0; s < samples; s++) {
        const int64_t o = harness_u32(&state) % (uint32_t)out->dim[0], c = harness_u32(&state) % (uint32_t)in->dim[0], t = harness_u32(&state) % 9;
        double g = 0;
        for (int64_t n = 0; n < b->ctx.n; n++)
            for (int64_t i = 0; i < out->dim[1]; i++)
                for (int64_t j = 0; j < out->dim[2]; j++) {
                    const int64_t r = i + t / 3 - 1, q = j + t % 3 - 1;
                    if (r < 0 || q < 0 || r >= in->dim[1] || q >= in->dim[2]) continue;
                    g += (double)b->x[at(in, n, c, r, q)] * (double)b->dy[at(out, n, o, i, j)];
                }
        const double d = fabs((double)got[(o * in->dim[0] + c) * 9 + t] - g);
        worst = d > worst ? d : worst, largest = fabs(g) > largest ? fabs(g) : largest, sum += d * d, all += g * g;
    }
    return (error){worst / largest, sqrt(sum / all)};
}

/* ---- one shape ---- */

static void show(const char *name, const char *what, double flop, double top, const double time[4], const error e[3]) {
    printf("%-10s %-7s", name, what);
    for (int k = 0; k < 3; k++) printf("  %s %6.1f (%3.0f %%)", k == 0 ? "fwd" : k == 1 ? "dx" : "dw", flop / time[k] * 1e-9, flop / time[k] * 1e-7 / top);
    printf("  derive %6.2f ms (%4.1f %%)", time[3] * 1e3, time[3] / (time[0] + time[1]) * 100);
    for (int k = 0; k < 3; k++) printf("  %.1e %.1e", e[k].max, e[k].rms);
    printf("\n");
}

static void bench_tiles(op_bench *b, const char *name, int m, double flop, double top, int slots, int samples) {
    gap_wino f, g;
    double time[4], more;
    void *u[2], *work;
    gap_wino_plan(&f, b->op, false, m, b->ctx.n), gap_wino_plan(&g, b->op, true, m, b->ctx.n);
    size_t bytes = gap_wino_workspace_bytes(&f, slots), other = gap_wino_workspace_bytes(&g, slots), grad = gap_wino_grad_bytes(&f, slots);
    bytes = bytes > other ? bytes : other, bytes = bytes > grad ? bytes : grad;
    CHECK_OK(gap_alloc_dirty(&u[0], gap_wino_derived_bytes(&f), 1));
    CHECK_OK(gap_alloc_dirty(&u[1], gap_wino_derived_bytes(&g), 1));
    CHECK_OK(gap_alloc_dirty(&work, bytes, 1));
    gap_op_ctx ctx = b->ctx;
    ctx.workspace = work;
    const gap_source x = {.x = b->x, .plane = f.in_h * f.in_w * 16, .blocks = f.in_blocks}, dy = {.x = b->dy, .plane = g.in_h * g.in_w * 16, .blocks = g.in_blocks};
    const gap_sink y = {.y = b->y, .plane = f.out_h * f.out_w * 16, .blocks = f.out_blocks, .pieces = f.pieces};
    const gap_sink dx = {.y = b->dx, .plane = g.out_h * g.out_w * 16, .blocks = g.out_blocks, .pieces = g.pieces};
    BEST(time[3], gap_wino_derive(&f, b->w[0], NULL, u[0], &ctx));
    BEST(more, gap_wino_derive(&g, b->w[0], NULL, u[1], &ctx));
    time[3] += more;
    BEST(time[0], gap_wino_run(&f, &ctx, u[0], &x, &y, false, slots));
    BEST(time[1], gap_wino_run(&g, &ctx, u[1], &dy, &dx, false, slots));
    BEST(time[2], gap_wino_grad(&f, &ctx, &x, &dy, b->dw[0], false, slots));
    error e[3] = {{0}};
    if (samples) e[0] = pass_error(b, false, b->y, samples), e[1] = pass_error(b, true, b->dx, samples), e[2] = weight_error(b, b->dw[0], samples / 20);
    show(name, m == 4 ? "F(4x4)" : "F(2x2)", flop, top, time, e);
    gap_free(u[0]), gap_free(u[1]), gap_free(work);
}

static void bench(const shape *s, int64_t n, const gap_kernels *kernels, double top) {
    op_bench b;
    memset(&b, 0, sizeof b);
    gap_oplist_init(&b.list, true);
    const gap_desc in = gap_desc_image(s->c, s->h, s->h);
    const gap_conv_attr attr = {.out_channels = s->oc, .kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}, .dilation = {1, 1}, .groups = 1};
    const gap_origin who = {"conv", 0};
    int value, out;
    CHECK_OK(gap_oplist_value(&b.list, &in, &value));
    CHECK_OK(gap_emit_conv(&b.list, who, value, &attr, 0, -1, &out));
    const size_t n_w[2] = {(size_t)(s->oc * s->c * 9), 1};
    const double flop = 2.0 * (double)(n * s->oc * s->h * s->h * s->c * 9);
    const int samples = samples_wanted;
    op_bench_make(&b, kernels, n, true, n_w, 3);
    for (size_t k = 0; k < n_w[0]; k++) b.w[0][k] *= 0.1f;
    double time[4];
    error e[3] = {{0}};
    BEST(time[3], b.op->def->derive(b.op, &b.ctx));
    BEST(time[0], b.op->def->forward(b.op, &b.ctx));
    b.ctx.dweight[0] = NULL;
    BEST(time[1], b.op->def->backward(b.op, &b.ctx));
    b.ctx.dweight[0] = b.dw[0], b.ctx.din[0] = NULL;
    BEST(time[2], b.op->def->backward(b.op, &b.ctx));
    if (samples) e[0] = pass_error(&b, false, b.y, samples), e[1] = pass_error(&b, true, b.dx, samples), e[2] = weight_error(&b, b.dw[0], samples / 20);
    show(s->name, "direct", flop, top, time, e);
    bench_tiles(&b, s->name, 2, flop, top, gap_scratch_count(), samples);
    bench_tiles(&b, s->name, 4, flop, top, gap_scratch_count(), samples);
    op_bench_free(&b);
}

int main(int argc, char **argv) {
    const gap_kernels *kernels = NULL;
    CHECK_OK(gap_kernels_find(&kernels, argc > 1 ? argv[1] : NULL));
    CHECK_OK(gap_threads_set(argc > 2 ? atoi(argv[2]) : 1));
    if (argc > 5) samples_wanted = atoi(argv[5]);
    const double top = peak(kernels) * gap_threads_get();
    printf("set %s, %d threads, peak %.1f GFLOP/s; errors (largest, root mean square) of forward, dx, dw\n", gap_kernel_set_name(kernels->id),
           gap_threads_get(), top);
    for (int k = 0; k < GAP_COUNTOF(shapes); k++)
        if (argc <= 3 || strstr(shapes[k].name, argv[3])) bench(&shapes[k], argc > 4 ? atoi(argv[4]) : shapes[k].n, kernels, top);
    return harness_end();
}

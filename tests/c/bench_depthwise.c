/* bench_depthwise.c — depthwise convolutions of usual networks, fused with the BatchNorm and activation around them, judged by
 * compulsory traffic (forward: z1 in, z2 out; backward: g, z2, z1 in, masked g1 out) beside what a plain copy reaches.
 *
 *     bench_depthwise [SET] [THREADS]     default: the best set, GAPLESS_NUM_THREADS
 */
#include <time.h>

#include "depthwise_case.h"

typedef struct { const char *name; int64_t n, c, h, k, s; } shape;
static const shape shapes[] = { /* batches so large that nothing is left in a cache from one run to the next */
    {"3x3   32 @112", 32, 32, 112, 3, 1}, {"3x3/2 96 @112", 16, 96, 112, 3, 2}, {"3x3  144 @56", 32, 144, 56, 3, 1}, {"3x3  384 @14", 192, 384, 14, 3, 1},
    {"3x3  960 @7", 320, 960, 7, 3, 1},   {"5x5   88 @14", 768, 88, 14, 5, 1},  {"5x5/2 96 @28", 256, 96, 28, 5, 2}, {"5x5  576 @7", 512, 576, 7, 5, 1},
    {"7x7   96 @56", 48, 96, 56, 7, 1},   {"3x3/2 960 @14", 96, 960, 14, 3, 2},
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
        for (int rep = 0; rep < 5 || (total < 0.15 && rep < 20); rep++) {     \
            const double start = now();                                        \
            CHECK_OK(call);                                                    \
            const double took = now() - start;                                 \
            total += took;                                                     \
            if (took < out) out = took;                                        \
        }                                                                      \
    } while (0)

/* The bounds of memory: `in` planes read and one written, nothing done but an add. */
typedef struct { const float *in[3]; float *out; int n_in; size_t n; } copy_job;
static void copy_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const copy_job *j = arg;
    const size_t begin = (size_t)chunk * 65536, end = begin + 65536 < j->n ? begin + 65536 : j->n;
    const float *restrict a = j->in[0], *restrict b = j->in[1], *restrict c = j->in[2];
    float *restrict o = j->out;
    if (j->n_in == 1) for (size_t i = begin; i < end; i++) o[i] = a[i] + 1.0f;
    else for (size_t i = begin; i < end; i++) o[i] = a[i] + b[i] + c[i];
}
static gap_status copy(copy_job *j) { return gap_parallel((int64_t)((j->n + 65535) / 65536), copy_chunk, j); }

/* Copies as many bytes as the fused pass must move, from and to buffers of that size. */
static double copy_rate(int n_in, double bytes) {
    const size_t n = (size_t)(bytes / 4 / (n_in + 1));
    float *p[4];
    double best;
    for (int k = 0; k < 4; k++) p[k] = dw_blank(n), memset(p[k], 0, n * 4);
    copy_job job = {{p[0], p[1], p[2]}, p[3], n_in, n};
    BEST(best, copy(&job));
    for (int k = 0; k < 4; k++) gap_free(p[k]);
    return bytes / best * 1e-9;
}

/* What the convolution op does now without any fusion: ms of forward and of backward. */
static void measure_op(const shape *s, const gap_kernels *kernels, double *forward, double *backward) {
    op_bench b;
    memset(&b, 0, sizeof b);
    gap_oplist_init(&b.list, true);
    const gap_desc in = gap_desc_image(s->c, s->h, s->h);
    const gap_conv_attr attr = {.out_channels = s->c, .kernel = {s->k, s->k}, .stride = {s->s, s->s}, .padding = {s->k / 2, s->k / 2}, .dilation = {1, 1}, .groups = s->c};
    int value, out;
    CHECK_OK(gap_oplist_value(&b.list, &in, &value));
    CHECK_OK(gap_emit_conv(&b.list, (gap_origin){"conv", 0}, value, &attr, 0, -1, &out));
    const size_t n_w[2] = {(size_t)(s->c * s->k * s->k), (size_t)s->c};
    op_bench_make(&b, kernels, s->n, true, n_w, 3);
    CHECK_OK(b.op->def->derive(b.op, &b.ctx));
    BEST(*forward, b.op->def->forward(b.op, &b.ctx));
    BEST(*backward, b.op->def->backward(b.op, &b.ctx));
    op_bench_free(&b);
}

static void bench(const shape *s, const gap_kernels *kernels) {
    const dw_shape d = {s->n, s->c, s->h, s->h, {s->k, s->k}, {s->s, s->s}, {s->k / 2, s->k / 2}, {1, 1}};
    dw_case c;
    dw_make(&c, &d, kernels, s->n, true);
    gap_source x = dw_source(&c, c.x, c.in_plane), dy = dw_source(&c, c.dy, c.out_plane);
    gap_sink y = dw_sink(&c, c.y, c.out_plane, c.out_pieces), dx = dw_sink(&c, c.dx, c.in_plane, c.in_pieces);
    double plain_f, plain_b, fwd, bwd, op_f, op_b;
    BEST(plain_f, gap_depthwise_run(&c.plan, &c.ctx, c.derived, &x, &y, false, c.slots));
    BEST(plain_b, gap_depthwise_back(&c.plan, &c.ctx, c.derived, &x, &dy, &dx, c.dw, false, c.slots));
    x.pro.scale = c.v[0], x.pro.shift = c.v[1], x.pro.act = GAP_ACT_RELU6;
    y.epi = (gap_epilogue){.kind = GAP_EPILOGUE_SUMS, .pivot = c.v[4], .sums = c.out_sums};
    dy.pro.scale = c.v[2], dy.pro.z = c.zy, dy.pro.mean = c.v[4], dy.pro.b = c.v[5], dy.pro.c = c.v[6];
    dx.epi = (gap_epilogue){.kind = GAP_EPILOGUE_MASK, .act = GAP_ACT_RELU6, .scale = c.v[0], .shift = c.v[1], .z = c.x, .mean = c.v[3], .sums = c.in_sums};
    BEST(fwd, gap_depthwise_run(&c.plan, &c.ctx, c.derived, &x, &y, false, c.slots));
    BEST(bwd, gap_depthwise_back(&c.plan, &c.ctx, c.derived, &x, &dy, &dx, c.dw, false, c.slots));
    measure_op(s, kernels, &op_f, &op_b);
    const double in = 4.0 * (double)c.n_x, out = 4.0 * (double)c.n_y, flop = 2.0 * (double)c.n_y * (double)(s->k * s->k);
    const double rate_f = (in + out) / fwd * 1e-9, rate_b = 2 * (in + out) / bwd * 1e-9, top_f = copy_rate(1, in + out), top_b = copy_rate(3, 2 * (in + out));
    printf("%-14s fwd %6.2f ms %5.1f GB/s of %5.1f (%3.0f %%) %5.1f GF/s | bwd %6.2f ms %5.1f GB/s of %5.1f (%3.0f %%) %5.1f GF/s | nothing fused %6.2f %6.2f, conv op %6.2f %6.2f ms\n",
           s->name, fwd * 1e3, rate_f, top_f, 100 * rate_f / top_f, flop / fwd * 1e-9, bwd * 1e3, rate_b, top_b, 100 * rate_b / top_b, 2 * flop / bwd * 1e-9,
           plain_f * 1e3, plain_b * 1e3, op_f * 1e3, op_b * 1e3);
    dw_free(&c);
}

int main(int argc, char **argv) {
    const gap_kernels *kernels = NULL;
    CHECK_OK(gap_kernels_find(&kernels, argc > 1 ? argv[1] : NULL));
    if (argc > 2) CHECK_OK(gap_threads_set(atoi(argv[2])));
    printf("set %s, %d threads\n", gap_kernel_set_name(kernels->id), gap_threads_get());
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) bench(&shapes[k], kernels);
    return harness_end();
}

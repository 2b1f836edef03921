/* bench_pointwise.c — 1x1 convolutions as training runs them between BatchNorms: the direct method, products by chains, and
 * products by Strassen's method, forward and backward (both gradients), in GFLOP/s, % of this machine's peak, and GB/s of what must travel once.
 *
 *     bench_pointwise [SET] [THREADS] [FIRST [LAST]]     rows FIRST..LAST of the table only
 */
#include <time.h>

#include "kernels/conv.h"
#include "ops/conv_plan.h"
#include "pointwise_case.h"

typedef struct { const char *name; pw_shape s; bool plain; } row; /* plain: the input needs no prologue, its gradient no epilogue */
static const row rows[] = {
    {"v2 32-16@112", {16, 32, 16, 112, 112, {1, 1}}, false},     {"v2 16-96@112", {16, 16, 96, 112, 112, {1, 1}}, true},
    {"v2 96-24@56", {16, 96, 24, 56, 56, {1, 1}}, false},        {"v2 24-144@56", {16, 24, 144, 56, 56, {1, 1}}, true},
    {"v2 144-24@56", {16, 144, 24, 56, 56, {1, 1}}, false},      {"v2 144-32@28", {16, 144, 32, 28, 28, {1, 1}}, false},
    {"v2 32-192@28", {16, 32, 192, 28, 28, {1, 1}}, true},       {"v2 192-32@28", {16, 192, 32, 28, 28, {1, 1}}, false},
    {"v2 64-384@14", {16, 64, 384, 14, 14, {1, 1}}, true},       {"v2 384-64@14", {16, 384, 64, 14, 14, {1, 1}}, false},
    {"v2 576-96@14", {16, 576, 96, 14, 14, {1, 1}}, false},      {"v2 160-960@7", {16, 160, 960, 7, 7, {1, 1}}, true},
    {"v2 960-160@7", {16, 960, 160, 7, 7, {1, 1}}, false},       {"v2 320-1280@7", {16, 320, 1280, 7, 7, {1, 1}}, true},
    {"r50 64-64@56", {16, 64, 64, 56, 56, {1, 1}}, true},        {"r50 64-256@56", {16, 64, 256, 56, 56, {1, 1}}, false},
    {"r50 256-64@56", {16, 256, 64, 56, 56, {1, 1}}, true},      {"r50 512-128@28", {16, 512, 128, 28, 28, {1, 1}}, true},
    {"r50 256-1024@14", {16, 256, 1024, 14, 14, {1, 1}}, false}, {"r50 1024-256@14", {16, 1024, 256, 14, 14, {1, 1}}, true},
    {"r50 512-2048@7", {16, 512, 2048, 7, 7, {1, 1}}, false},    {"r50 256-512@56/2", {16, 256, 512, 56, 56, {2, 2}}, true},
    {"r50 1024-2048@14/2", {16, 1024, 2048, 14, 14, {2, 2}}, true}, {"r18 64-128@56/2", {16, 64, 128, 56, 56, {2, 2}}, true},
    {"v3 se 96-24@1", {16, 96, 24, 1, 1, {1, 1}}, true},         {"v3 se 960-240@1", {16, 960, 240, 1, 1, {1, 1}}, true},
    {"v3 se 240-960@1", {16, 240, 960, 1, 1, {1, 1}}, true},     {"r 512-128@2", {16, 512, 128, 2, 2, {1, 1}}, true},
};

/* Seconds; of this process's own work where it has one thread, so that neighbours on the machine do not count. */
static double now(void) {
    struct timespec t;
    clock_gettime(gap_threads_get() == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The fastest that the kernel can be: one tile, everything in the first cache. */
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

/* The direct method on the same buffers. */
typedef struct { conv_pass ahead, back; conv_derived d, e; unsigned char *derived; } direct;

static size_t direct_need(const pw_shape *s, int64_t capacity, direct *m, gap_op *op, bool plain, int slots) {
    (void)s;
    gap_conv_pass(&m->ahead, op, false, capacity, !plain), gap_conv_pass(&m->back, op, true, capacity, true);
    m->d = gap_conv_sections(&m->ahead, 0), m->e = gap_conv_sections(&m->back, m->d.total);
    size_t need = gap_scratch_round(m->ahead.scratch_bytes) * (size_t)slots, more = gap_scratch_round(m->back.scratch_bytes) * (size_t)slots;
    if (need < more) need = more;
    more = gap_conv_grad_bytes(&m->ahead, capacity, true, slots);
    return need < more ? more : need;
}

typedef struct { double fwd[3], back[3]; } times;
static void at_most(double *best, double took) {
    if (took < *best) *best = took;
}

/* All methods in turn, best of several rounds. */
static times measure(pw_case *c, pw_case *halves, direct *m, bool plain, const gap_kernels *kernels) {
    const gap_source x = plain ? pw_source_x(c) : pw_norm_x(c), dy = pw_norm_dy(c);
    const gap_sink y = pw_sums_y(c), dx = plain ? pw_sink_dx(c) : pw_mask_dx(c);
    gap_op_ctx ctx = c->ctx, old = c->ctx;
    times t = {{1e9, 1e9, 1e9}, {1e9, 1e9, 1e9}};
    double total = 0;
    old.derived = m->derived, old.dweight[0] = c->dw;
    (void)kernels;
    for (int rep = 0; rep < 3 || (total < 0.5 && rep < 100); rep++) {
        double at[7];
        at[0] = now();
        CHECK_OK(gap_conv_run(&m->ahead, &old, &m->d, &x, &y, false, c->slots));
        at[1] = now();
        CHECK_OK(gap_conv_grad(&m->ahead, &old, &m->d, &x, &dy, c->slots));
        CHECK_OK(gap_conv_run(&m->back, &old, &m->e, &dy, &dx, false, c->slots));
        at[2] = now();
        CHECK_OK(gap_pointwise_run(&c->plan, &ctx, c->derived, &x, &y, false, c->slots));
        at[3] = now();
        CHECK_OK(gap_pointwise_back(&c->plan, &ctx, c->derived_back, &x, &dy, &dx, c->dw, false, c->slots));
        at[4] = now();
        CHECK_OK(gap_pointwise_run(&halves->plan, &halves->ctx, halves->derived, &x, &y, false, c->slots));
        at[5] = now();
        CHECK_OK(gap_pointwise_back(&halves->plan, &halves->ctx, halves->derived_back, &x, &dy, &dx, c->dw, false, c->slots));
        at[6] = now();
        at_most(&t.fwd[0], at[1] - at[0]), at_most(&t.back[0], at[2] - at[1]), at_most(&t.fwd[1], at[3] - at[2]), at_most(&t.back[1], at[4] - at[3]);
        at_most(&t.fwd[2], at[5] - at[4]), at_most(&t.back[2], at[6] - at[5]);
        total += at[6] - at[0];
    }
    return t;
}

static void show(const row *r, const gap_kernels *kernels, double top, double sum[6]) {
    const pw_shape *s = &r->s;
    pw_case c, halves;
    direct m;
    pw_strassen = false;
    pw_make(&c, s, kernels, s->n, true, 0);
    const size_t need = direct_need(s, s->n, &m, c.op, r->plain, c.slots);
    pw_free(&c);
    pw_make(&c, s, kernels, s->n, true, need);
    direct_need(s, s->n, &m, c.op, r->plain, c.slots);
    pw_strassen = true;
    pw_make(&halves, s, kernels, s->n, true, 0);
    CHECK_OK(gap_alloc(&m.derived, m.e.total, 1));
    CHECK_OK(gap_conv_derive(&m.ahead, &m.d, m.derived, c.w, NULL));
    CHECK_OK(gap_conv_derive(&m.back, &m.e, m.derived, c.w, NULL));
    const times t = measure(&c, &halves, &m, r->plain, kernels);
    const double flop = 2.0 * (double)(c.n_y / (size_t)(c.out_blocks * 16)) * (double)(s->c * s->oc);
    const double ahead = 4.0 * (double)(c.n_x / (size_t)(s->s[0] * s->s[1]) + c.n_y), back = 4.0 * (double)(c.n_x + c.n_x / (size_t)(s->s[0] * s->s[1]) + 2 * c.n_y);
    const bool fast[2] = {halves.plan.fast_ahead, halves.plan.fast_back};
    printf("%-20s fwd %7.2f %7.2f %7.2f ms (%3.0f %%, %3.0f %% of peak%s) %5.1f GB/s   back %7.2f %7.2f %7.2f ms (%3.0f %%, %3.0f %%%s) %5.1f GB/s\n", r->name,
           t.fwd[0] * 1e3, t.fwd[1] * 1e3, t.fwd[2] * 1e3, flop / t.fwd[1] * 1e-7 / top, flop / t.fwd[2] * 1e-7 / top, fast[0] ? "" : ", the same", ahead / t.fwd[2] * 1e-9,
           t.back[0] * 1e3, t.back[1] * 1e3, t.back[2] * 1e3, 2 * flop / t.back[1] * 1e-7 / top, 2 * flop / t.back[2] * 1e-7 / top, fast[1] ? "" : ", the same", back / t.back[2] * 1e-9);
    fflush(stdout);
    for (int k = 0; k < 3; k++) sum[k] += t.fwd[k], sum[3 + k] += t.back[k];
    gap_free(m.derived);
    pw_free(&c), pw_free(&halves);
}

int main(int argc, char **argv) {
    const gap_kernels *kernels = NULL;
    CHECK_OK(gap_kernels_find(&kernels, argc > 1 && argv[1][0] ? argv[1] : NULL));
    if (argc > 2) CHECK_OK(gap_threads_set(atoi(argv[2])));
    const int first = argc > 3 ? atoi(argv[3]) : 0, last = argc > 4 ? atoi(argv[4]) : argc > 3 ? first : GAP_COUNTOF(rows) - 1;
    const double top = peak(kernels) * gap_threads_get();
    double sum[6] = {0};
    printf("set %s, %d threads, peak %.1f GFLOP/s; direct, by chains, by halves\n", gap_kernel_set_name(kernels->id), gap_threads_get(), top);
    for (int k = first; k <= last && k < GAP_COUNTOF(rows); k++) show(&rows[k], kernels, top, sum);
    printf("together: forward %.1f, %.1f, %.1f ms, backward %.1f, %.1f, %.1f ms\n", sum[0] * 1e3, sum[1] * 1e3, sum[2] * 1e3, sum[3] * 1e3, sum[4] * 1e3, sum[5] * 1e3);
    return harness_end();
}

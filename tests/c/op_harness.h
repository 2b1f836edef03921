/* op_harness.h — one op alone: emitted into a list of its own, prepared, and run on buffers of the test. */
#ifndef GAP_TESTS_OP_HARNESS_H
#define GAP_TESTS_OP_HARNESS_H

#include "core/threads.h"
#include "harness.h"
#include "ops/ops.h"

typedef struct {
    gap_oplist list;
    gap_op *op;
    gap_op_ctx ctx;
    float *x, *y, *dy, *dx, *w[2], *dw[2];
    size_t n_x, n_y, n_w[2]; /* floats */
    void *work, *derived, *derived_back;
} op_bench;

/* After the op was emitted: prepares it and makes its buffers. x, dy and weights are drawn from `seed`; padding lanes are 0. */
static inline void op_fill_image(float *x, int64_t n, const gap_desc *d, uint32_t seed) {
    const int64_t c = d->dim[0], hw = d->ndim == 3 ? d->dim[1] * d->dim[2] : 1, stored = gap_desc_stored(d);
    for (int64_t s = 0; s < n; s++) {
        uint32_t state = seed + (uint32_t)s * 7919u; /* a sample's values depend on its number alone */
        for (int64_t k = 0; k < c; k++)
            for (int64_t p = 0; p < hw; p++) {
                const int64_t at = d->layout == GAP_BLOCKED ? (k / 16 * hw + p) * 16 + k % 16 : d->layout == GAP_NHWC ? p * c + k : k * hw + p;
                x[s * stored + at] = harness_uniform(&state);
            }
    }
}

static inline void op_bench_make(op_bench *b, const gap_kernels *kernels, int64_t capacity, bool training, const size_t n_w[2], uint32_t seed) {
    gap_op *op = b->op = &b->list.op[b->list.n_ops - 1];
    const gap_op_env env = {.capacity = capacity, .training = training, .precision = GAP_PRECISION_PRECISE, .kernels = kernels};
    if (op->def->prepare) CHECK_OK(op->def->prepare(op, &env));
    b->n_x = (size_t)(capacity * gap_desc_stored(&op->in_desc[0])), b->n_y = (size_t)(capacity * gap_desc_stored(&op->out_desc[0]));
    CHECK_OK(gap_alloc(&b->x, b->n_x, 4));
    CHECK_OK(gap_alloc(&b->dx, b->n_x, 4));
    CHECK_OK(gap_alloc(&b->y, b->n_y, 4));
    CHECK_OK(gap_alloc(&b->dy, b->n_y, 4));
    CHECK_OK(gap_alloc(&b->work, op->workspace_bytes, 1));
    CHECK_OK(gap_alloc(&b->derived, op->derived_bytes, 1));
    CHECK_OK(gap_alloc(&b->derived_back, op->derived_back_bytes, 1));
    memset(b->work, 0xFF, op->workspace_bytes); /* NaN: nothing may be read before it is written */
    memset(b->y, 0xFF, b->n_y * 4), memset(b->dx, 0xFF, b->n_x * 4);
    op_fill_image(b->x, capacity, &op->in_desc[0], seed);
    op_fill_image(b->dy, capacity, &op->out_desc[0], seed + 1);
    for (int k = 0; k < 2; k++) {
        b->n_w[k] = n_w[k];
        CHECK_OK(gap_alloc(&b->w[k], n_w[k], 4));
        CHECK_OK(gap_alloc(&b->dw[k], n_w[k], 4));
        harness_fill(b->w[k], n_w[k], seed + 2 + (uint32_t)k);
        memset(b->dw[k], 0xFF, n_w[k] * 4);
    }
    b->ctx = (gap_op_ctx){.n = capacity, .capacity = capacity, .training = training, .workspace = b->work, .derived = b->derived, .derived_back = b->derived_back, .kernels = kernels};
    b->ctx.in[0] = b->x, b->ctx.out[0] = b->y, b->ctx.dout = b->dy, b->ctx.din[0] = b->dx;
    for (int k = 0; k < 2; k++)
        if (op->weight[k] >= 0) b->ctx.weight[k] = b->w[k], b->ctx.dweight[k] = b->dw[k];
}

static inline void op_bench_free(op_bench *b) {
    gap_free(b->x), gap_free(b->dx), gap_free(b->y), gap_free(b->dy), gap_free(b->work), gap_free(b->derived), gap_free(b->derived_back);
    for (int k = 0; k < 2; k++) gap_free(b->w[k]), gap_free(b->dw[k]);
    gap_oplist_free(&b->list);
}

/* Same bits: a message with the first difference, or true. */
static inline bool op_same(const char *what, const float *a, const float *b, size_t n) {
    if (memcmp(a, b, n * 4) == 0) return true;
    for (size_t k = 0; k < n; k++)
        if (memcmp(a + k, b + k, 4)) {
            printf("%s: element %zu of %zu: %.9g and %.9g\n", what, k, n, (double)a[k], (double)b[k]);
            break;
        }
    return false;
}

/* max |a - ref| <= tol * max |ref| */
static inline bool op_near(const char *what, const float *a, const double *ref, size_t n, double tol) {
    double worst = 0, scale = 1e-30;
    size_t at = 0;
    for (size_t k = 0; k < n; k++) {
        const double d = fabs((double)a[k] - ref[k]);
        if (!(d <= worst)) worst = d, at = k;
        if (fabs(ref[k]) > scale) scale = fabs(ref[k]);
    }
    if (worst <= tol * scale) return true;
    printf("%s: element %zu of %zu: %.9g, expected %.9g (largest %.3g)\n", what, at, n, (double)a[at], ref[at], scale);
    return false;
}

#endif

#include <stdio.h>

#include "core/threads.h"
#include "ops/cut.h"
#include "ops/ops.h"
#include "ops/plane.h"

typedef struct { bool gate; } mul_attr; /* input 1 is (C, 1, 1), one factor per channel */

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    gap_cut cut;
} job;

static bool is_gate_of(const gap_desc *gate, const gap_desc *x) {
    return gate->layout == GAP_BLOCKED && x->layout == GAP_BLOCKED && gate->dim[0] == x->dim[0] && gate->dim[1] == 1 &&
           gate->dim[2] == 1 && !gap_desc_equal(gate, x);
}

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    char a[96], b[96];
    bool gate = is_gate_of(&in[1], &in[0]);
    if (!gate && !gap_desc_equal(&in[0], &in[1]))
        return gap_fail(GAP_ERR_SHAPE, "mul: shapes must be equal, or one (C, 1, 1), got %s and %s", gap_desc_text(&in[0], a), gap_desc_text(&in[1], b));
    GAP_ATTR(op, mul_attr)->gate = gate;
    out[0] = in[0];
    return GAP_OK;
}

static void forward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    int64_t begin = gap_cut_begin(j->cut, chunk), n = gap_cut_end(j->cut, chunk) - begin;
    const float *a = j->ctx->in[0], *b = j->ctx->in[1]; /* (N, stored) */
    j->ctx->kernels->eltwise->mul((size_t)n, a + begin, b + begin, (float *)j->ctx->out[0] + begin, false);
}

/* A value times itself gets both gradients, one after the other in its chunk. */
static void backward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_op_ctx *c = j->ctx;
    int64_t begin = gap_cut_begin(j->cut, chunk), n = gap_cut_end(j->cut, chunk) - begin;
    const float *dy = c->dout; /* (N, stored) */
    for (int k = 0; k < 2; k++)
        if (c->din[k] != NULL)
            c->kernels->eltwise->mul((size_t)n, dy + begin, (const float *)c->in[1 - k] + begin, (float *)c->din[k] + begin,
                                   c->din_add[k] || (k == 1 && c->din[0] == c->din[1]));
}

/* Units are planes: plane u of x (H, W, 16) goes with vector u of the gate (16). */
static void gate_forward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    int64_t pixels = gap_plane_pixels(d), plane = gap_plane_floats(d);
    const float *x = j->ctx->in[0], *gate = j->ctx->in[1]; /* (N*CB, H, W, 16), (N*CB, 16) */
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++)
        j->ctx->kernels->eltwise->gate((size_t)pixels, x + u * plane, gate + u * d->cb, (float *)j->ctx->out[0] + u * plane, false);
}

static void gate_backward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_op_ctx *c = j->ctx;
    const gap_desc *d = &j->op->in_desc[0];
    int64_t pixels = gap_plane_pixels(d), plane = gap_plane_floats(d);
    const float *x = c->in[0], *gate = c->in[1], *dy = c->dout; /* (N*CB, H, W, 16), (N*CB, 16), as x */
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        if (c->din[0] != NULL)
            c->kernels->eltwise->gate((size_t)pixels, dy + u * plane, gate + u * d->cb, (float *)c->din[0] + u * plane, c->din_add[0]);
        if (c->din[1] == NULL) continue;
        double sum[16] = {0};
        float *dgate = (float *)c->din[1] + u * d->cb;
        c->kernels->eltwise->dot((size_t)pixels, dy + u * plane, x + u * plane, sum);
        for (int l = 0; l < 16; l++) dgate[l] = c->din_add[1] ? dgate[l] + (float)sum[l] : (float)sum[l];
    }
}

static job job_of(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_desc *d = &op->in_desc[0];
    bool gate = GAP_ATTR_CONST(op, mul_attr)->gate;
    job j = {op, ctx, gate ? gap_cut_of(ctx->n * gap_desc_blocks(d), gap_plane_floats(d)) : gap_cut_of(ctx->n * gap_desc_stored(d), 1)};
    return j;
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = job_of(op, ctx);
    return gap_parallel(gap_cut_chunks(j.cut), GAP_ATTR_CONST(op, mul_attr)->gate ? gate_forward_chunk : forward_chunk, &j);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = job_of(op, ctx);
    return gap_parallel(gap_cut_chunks(j.cut), GAP_ATTR_CONST(op, mul_attr)->gate ? gate_backward_chunk : backward_chunk, &j);
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    snprintf(text, bytes, "%s", GAP_ATTR_CONST(op, mul_attr)->gate ? "gate per channel" : "elementwise");
}

static const gap_op_def def = {
    .name = "mul", .backward_needs = GAP_NEED_IN0 | GAP_NEED_IN1, .inplace_ok = true,
    .infer = infer, .forward = forward, .backward = backward, .describe = describe,
};

gap_status gap_emit_mul(gap_oplist *list, gap_origin who, int a, int b, int *out) {
    mul_attr attr = {false};
    int in[2] = {a, b};
    bool known = a >= 0 && a < list->n_values && b >= 0 && b < list->n_values;
    if (known && is_gate_of(&list->value[a], &list->value[b])) in[0] = b, in[1] = a; /* the gate may stand first */
    return gap_oplist_emit(list, &def, who.name, who.id, in, 2, 1, &attr, sizeof attr, NULL, 0, out);
}

bool gap_op_is_gate(const gap_op *op) { return op->def == &def && GAP_ATTR_CONST(op, mul_attr)->gate; }

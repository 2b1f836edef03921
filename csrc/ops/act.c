#include <stdio.h>

#include "core/threads.h"
#include "ops/cut.h"
#include "ops/ops.h"
#include "ops/plane.h"

typedef struct { gap_act act; float arg; } act_attr;

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    gap_cut cut;
} job;

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    (void)op;
    out[0] = in[0];
    return GAP_OK;
}

/* Sigmoid and hardsigmoid make 0.5 of the zeros that pad the last channel block: those are put back, sample by sample. */
static bool lifts_zero(const gap_op *op) {
    gap_act act = GAP_ATTR_CONST(op, act_attr)->act;
    return (act == GAP_ACT_SIGMOID || act == GAP_ACT_HARDSIGMOID) && gap_pad_channels(&op->out_desc[0]) > 0;
}

static void forward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const act_attr *a = GAP_ATTR_CONST(j->op, act_attr);
    int64_t begin = gap_cut_begin(j->cut, chunk), n = gap_cut_end(j->cut, chunk) - begin;
    const float *x = j->ctx->in[0]; /* (N, stored) */
    float *y = j->ctx->out[0];
    j->ctx->kernels->act->forward(a->act, a->arg, (size_t)n, x + begin, y + begin);
}

static void forward_padded_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const act_attr *a = GAP_ATTR_CONST(j->op, act_attr);
    const gap_desc *d = &j->op->out_desc[0];
    int64_t stored = gap_desc_stored(d);
    for (int64_t s = gap_cut_begin(j->cut, chunk); s < gap_cut_end(j->cut, chunk); s++) {
        const float *x = (const float *)j->ctx->in[0] + s * stored; /* (CB, H, W, cb) */
        float *y = (float *)j->ctx->out[0] + s * stored;
        j->ctx->kernels->act->forward(a->act, a->arg, (size_t)stored, x, y);
        gap_pad_clear(d, y);
    }
}

/* An output among others: plane by plane. */
static void forward_plane_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const act_attr *a = GAP_ATTR_CONST(j->op, act_attr);
    const gap_desc *d = &j->op->out_desc[0];
    const int64_t plane = gap_plane_floats(d);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++)
        j->ctx->kernels->act->forward(a->act, a->arg, (size_t)plane, (const float *)j->ctx->in[0] + u * plane, (float *)j->ctx->out[0] + gap_plane_at(d, u));
}

static void backward_plane_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_op_ctx *c = j->ctx;
    const act_attr *a = GAP_ATTR_CONST(j->op, act_attr);
    const gap_desc *d = &j->op->out_desc[0];
    const int64_t plane = gap_plane_floats(d);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        const float *s = gap_act_from_output(a->act) ? (const float *)c->out[0] + gap_plane_at(d, u) : (const float *)c->in[0] + u * plane;
        c->kernels->act->backward(a->act, a->arg, (size_t)plane, s, (const float *)c->dout + gap_plane_at(d, u), (float *)c->din[0] + u * plane, c->din_add[0]);
    }
}

static job planes_of(const gap_op *op, const gap_op_ctx *ctx) {
    return (job){op, ctx, gap_cut_of(ctx->n * gap_desc_blocks(&op->out_desc[0]), gap_plane_floats(&op->out_desc[0]))};
}

static void backward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_op_ctx *c = j->ctx;
    const act_attr *a = GAP_ATTR_CONST(j->op, act_attr);
    int64_t begin = gap_cut_begin(j->cut, chunk), n = gap_cut_end(j->cut, chunk) - begin;
    const float *s = gap_act_from_output(a->act) ? c->out[0] : c->in[0]; /* (N, stored) */
    c->kernels->act->backward(a->act, a->arg, (size_t)n, s + begin, (const float *)c->dout + begin, (float *)c->din[0] + begin, c->din_add[0]);
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    int64_t stored = gap_desc_stored(&op->out_desc[0]);
    bool padded = lifts_zero(op); /* never a part of a larger tensor: those are whole blocks */
    if (op->out_desc[0].skip) {
        job j = planes_of(op, ctx);
        return gap_parallel(gap_cut_chunks(j.cut), forward_plane_chunk, &j);
    }
    job j = {op, ctx, padded ? gap_cut_of(ctx->n, stored) : gap_cut_of(ctx->n * stored, 1)};
    return gap_parallel(gap_cut_chunks(j.cut), padded ? forward_padded_chunk : forward_chunk, &j);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    if (ctx->din[0] == NULL) return GAP_OK;
    if (op->out_desc[0].skip) {
        job j = planes_of(op, ctx);
        return gap_parallel(gap_cut_chunks(j.cut), backward_plane_chunk, &j);
    }
    job j = {op, ctx, gap_cut_of(ctx->n * gap_desc_stored(&op->out_desc[0]), 1)};
    return gap_parallel(gap_cut_chunks(j.cut), backward_chunk, &j);
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    static const char *const names[] = {"none", "relu", "relu6", "leaky_relu", "tanh", "sigmoid", "silu", "hardswish", "hardsigmoid"};
    const act_attr *a = GAP_ATTR_CONST(op, act_attr);
    snprintf(text, bytes, "%s, gradient from the %s", names[a->act], gap_act_from_output(a->act) ? "output" : "input");
}

static const gap_op_def from_output = {
    .name = "act", .backward_needs = GAP_NEED_OUT, .slices = true, .inplace_ok = true, .gradient_inplace = GAP_NEED_IN0,
    .infer = infer, .forward = forward, .backward = backward, .describe = describe,
};
static const gap_op_def from_input = {
    .name = "act", .backward_needs = GAP_NEED_IN0, .slices = true, .inplace_ok = true, .gradient_inplace = GAP_NEED_IN0,
    .infer = infer, .forward = forward, .backward = backward, .describe = describe,
};

gap_status gap_emit_act(gap_oplist *list, gap_origin who, int in, gap_act act, float arg, int *out) {
    act_attr attr = {act, arg};
    const gap_op_def *def = gap_act_from_output(act) ? &from_output : &from_input;
    return gap_oplist_emit(list, def, who.name, who.id, &in, 1, 1, &attr, sizeof attr, NULL, 0, out);
}

bool gap_op_is_act(const gap_op *op, gap_act *act, float *arg) {
    if (op->def != &from_output && op->def != &from_input) return false;
    *act = GAP_ATTR_CONST(op, act_attr)->act, *arg = GAP_ATTR_CONST(op, act_attr)->arg;
    return true;
}

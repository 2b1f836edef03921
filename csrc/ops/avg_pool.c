#include <stdio.h>

#include "ops/pool_window.h"

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    gap_pool_attr *a = GAP_ATTR(op, gap_pool_attr);
    a->dilation[0] = a->dilation[1] = 1;
    return gap_pool_infer("avg_pool", a, &in[0], &out[0]);
}

static void forward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const gap_pool_job *j = arg;
    int64_t in_plane = gap_plane_floats(&j->op->in_desc[0]);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++)
        j->ctx->kernels->pool->avg(&j->shape, (const float *)j->ctx->in[0] + u * in_plane, (float *)j->ctx->out[0] + gap_plane_at(&j->op->out_desc[0], u));
}

static void backward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const gap_pool_job *j = arg;
    int64_t in_plane = gap_plane_floats(&j->op->in_desc[0]);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++)
        j->ctx->kernels->pool->avg_backward(&j->shape, (const float *)j->ctx->dout + gap_plane_at(&j->op->out_desc[0], u),
                                            (float *)j->ctx->din[0] + u * in_plane, j->ctx->din_add[0]);
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    return gap_pool_run(op, ctx, forward_chunk);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    return ctx->din[0] != NULL ? gap_pool_run(op, ctx, backward_chunk) : GAP_OK;
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    const gap_pool_attr *a = GAP_ATTR_CONST(op, gap_pool_attr);
    snprintf(text, bytes, "%lldx%lld%s", (long long)a->kernel[0], (long long)a->kernel[1], a->count_include_pad ? "" : ", padding not counted");
}

static const gap_op_def def = {.name = "avg_pool", .slices = true, .infer = infer, .forward = forward, .backward = backward, .describe = describe};

gap_status gap_emit_avg_pool(gap_oplist *list, gap_origin who, int in, const gap_pool_attr *attr, int *out) {
    return gap_oplist_emit(list, &def, who.name, who.id, &in, 1, 1, attr, sizeof *attr, NULL, 0, out);
}

#include <stdio.h>

#include "ops/pool_window.h"

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    const gap_pool_attr *a = GAP_ATTR_CONST(op, gap_pool_attr);
    gap_status st = gap_pool_infer("max_pool", a, &in[0], &out[0]);
    if (st == GAP_OK && (a->kernel[0] > GAP_POOL_MAX_TAPS || a->kernel[1] > GAP_POOL_MAX_TAPS || a->kernel[0] * a->kernel[1] > GAP_POOL_MAX_TAPS))
        return gap_fail(GAP_ERR_SHAPE, "max_pool: kernel must have at most %d pixels, got %lld x %lld", GAP_POOL_MAX_TAPS,
                        (long long)a->kernel[0], (long long)a->kernel[1]);
    return st;
}

/* Backward needs only which pixel of each window won: one byte per output. */
static gap_status prepare(gap_op *op, const gap_op_env *env) {
    if (env->training) op->saved_bytes = (size_t)(env->capacity * gap_desc_stored(&op->out_desc[0]));
    return GAP_OK;
}

static void forward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const gap_pool_job *j = arg;
    int64_t in_plane = gap_plane_floats(&j->op->in_desc[0]), out_plane = gap_plane_floats(&j->op->out_desc[0]);
    uint8_t *taps = j->op->saved_bytes ? j->ctx->saved : NULL; /* (N*CB, OH, OW, 16) */
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++)
        j->ctx->kernels->pool->max(&j->shape, (const float *)j->ctx->in[0] + u * in_plane, (float *)j->ctx->out[0] + gap_plane_at(&j->op->out_desc[0], u),
                                   taps != NULL ? taps + u * out_plane : NULL);
}

static void backward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const gap_pool_job *j = arg;
    int64_t in_plane = gap_plane_floats(&j->op->in_desc[0]), out_plane = gap_plane_floats(&j->op->out_desc[0]);
    const uint8_t *taps = j->ctx->saved; /* (N*CB, OH, OW, 16) */
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++)
        j->ctx->kernels->pool->max_backward(&j->shape, taps + u * out_plane, (const float *)j->ctx->dout + gap_plane_at(&j->op->out_desc[0], u),
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
    snprintf(text, bytes, "%lldx%lld%s", (long long)a->kernel[0], (long long)a->kernel[1], op->saved_bytes ? ", winners saved as bytes" : "");
}

static const gap_op_def def = {
    .name = "max_pool", .slices = true, .infer = infer, .prepare = prepare, .forward = forward, .backward = backward, .describe = describe,
};

gap_status gap_emit_max_pool(gap_oplist *list, gap_origin who, int in, const gap_pool_attr *attr, int *out) {
    return gap_oplist_emit(list, &def, who.name, who.id, &in, 1, 1, attr, sizeof *attr, NULL, 0, out);
}

bool gap_op_is_max_pool(const gap_op *op) { return op->def == &def; }

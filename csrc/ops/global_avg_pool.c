#include "core/threads.h"
#include "ops/cut.h"
#include "ops/ops.h"
#include "ops/plane.h"

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    gap_cut cut; /* of planes */
} job;

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    char text[96];
    (void)op;
    if (in[0].layout != GAP_BLOCKED)
        return gap_fail(GAP_ERR_SHAPE, "global_avg_pool: input must be an image (C, H, W), got %s", gap_desc_text(&in[0], text));
    out[0] = gap_desc_image(in[0].dim[0], 1, 1);
    return GAP_OK;
}

static void forward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    int64_t pixels = gap_plane_pixels(d), plane = gap_plane_floats(d);
    const float *x = j->ctx->in[0]; /* (N*CB, H, W, 16) */
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        double sum[16] = {0};
        float *y = (float *)j->ctx->out[0] + u * d->cb; /* (16) */
        j->ctx->kernels->eltwise->sum((size_t)pixels, x + u * plane, sum);
        for (int l = 0; l < 16; l++) y[l] = (float)(sum[l] / (double)pixels);
    }
}

static void backward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    int64_t pixels = gap_plane_pixels(d), plane = gap_plane_floats(d);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        const float *dy = (const float *)j->ctx->dout + u * d->cb; /* (16) */
        float share[16];
        for (int l = 0; l < 16; l++) share[l] = dy[l] / (float)pixels;
        j->ctx->kernels->eltwise->fill((size_t)pixels, share, (float *)j->ctx->din[0] + u * plane, j->ctx->din_add[0]);
    }
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_desc *d = &op->in_desc[0];
    job j = {op, ctx, gap_cut_of(ctx->n * gap_desc_blocks(d), gap_plane_floats(d))};
    return gap_parallel(gap_cut_chunks(j.cut), forward_chunk, &j);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_desc *d = &op->in_desc[0];
    if (ctx->din[0] == NULL) return GAP_OK;
    job j = {op, ctx, gap_cut_of(ctx->n * gap_desc_blocks(d), gap_plane_floats(d))};
    return gap_parallel(gap_cut_chunks(j.cut), backward_chunk, &j);
}

static const gap_op_def def = {.name = "global_avg_pool", .infer = infer, .forward = forward, .backward = backward};

gap_status gap_emit_global_avg_pool(gap_oplist *list, gap_origin who, int in, int *out) {
    return gap_oplist_emit(list, &def, who.name, who.id, &in, 1, 1, NULL, 0, NULL, 0, out);
}

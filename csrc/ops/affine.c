#include <stdio.h>

#include "core/threads.h"
#include "ops/cut.h"
#include "ops/norm.h"

/* Backward, per plane: first g = dy * act' where dy stands, with the sums that the tables' gradients are; then g goes to
 * whoever wants it: as it is to lazy producers and the residual, times its scale to others. */

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    const gap_affine_attr *attr;
    gap_cut cut; /* of planes */
} job;

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    char text[96];
    (void)op;
    if (in[0].layout != GAP_BLOCKED)
        return gap_fail(GAP_ERR_SHAPE, "batch_norm: input must be an image (C, H, W), got %s", gap_desc_text(&in[0], text));
    out[0] = in[0];
    return GAP_OK;
}

static job job_of(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_desc *d = &op->in_desc[0];
    return (job){op, ctx, GAP_ATTR_CONST(op, gap_affine_attr), gap_cut_of(ctx->n * gap_desc_blocks(d), gap_plane_floats(d))};
}

static bool has(const job *j, int input) { return j->op->n_in > input; }

/* A row of the table at input `which`, at block b. */
static const float *row_of(const job *j, int which, int row, int64_t b) {
    return (const float *)j->ctx->in[which] + row * gap_padded_channels(&j->op->in_desc[0]) + b * 16;
}

static void forward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    const int64_t blocks = gap_desc_blocks(d), plane = gap_plane_floats(d);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        const int64_t b = u % blocks;
        gap_prologue pro = {.scale = row_of(j, GAP_AFFINE_TABLE, GAP_NORM_SCALE, b), .shift = row_of(j, GAP_AFFINE_TABLE, GAP_NORM_SHIFT, b),
                            .act = j->attr->act, .act_arg = j->attr->act_arg};
        if (has(j, GAP_AFFINE_RESIDUAL)) pro.residual = (const float *)j->ctx->in[GAP_AFFINE_RESIDUAL] + u * plane;
        if (has(j, GAP_AFFINE_RESIDUAL_TABLE)) {
            pro.residual_scale = row_of(j, GAP_AFFINE_RESIDUAL_TABLE, GAP_NORM_SCALE, b);
            pro.residual_shift = row_of(j, GAP_AFFINE_RESIDUAL_TABLE, GAP_NORM_SHIFT, b);
        }
        j->ctx->kernels->stream->map(gap_plane_pixels(d), (const float *)j->ctx->in[GAP_AFFINE_X] + u * plane, &pro, (float *)j->ctx->out[0] + gap_plane_at(&j->op->out_desc[0], u), false);
    }
}

/* g of plane u, where dy stands; and both tables' sums. */
static void mask(const job *j, int64_t u) {
    const gap_op_ctx *c = j->ctx;
    const gap_desc *d = &j->op->in_desc[0];
    const int64_t blocks = gap_desc_blocks(d), plane = gap_plane_floats(d), b = u % blocks;
    float *sums = c->din[GAP_AFFINE_TABLE], *sums2 = has(j, GAP_AFFINE_RESIDUAL_TABLE) ? c->din[GAP_AFFINE_RESIDUAL_TABLE] : NULL;
    if (j->attr->masked || (j->attr->act == GAP_ACT_NONE && sums == NULL && sums2 == NULL)) return;
    const gap_sink sink = {.plane = plane, .blocks = blocks, .pieces = gap_pieces(d->dim[1], d->dim[2]),
                           .epi = {.kind = GAP_EPILOGUE_MASK, .act = j->attr->act, .act_arg = j->attr->act_arg, .sums = sums, .sums2 = sums2}};
    gap_stream_finish f = {.y = (float *)c->dout + gap_plane_at(&j->op->out_desc[0], u), .pixels = gap_plane_pixels(d),
                           .piece = gap_piece_rows(d->dim[1], d->dim[2]) * d->dim[2], .epi = gap_sink_at(&sink, u / blocks, b, 0, 0)};
    f.epi.z = (const float *)c->in[GAP_AFFINE_X] + u * plane, f.epi.mean = row_of(j, GAP_AFFINE_TABLE, GAP_NORM_MEAN, b);
    f.epi.scale = row_of(j, GAP_AFFINE_TABLE, GAP_NORM_SCALE, b), f.epi.shift = row_of(j, GAP_AFFINE_TABLE, GAP_NORM_SHIFT, b);
    if (has(j, GAP_AFFINE_RESIDUAL) && j->attr->act != GAP_ACT_NONE) f.epi.out = (float *)c->out[0] + gap_plane_at(&j->op->out_desc[0], u);
    if (sums2 != NULL) {
        f.epi.z2 = (const float *)c->in[GAP_AFFINE_RESIDUAL] + u * plane;
        f.epi.mean2 = row_of(j, GAP_AFFINE_RESIDUAL_TABLE, GAP_NORM_MEAN, b);
    }
    c->kernels->stream->finish(&f);
}

/* g of plane u to input `which`: as it is, or times the scale of its table. */
static void pass_on(const job *j, int which, int64_t u, const float *scale) {
    const gap_op_ctx *c = j->ctx;
    const gap_desc *d = &j->op->in_desc[0];
    const int64_t plane = gap_plane_floats(d);
    static const float zero[16];
    if (c->din[which] == NULL || (c->din[which] == c->dout && scale == NULL)) return;
    const gap_prologue pro = {.scale = scale, .shift = zero};
    const gap_prologue as_is = {.act = GAP_ACT_NONE};
    c->kernels->stream->map(gap_plane_pixels(d), (float *)c->dout + gap_plane_at(&j->op->out_desc[0], u), scale ? &pro : &as_is, (float *)c->din[which] + u * plane, c->din_add[which]);
}

static void backward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const int64_t blocks = gap_desc_blocks(&j->op->in_desc[0]);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        mask(j, u);
        if (has(j, GAP_AFFINE_RESIDUAL)) {
            const bool scaled = has(j, GAP_AFFINE_RESIDUAL_TABLE) && !j->attr->residual_lazy;
            pass_on(j, GAP_AFFINE_RESIDUAL, u, scaled ? row_of(j, GAP_AFFINE_RESIDUAL_TABLE, GAP_NORM_SCALE, u % blocks) : NULL);
        }
        pass_on(j, GAP_AFFINE_X, u, j->attr->lazy ? NULL : row_of(j, GAP_AFFINE_TABLE, GAP_NORM_SCALE, u % blocks));
    }
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = job_of(op, ctx);
    return gap_parallel(gap_cut_chunks(j.cut), forward_chunk, &j);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = job_of(op, ctx);
    return gap_parallel(gap_cut_chunks(j.cut), backward_chunk, &j);
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    const gap_affine_attr *a = GAP_ATTR_CONST(op, gap_affine_attr);
    snprintf(text, bytes, "batch statistics%s%s%s%s", op->n_in > GAP_AFFINE_RESIDUAL ? " + residual" : "",
             op->n_in > GAP_AFFINE_RESIDUAL_TABLE ? " with its own" : "",
             a->act != GAP_ACT_NONE ? " + activation" : "", a->masked ? "; gradient comes masked" : "");
}

const gap_op_def gap_op_affine = {
    .name = "affine", .backward_needs = GAP_NEED_IN0 | GAP_NEED_IN1, .slices = true, .inplace_ok = true,
    .gradient_inplace = GAP_NEED_IN0, .infer = infer, .forward = forward, .backward = backward, .describe = describe,
};

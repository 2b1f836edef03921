#include <string.h>

#include "core/threads.h"
#include "ops/cut.h"
#include "ops/norm.h"

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    gap_cut cut; /* of planes */
} job;

gap_desc gap_norm_sums_desc(const gap_desc *x) {
    return (gap_desc){.dtype = GAP_F32, .layout = GAP_PLAIN, .ndim = 3, .dim = {gap_pieces(x->dim[1], x->dim[2]), 2, gap_padded_channels(x)}};
}

gap_desc gap_norm_coef_desc(const gap_desc *x) {
    return (gap_desc){.dtype = GAP_F32, .layout = GAP_PLAIN, .ndim = 2, .dim = {GAP_COEF_ROWS, gap_padded_channels(x)}, .per_batch = true};
}

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    char text[96];
    (void)op;
    if (in[0].layout != GAP_BLOCKED)
        return gap_fail(GAP_ERR_SHAPE, "batch_norm: input must be an image (C, H, W), got %s", gap_desc_text(&in[0], text));
    out[0] = gap_norm_sums_desc(&in[0]);
    return GAP_OK;
}

/* The running mean of a block, as the pivot of the sums; 0 in padding channels. */
static void pivot_of(const job *j, int64_t b, float pivot[16]) {
    int64_t channels = j->op->in_desc[0].dim[0];
    for (int64_t l = 0; l < 16; l++) pivot[l] = b * 16 + l < channels ? gap_norm_weight(j->op, j->ctx, 0, b * 16 + l, 0.0f) : 0.0f;
}

static void forward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    const int64_t blocks = gap_desc_blocks(d), plane = gap_plane_floats(d), pieces = gap_pieces(d->dim[1], d->dim[2]);
    const gap_sink sink = {.plane = plane, .blocks = blocks, .pieces = pieces, .epi = {.kind = GAP_EPILOGUE_SUMS, .sums = j->ctx->out[0]}};
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        float pivot[16];
        pivot_of(j, u % blocks, pivot);
        gap_stream_finish f = {.y = (float *)j->ctx->in[0] + u * plane, .pixels = gap_plane_pixels(d),
                               .piece = gap_piece_rows(d->dim[1], d->dim[2]) * d->dim[2], .epi = gap_sink_at(&sink, u / blocks, u % blocks, 0, 0)};
        f.epi.pivot = pivot;
        j->ctx->kernels->stream->finish(&f); /* SUMS reads y only */
    }
}

static void backward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    const int64_t plane = gap_plane_floats(d), blocks = gap_desc_blocks(d), padded = gap_padded_channels(d);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        const float *coef = (const float *)j->ctx->dout + u % blocks * 16; /* (rows, padded) */
        const float *x = (const float *)j->ctx->in[0] + u * plane;
        const gap_prologue pro = {.scale = coef + GAP_COEF_ZERO * padded, .z = x, .mean = coef + GAP_COEF_MEAN * padded,
                                  .b = coef + GAP_COEF_B * padded, .c = coef + GAP_COEF_C * padded};
        j->ctx->kernels->stream->map(gap_plane_pixels(d), x, &pro, (float *)j->ctx->din[0] + u * plane, j->ctx->din_add[0]);
    }
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = {op, ctx, gap_cut_of(ctx->n * gap_desc_blocks(&op->in_desc[0]), gap_plane_floats(&op->in_desc[0]))};
    return gap_parallel(gap_cut_chunks(j.cut), forward_chunk, &j);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    if (ctx->din[0] == NULL) return GAP_OK;
    job j = {op, ctx, gap_cut_of(ctx->n * gap_desc_blocks(&op->in_desc[0]), gap_plane_floats(&op->in_desc[0]))};
    return gap_parallel(gap_cut_chunks(j.cut), backward_chunk, &j);
}

const gap_op_def gap_op_moments = {
    .name = "moments", .backward_needs = GAP_NEED_IN0, .infer = infer, .forward = forward, .backward = backward,
};

#include "core/threads.h"
#include "ops/cut.h"
#include "ops/ops.h"
#include "ops/plane.h"

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    gap_cut cut; /* of planes */
} job;

static gap_status infer_flatten(gap_op *op, const gap_desc *in, gap_desc *out) {
    (void)op;
    out[0] = gap_desc_vector(gap_desc_count(&in[0]));
    return GAP_OK;
}

static gap_status infer_plain(gap_op *op, const gap_desc *in, gap_desc *out) {
    (void)op;
    out[0] = in[0];
    out[0].layout = GAP_PLAIN;
    out[0].cb = 0;
    return GAP_OK;
}

/* Channels of block b that are real. */
static int64_t lanes_of(const gap_desc *d, int64_t b) { return d->dim[0] - b * d->cb < d->cb ? d->dim[0] - b * d->cb : d->cb; }

static void forward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    int64_t blocks = gap_desc_blocks(d), pixels = gap_plane_pixels(d), plane = gap_plane_floats(d), count = gap_desc_count(d);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        int64_t s = u / blocks, b = u % blocks, lanes = lanes_of(d, b);
        const float *x = (const float *)j->ctx->in[0] + u * plane;                     /* (H*W, cb) */
        float *y = (float *)j->ctx->out[0] + s * count + b * d->cb * pixels;           /* (lanes, H*W) */
        for (int64_t l = 0; l < lanes; l++)
            for (int64_t p = 0; p < pixels; p++) y[l * pixels + p] = x[p * d->cb + l];
    }
}

static void backward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    int64_t blocks = gap_desc_blocks(d), pixels = gap_plane_pixels(d), plane = gap_plane_floats(d), count = gap_desc_count(d);
    bool add = j->ctx->din_add[0];
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        int64_t s = u / blocks, b = u % blocks, lanes = lanes_of(d, b);
        const float *dy = (const float *)j->ctx->dout + s * count + b * d->cb * pixels; /* (lanes, H*W) */
        float *dx = (float *)j->ctx->din[0] + u * plane;                                /* (H*W, cb) */
        for (int64_t p = 0; p < pixels; p++)
            for (int64_t l = 0; l < d->cb; l++) {
                float g = l < lanes ? dy[l * pixels + p] : 0.0f;
                dx[p * d->cb + l] = add ? dx[p * d->cb + l] + g : g;
            }
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

static const gap_op_def flatten = {.name = "flatten", .infer = infer_flatten, .forward = forward, .backward = backward};
static const gap_op_def to_plain = {.name = "to_plain", .infer = infer_plain, .forward = forward, .backward = backward};

/* What is plain already passes without an op. */
static bool passes(const gap_oplist *list, int in, int ndim) {
    return in >= 0 && in < list->n_values && list->value[in].layout == GAP_PLAIN && (ndim == 0 || list->value[in].ndim == ndim);
}

gap_status gap_emit_flatten(gap_oplist *list, gap_origin who, int in, int *out) {
    if (passes(list, in, 1)) {
        *out = in;
        return GAP_OK;
    }
    return gap_oplist_emit(list, &flatten, who.name, who.id, &in, 1, 1, NULL, 0, NULL, 0, out);
}

gap_status gap_emit_to_plain(gap_oplist *list, gap_origin who, int in, int *out) {
    if (passes(list, in, 0)) {
        *out = in;
        return GAP_OK;
    }
    return gap_oplist_emit(list, &to_plain, who.name, who.id, &in, 1, 1, NULL, 0, NULL, 0, out);
}

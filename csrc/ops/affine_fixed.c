#include <stdio.h>
#include <string.h>

#include "core/threads.h"
#include "ops/cut.h"
#include "ops/norm.h"

/* BatchNorm with fixed statistics. With S1 = sum dy, S2 = sum dy (x - mean):  dx = dy * scale,  dgamma = S2 / std,  dbeta = S1.
 * Order of the sums: images are cut into `chunks` ranges by the plan's capacity; within a range image after image, each by
 * norm.h's moments, into doubles; ranges are added in rising order. */

typedef struct {
    gap_norm_attr norm;
    int chunks; /* private */
} fixed_state;

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    const float *table;  /* (rows, padded) */
    gap_cut cut;         /* of planes */
    double *sums;        /* (chunks, CB, 2, 16) */
} job;

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    char text[96];
    (void)op;
    if (in[0].layout != GAP_BLOCKED)
        return gap_fail(GAP_ERR_SHAPE, "batch_norm: input must be an image (C, H, W), got %s", gap_desc_text(&in[0], text));
    out[0] = in[0];
    return GAP_OK;
}

static size_t sums_bytes(const gap_op *op) {
    return (size_t)(GAP_ATTR_CONST(op, fixed_state)->chunks * gap_padded_channels(&op->in_desc[0]) * 2) * sizeof(double);
}

static gap_status prepare(gap_op *op, const gap_op_env *env) {
    int64_t padded = gap_padded_channels(&op->in_desc[0]);
    GAP_ATTR(op, fixed_state)->chunks = gap_reduce_chunks(env->capacity, (size_t)padded * 2 * sizeof(double));
    if (env->training) op->workspace_bytes = sums_bytes(op);
    op->derived_bytes = (size_t)(GAP_NORM_ROWS * padded) * sizeof(float);
    return GAP_OK;
}

static job job_of(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_desc *d = &op->in_desc[0];
    job j = {.op = op, .ctx = ctx, .table = ctx->derived};
    j.cut = gap_cut_of(ctx->n * gap_desc_blocks(d), gap_plane_floats(d));
    j.sums = ctx->workspace;
    return j;
}

/* Rows of the table at the block's first channel. */
static const float *row_of(const job *j, int row, int64_t b) {
    return j->table + row * gap_padded_channels(&j->op->in_desc[0]) + b * 16;
}

static void derive_chunk(void *arg, int64_t chunk, int thread) {
    (void)chunk, (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    gap_norm_table_fixed(j->op, j->ctx, 0, d->dim[0], gap_padded_channels(d), GAP_ATTR_CONST(j->op, fixed_state)->norm.eps, j->ctx->derived);
}

static gap_status derive(const gap_op *op, const gap_op_ctx *ctx) {
    job j = {.op = op, .ctx = ctx};
    return gap_parallel(1, derive_chunk, &j);
}

static void forward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    int64_t blocks = gap_desc_blocks(d), pixels = gap_plane_pixels(d), plane = gap_plane_floats(d);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++)
        j->ctx->kernels->norm->affine((size_t)pixels, (const float *)j->ctx->in[0] + u * plane, row_of(j, GAP_NORM_SCALE, u % blocks),
                                      row_of(j, GAP_NORM_SHIFT, u % blocks), (float *)j->ctx->out[0] + u * plane);
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = job_of(op, ctx);
    return gap_parallel(gap_cut_chunks(j.cut), forward_chunk, &j);
}

static void sums_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    int64_t blocks = gap_desc_blocks(d), pixels = gap_plane_pixels(d), plane = gap_plane_floats(d), begin, end;
    int64_t k = chunk / blocks, b = chunk % blocks;
    double *sums = j->sums + chunk * 32; /* (2, 16) */
    memset(sums, 0, 32 * sizeof *sums);
    gap_reduce_range(j->ctx->capacity, GAP_ATTR_CONST(j->op, fixed_state)->chunks, (int)k, j->ctx->n, &begin, &end);
    for (int64_t s = begin; s < end; s++) {
        int64_t at = (s * blocks + b) * plane;
        j->ctx->kernels->norm->moments_backward((size_t)pixels, (const float *)j->ctx->dout + at, (const float *)j->ctx->in[0] + at,
                                                row_of(j, GAP_NORM_MEAN, b), sums, sums + 16);
    }
}

static void finish_chunk(void *arg, int64_t chunk, int thread) {
    (void)chunk, (void)thread;
    const job *j = arg;
    const gap_op_ctx *ctx = j->ctx;
    const gap_desc *d = &j->op->in_desc[0];
    int64_t padded = gap_padded_channels(d), blocks = gap_desc_blocks(d);
    float *dgamma = ctx->dweight[GAP_NORM_GAMMA], *dbeta = ctx->dweight[GAP_NORM_BETA]; /* (C) */
    for (int64_t c = 0; c < d->dim[0]; c++) {
        double s = 0, q = 0;
        for (int k = 0; k < GAP_ATTR_CONST(j->op, fixed_state)->chunks; k++) {
            const double *part = j->sums + (k * blocks + c / 16) * 32;
            s += part[c % 16], q += part[16 + c % 16];
        }
        double invstd = (double)j->table[GAP_NORM_INVSTD * padded + c];
        if (dgamma != NULL) dgamma[c] = ctx->dweight_add ? dgamma[c] + (float)(q * invstd) : (float)(q * invstd);
        if (dbeta != NULL) dbeta[c] = ctx->dweight_add ? dbeta[c] + (float)s : (float)s;
    }
}

static void backward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_op_ctx *c = j->ctx;
    const gap_desc *d = &j->op->in_desc[0];
    int64_t blocks = gap_desc_blocks(d), pixels = gap_plane_pixels(d), plane = gap_plane_floats(d);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++)
        c->kernels->eltwise->gate((size_t)pixels, (const float *)c->dout + u * plane, row_of(j, GAP_NORM_SCALE, u % blocks),
                                  (float *)c->din[0] + u * plane, c->din_add[0]);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    gap_status st = GAP_OK;
    job j = job_of(op, ctx);
    bool learns = ctx->dweight[GAP_NORM_GAMMA] != NULL || ctx->dweight[GAP_NORM_BETA] != NULL;
    if (learns) {
        GAP_TRY(gap_parallel(GAP_ATTR_CONST(op, fixed_state)->chunks * gap_desc_blocks(&op->in_desc[0]), sums_chunk, &j));
        GAP_TRY(gap_parallel(1, finish_chunk, &j));
    }
    if (ctx->din[0] != NULL) GAP_TRY(gap_parallel(gap_cut_chunks(j.cut), backward_chunk, &j));
done:
    return st;
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    (void)op;
    snprintf(text, bytes, "running statistics");
}

const gap_op_def gap_op_affine_fixed = {
    .name = "affine", .backward_needs = GAP_NEED_IN0, .inplace_ok = true,
    .infer = infer, .prepare = prepare, .derive = derive, .forward = forward, .backward = backward, .describe = describe,
};

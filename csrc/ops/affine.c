#include <stdio.h>
#include <string.h>

#include "core/threads.h"
#include "ops/cut.h"
#include "ops/norm.h"

/* The sums of backward have norm_stats' order. With M values per channel, g = gamma * invstd, S1 = sum dy, S2 = sum dy (x - mean):
 *   batch statistics:  dx = dy*g + ((x - mean) * b + c),  b = -g invstd^2 S2 / M,  c = -g S1 / M
 *   fixed statistics:  dx = dy*g
 *   dgamma = S2 * invstd,  dbeta = S1 */

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    const float *table;  /* (rows, padded) */
    gap_cut cut;         /* of planes */
    bool batch;          /* batch statistics */
    double *sums;        /* (chunks, CB, 2, 16) */
    float *coef;         /* (2, padded): b, c */
} job;

enum { COEF_B, COEF_C, COEFS };

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    char text[96];
    (void)op;
    if (in[0].layout != GAP_BLOCKED)
        return gap_fail(GAP_ERR_SHAPE, "batch_norm: input must be an image (C, H, W), got %s", gap_desc_text(&in[0], text));
    out[0] = in[0];
    return GAP_OK;
}

static size_t sums_bytes(const gap_op *op) {
    return (size_t)(GAP_ATTR_CONST(op, gap_norm_state)->chunks * gap_padded_channels(&op->in_desc[0]) * 2) * sizeof(double);
}

static gap_status prepare(gap_op *op, const gap_op_env *env) {
    int64_t padded = gap_padded_channels(&op->in_desc[0]);
    GAP_ATTR(op, gap_norm_state)->chunks = gap_reduce_chunks(env->capacity, (size_t)padded * 2 * sizeof(double));
    if (env->training) op->workspace_bytes = sums_bytes(op) + (size_t)(COEFS * padded) * sizeof(float);
    if (op->def == &gap_op_affine_fixed) op->derived_bytes = (size_t)(GAP_NORM_ROWS * padded) * sizeof(float);
    return GAP_OK;
}

static job job_of(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_desc *d = &op->in_desc[0];
    job j = {.op = op, .ctx = ctx, .batch = op->def == &gap_op_affine};
    j.table = j.batch ? ctx->in[1] : ctx->derived;
    j.cut = gap_cut_of(ctx->n * gap_desc_blocks(d), gap_plane_floats(d));
    j.sums = ctx->workspace;
    j.coef = (float *)(void *)((char *)ctx->workspace + sums_bytes(op));
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
    int64_t padded = gap_padded_channels(d);
    float *table = j->ctx->derived; /* (rows, padded) */
    memset(table, 0, (size_t)(GAP_NORM_ROWS * padded) * sizeof *table);
    for (int64_t c = 0; c < d->dim[0]; c++)
        gap_norm_table_set(table, padded, c, (double)gap_norm_weight(j->op, j->ctx, GAP_NORM_RUNNING_MEAN, c, 0.0f),
                           (double)gap_norm_weight(j->op, j->ctx, GAP_NORM_RUNNING_VAR, c, 1.0f),
                           GAP_ATTR_CONST(j->op, gap_norm_state)->norm.eps, gap_norm_weight(j->op, j->ctx, GAP_NORM_GAMMA, c, 1.0f),
                           gap_norm_weight(j->op, j->ctx, GAP_NORM_BETA, c, 0.0f));
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
    gap_reduce_range(j->ctx->capacity, GAP_ATTR_CONST(j->op, gap_norm_state)->chunks, (int)k, j->ctx->n, &begin, &end);
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
    double count = (double)(ctx->n * gap_plane_pixels(d));
    float *dgamma = ctx->dweight[GAP_NORM_GAMMA], *dbeta = ctx->dweight[GAP_NORM_BETA]; /* (C) */
    memset(j->coef, 0, (size_t)(COEFS * padded) * sizeof *j->coef);
    for (int64_t c = 0; c < d->dim[0]; c++) {
        double s = 0, q = 0;
        for (int k = 0; k < GAP_ATTR_CONST(j->op, gap_norm_state)->chunks; k++) {
            const double *part = j->sums + (k * blocks + c / 16) * 32;
            s += part[c % 16], q += part[16 + c % 16];
        }
        double invstd = (double)j->table[GAP_NORM_INVSTD * padded + c], g = (double)j->table[GAP_NORM_SCALE * padded + c];
        j->coef[COEF_B * padded + c] = (float)(-g * invstd * invstd * q / count);
        j->coef[COEF_C * padded + c] = (float)(-g * s / count);
        if (dgamma != NULL) dgamma[c] = ctx->dweight_add ? dgamma[c] + (float)(q * invstd) : (float)(q * invstd);
        if (dbeta != NULL) dbeta[c] = ctx->dweight_add ? dbeta[c] + (float)s : (float)s;
    }
}

static void backward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_op_ctx *c = j->ctx;
    const gap_desc *d = &j->op->in_desc[0];
    int64_t blocks = gap_desc_blocks(d), pixels = gap_plane_pixels(d), plane = gap_plane_floats(d), padded = gap_padded_channels(d);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        int64_t b = u % blocks;
        const float *dy = (const float *)c->dout + u * plane, *scale = row_of(j, GAP_NORM_SCALE, b); /* (H*W, 16), (16) */
        float *dx = (float *)c->din[0] + u * plane;                                                  /* (H*W, 16) */
        if (j->batch)
            c->kernels->norm->affine_backward((size_t)pixels, dy, (const float *)c->in[0] + u * plane, row_of(j, GAP_NORM_MEAN, b), scale,
                                              j->coef + COEF_B * padded + b * 16, j->coef + COEF_C * padded + b * 16, dx, c->din_add[0]);
        else
            c->kernels->eltwise->gate((size_t)pixels, dy, scale, dx, c->din_add[0]);
    }
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    gap_status st = GAP_OK;
    job j = job_of(op, ctx);
    bool learns = ctx->dweight[GAP_NORM_GAMMA] != NULL || ctx->dweight[GAP_NORM_BETA] != NULL;
    if (learns || (j.batch && ctx->din[0] != NULL)) {
        GAP_TRY(gap_parallel(GAP_ATTR_CONST(op, gap_norm_state)->chunks * gap_desc_blocks(&op->in_desc[0]), sums_chunk, &j));
        GAP_TRY(gap_parallel(1, finish_chunk, &j));
    }
    if (ctx->din[0] != NULL) GAP_TRY(gap_parallel(gap_cut_chunks(j.cut), backward_chunk, &j));
done:
    return st;
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    snprintf(text, bytes, "%s", op->def == &gap_op_affine ? "batch statistics" : "running statistics");
}

const gap_op_def gap_op_affine = {
    .name = "affine", .backward_needs = GAP_NEED_IN0 | GAP_NEED_IN1, .inplace_ok = true,
    .infer = infer, .prepare = prepare, .forward = forward, .backward = backward, .describe = describe,
};
const gap_op_def gap_op_affine_fixed = {
    .name = "affine", .backward_needs = GAP_NEED_IN0, .inplace_ok = true,
    .infer = infer, .prepare = prepare, .derive = derive, .forward = forward, .backward = backward, .describe = describe,
};

gap_status gap_emit_batch_norm(gap_oplist *list, gap_origin who, int in, const gap_norm_attr *attr, int gamma, int beta,
                               int running_mean, int running_var, int *out) {
    gap_norm_state state;
    int weights[GAP_NORM_WEIGHTS] = {gamma, beta, running_mean, running_var}, values[2] = {in, -1};
    memset(&state, 0, sizeof state);
    state.norm = *attr;
    if (!list->training || attr->frozen)
        return gap_oplist_emit(list, &gap_op_affine_fixed, who.name, who.id, &in, 1, 1, &state, sizeof state, weights, GAP_NORM_WEIGHTS, out);
    gap_status st = gap_oplist_emit(list, &gap_op_norm_stats, who.name, who.id, &in, 1, 1, &state, sizeof state, weights, GAP_NORM_WEIGHTS, &values[1]);
    if (st != GAP_OK) return st;
    return gap_oplist_emit(list, &gap_op_affine, who.name, who.id, values, 2, 1, &state, sizeof state, weights, 2, out);
}

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/cpu.h"
#include "core/threads.h"
#include "ops/norm.h"

/* Order of the sums: images are cut into `chunks` ranges by the plan's capacity; within a range image after image, each by
 * norm.h's moments about the running mean, into doubles; ranges are added in rising order. */

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
} job;

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    char text[96];
    (void)op;
    if (in[0].layout != GAP_BLOCKED)
        return gap_fail(GAP_ERR_SHAPE, "batch_norm: input must be an image (C, H, W), got %s", gap_desc_text(&in[0], text));
    out[0] = (gap_desc){.dtype = GAP_F32, .layout = GAP_PLAIN, .ndim = 2, .dim = {GAP_NORM_ROWS, gap_padded_channels(&in[0])}, .per_batch = true};
    return GAP_OK;
}

static gap_status prepare(gap_op *op, const gap_op_env *env) {
    const gap_desc *d = &op->in_desc[0];
    gap_norm_state *state = GAP_ATTR(op, gap_norm_state);
    size_t partial = (size_t)gap_padded_channels(d) * 2 * sizeof(double);
    if (env->capacity * gap_plane_pixels(d) == 1)
        return gap_fail(GAP_ERR_SHAPE, "batch_norm: batch * height * width must be > 1 in training, got one value per channel");
    state->chunks = gap_reduce_chunks(env->capacity, partial);
    op->workspace_bytes = (size_t)state->chunks * partial;
    op->saved_bytes = partial;
    return GAP_OK;
}

/* The running mean of block b, as the pivot that keeps sums of squares small; 0 in padding channels. */
static void pivot_of(const job *j, int64_t b, float pivot[16]) {
    int64_t channels = j->op->in_desc[0].dim[0];
    for (int64_t l = 0; l < 16; l++)
        pivot[l] = b * 16 + l < channels ? gap_norm_weight(j->op, j->ctx, GAP_NORM_RUNNING_MEAN, b * 16 + l, 0.0f) : 0.0f;
}

static void sums_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    int64_t blocks = gap_desc_blocks(d), pixels = gap_plane_pixels(d), plane = gap_plane_floats(d), begin, end;
    int64_t k = chunk / blocks, b = chunk % blocks;
    double *sums = (double *)j->ctx->workspace + chunk * 32; /* (chunks, CB, 2, 16) */
    float pivot[16];
    pivot_of(j, b, pivot);
    memset(sums, 0, 32 * sizeof *sums);
    gap_reduce_range(j->ctx->capacity, GAP_ATTR_CONST(j->op, gap_norm_state)->chunks, (int)k, j->ctx->n, &begin, &end);
    for (int64_t s = begin; s < end; s++) {
        const float *x = (const float *)j->ctx->in[0] + (s * blocks + b) * plane; /* (H*W, 16) */
        j->ctx->kernels->norm->moments((size_t)pixels, x, pivot, sums, sums + 16);
    }
}

void gap_norm_table_set(float *table, int64_t padded, int64_t c, double mean, double var, double eps, float gamma, float beta) {
    double invstd = 1.0 / sqrt(var + eps);
    float scale = (float)((double)gamma * invstd);
    table[GAP_NORM_MEAN * padded + c] = (float)mean;
    table[GAP_NORM_INVSTD * padded + c] = (float)invstd;
    table[GAP_NORM_SCALE * padded + c] = scale;
    table[GAP_NORM_SHIFT * padded + c] = (float)((double)beta - mean * (double)scale);
}

static void finish_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread, (void)chunk;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    const gap_norm_state *state = GAP_ATTR_CONST(j->op, gap_norm_state);
    int64_t padded = gap_padded_channels(d), blocks = gap_desc_blocks(d);
    double count = (double)(j->ctx->n * gap_plane_pixels(d));
    const double *sums = j->ctx->workspace;  /* (chunks, CB, 2, 16) */
    double *saved = j->ctx->saved;           /* (2, padded): mean, unbiased variance */
    float *table = j->ctx->out[0];           /* (rows, padded) */
    memset(table, 0, (size_t)(GAP_NORM_ROWS * padded) * sizeof *table);
    for (int64_t c = 0; c < d->dim[0]; c++) {
        double s = 0, q = 0;
        for (int k = 0; k < state->chunks; k++) {
            const double *part = sums + (k * blocks + c / 16) * 32;
            s += part[c % 16], q += part[16 + c % 16];
        }
        double shift = s / count, var = q / count - shift * shift;
        double mean = (double)gap_norm_weight(j->op, j->ctx, GAP_NORM_RUNNING_MEAN, c, 0.0f) + shift;
        if (var < 0) var = 0; /* rounding of a constant channel; NaN stays */
        gap_norm_table_set(table, padded, c, mean, var, state->norm.eps, gap_norm_weight(j->op, j->ctx, GAP_NORM_GAMMA, c, 1.0f),
                           gap_norm_weight(j->op, j->ctx, GAP_NORM_BETA, c, 0.0f));
        saved[c] = mean;
        saved[padded + c] = var * (count / (count - 1.0));
    }
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = {op, ctx};
    if (ctx->n * gap_plane_pixels(&op->in_desc[0]) == 1)
        return gap_fail(GAP_ERR_SHAPE, "batch_norm: batch * height * width must be > 1 in training, got one value per channel");
    gap_status st = gap_parallel(GAP_ATTR_CONST(op, gap_norm_state)->chunks * gap_desc_blocks(&op->in_desc[0]), sums_chunk, &j);
    return st == GAP_OK ? gap_parallel(1, finish_chunk, &j) : st;
}

/* Not through gap_parallel, which may be told to stop: the update phase is written whole. */
static gap_status commit(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_desc *d = &op->in_desc[0];
    double m = GAP_ATTR_CONST(op, gap_norm_state)->norm.momentum;
    const double *saved = ctx->saved; /* (2, padded) */
    unsigned state = gap_cpu_flush_denormals();
    for (int k = 0; k < 2; k++) {
        int which = k == 0 ? GAP_NORM_RUNNING_MEAN : GAP_NORM_RUNNING_VAR;
        if (op->weight[which] < 0) continue;
        float *running = ctx->weight[which]; /* (C) */
        const double *batch = saved + k * gap_padded_channels(d);
        for (int64_t c = 0; c < d->dim[0]; c++) running[c] = (float)(m * batch[c] + (1.0 - m) * (double)running[c]);
    }
    gap_cpu_restore(state);
    return GAP_OK;
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    snprintf(text, bytes, "%d ranges of images", GAP_ATTR_CONST(op, gap_norm_state)->chunks);
}

const gap_op_def gap_op_norm_stats = {
    .name = "norm_stats", .infer = infer, .prepare = prepare, .forward = forward, .commit = commit, .describe = describe,
};

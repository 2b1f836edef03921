#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/cpu.h"
#include "core/threads.h"
#include "ops/norm.h"

/* Order of all reductions: images are cut into `chunks` ranges by the plan's capacity; within a range image after image,
 * piece after piece, in double; ranges are added in rising order. */

typedef struct {
    gap_norm_attr norm;
    int64_t channels, padded, pieces, pixels; /* of the normalised image */
    int64_t piece;                            /* pixels of a piece; the last has fewer */
    int chunks;                               /* private */
} norm_state;

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    const norm_state *s;
    const float *sums; /* (n, pieces, 2, padded) */
} job;

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    (void)in;
    out[0] = (gap_desc){.dtype = GAP_F32, .layout = GAP_PLAIN, .ndim = 2, .dim = {GAP_NORM_ROWS, GAP_ATTR_CONST(op, norm_state)->padded}, .per_batch = true};
    return GAP_OK;
}

static gap_status one_value(void) {
    return gap_fail(GAP_ERR_SHAPE, "batch_norm: batch * height * width must be > 1 in training, got one value per channel");
}

static gap_status prepare(gap_op *op, const gap_op_env *env) {
    norm_state *s = GAP_ATTR(op, norm_state);
    if (env->capacity * s->pixels == 1) return one_value();
    s->chunks = gap_reduce_chunks(env->capacity, (size_t)(s->padded * 2) * sizeof(double));
    op->saved_bytes = (size_t)(s->padded * 2) * sizeof(double);
    return GAP_OK;
}

void gap_norm_table_set(float *table, int64_t padded, int64_t c, double mean, double var, double eps, float gamma, float beta) {
    double invstd = 1.0 / sqrt(var + eps);
    float scale = (float)((double)gamma * invstd);
    table[GAP_NORM_MEAN * padded + c] = (float)mean;
    table[GAP_NORM_INVSTD * padded + c] = (float)invstd;
    table[GAP_NORM_SCALE * padded + c] = scale;
    table[GAP_NORM_SHIFT * padded + c] = (float)((double)beta - mean * (double)scale);
}

void gap_norm_table_fixed(const gap_op *op, const gap_op_ctx *ctx, int first, int64_t channels, int64_t padded, double eps, float *table) {
    memset(table, 0, (size_t)(GAP_NORM_ROWS * padded) * sizeof *table);
    for (int64_t c = 0; c < channels; c++)
        gap_norm_table_set(table, padded, c, (double)gap_norm_weight(op, ctx, first + GAP_NORM_RUNNING_MEAN, c, 0.0f),
                           (double)gap_norm_weight(op, ctx, first + GAP_NORM_RUNNING_VAR, c, 1.0f), eps,
                           gap_norm_weight(op, ctx, first + GAP_NORM_GAMMA, c, 1.0f), gap_norm_weight(op, ctx, first + GAP_NORM_BETA, c, 0.0f));
}

/* Both sums of block b's channels, over all images. mean NULL: as they are; else the second sums are about each piece's own
 * mean, and become sums about `mean`, from the pivot on. */
static void reduce(const job *j, int64_t b, const double *mean, double total[2][16]) {
    const norm_state *s = j->s;
    memset(total, 0, 32 * sizeof(double));
    for (int k = 0; k < s->chunks; k++) {
        double part[2][16] = {{0}};
        int64_t begin, end;
        gap_reduce_range(j->ctx->capacity, s->chunks, k, j->ctx->n, &begin, &end);
        for (int64_t u = begin * s->pieces; u < end * s->pieces; u++) {
            const float *from = j->sums + u * 2 * s->padded + b * 16; /* (2, padded) */
            for (int l = 0; l < 16; l++) part[0][l] += (double)from[l];
            for (int l = 0; l < 16; l++) part[1][l] += (double)from[s->padded + l];
            if (mean == NULL) continue;
            const double n = (double)gap_min64(s->piece, s->pixels - u % s->pieces * s->piece);
            for (int l = 0; l < 16; l++) part[1][l] += n * ((double)from[l] / n - mean[l]) * ((double)from[l] / n - mean[l]);
        }
        for (int l = 0; l < 16; l++) total[0][l] += part[0][l], total[1][l] += part[1][l];
    }
}

static void forward_block(void *arg, int64_t b, int thread) {
    (void)thread;
    const job *j = arg;
    const norm_state *s = j->s;
    const int64_t padded = s->padded;
    const double count = (double)(j->ctx->n * s->pixels);
    double *saved = j->ctx->saved;  /* (2, padded): mean, unbiased variance */
    float *table = j->ctx->out[0];  /* (rows, padded) */
    double total[2][16], shift[16];
    reduce(j, b, NULL, total);
    for (int l = 0; l < 16; l++) shift[l] = total[0][l] / count; /* from the pivot to the mean */
    reduce(j, b, shift, total);
    for (int row = 0; row < GAP_NORM_ROWS; row++) memset(table + row * padded + b * 16, 0, 16 * sizeof *table);
    for (int64_t l = 0, c = b * 16; l < 16 && c < s->channels; l++, c++) {
        double var = total[1][l] / count, mean = (double)gap_norm_weight(j->op, j->ctx, GAP_NORM_RUNNING_MEAN, c, 0.0f) + shift[l];
        if (var < 0) var = 0; /* rounding of a constant channel; NaN stays */
        gap_norm_table_set(table, padded, c, mean, var, s->norm.eps, gap_norm_weight(j->op, j->ctx, GAP_NORM_GAMMA, c, 1.0f),
                           gap_norm_weight(j->op, j->ctx, GAP_NORM_BETA, c, 0.0f));
        saved[c] = mean;
        saved[padded + c] = var * (count / (count - 1.0));
    }
}

static void backward_block(void *arg, int64_t b, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_op_ctx *ctx = j->ctx;
    const norm_state *s = j->s;
    const int64_t padded = s->padded;
    const double count = (double)(ctx->n * s->pixels);
    const float *table = ctx->out[0]; /* (rows, padded) */
    float *coef = ctx->din[0], *dgamma = ctx->dweight[GAP_NORM_GAMMA], *dbeta = ctx->dweight[GAP_NORM_BETA]; /* (C) */
    double total[2][16];
    reduce(j, b, NULL, total);
    if (coef != NULL)
        for (int row = 0; row < GAP_COEF_ROWS; row++) memset(coef + row * padded + b * 16, 0, 16 * sizeof *coef);
    for (int64_t l = 0, c = b * 16; l < 16 && c < s->channels; l++, c++) {
        const double invstd = (double)table[GAP_NORM_INVSTD * padded + c], scale = (double)table[GAP_NORM_SCALE * padded + c];
        const double s1 = total[0][l], s2 = total[1][l];
        if (coef != NULL) {
            coef[GAP_COEF_MEAN * padded + c] = table[GAP_NORM_MEAN * padded + c];
            coef[GAP_COEF_SCALE * padded + c] = table[GAP_NORM_SCALE * padded + c];
            coef[GAP_COEF_B * padded + c] = (float)(-scale * invstd * invstd * s2 / count);
            coef[GAP_COEF_C * padded + c] = (float)(-scale * s1 / count);
        }
        if (dgamma != NULL) dgamma[c] = ctx->dweight_add ? dgamma[c] + (float)(s2 * invstd) : (float)(s2 * invstd);
        if (dbeta != NULL) dbeta[c] = ctx->dweight_add ? dbeta[c] + (float)s1 : (float)s1;
    }
}

static job job_of(const gap_op *op, const gap_op_ctx *ctx, const float *sums) {
    return (job){op, ctx, GAP_ATTR_CONST(op, norm_state), sums};
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = job_of(op, ctx, ctx->in[0]);
    if (ctx->n * j.s->pixels == 1) return one_value();
    return gap_parallel(j.s->padded / 16, forward_block, &j);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = job_of(op, ctx, ctx->dout);
    return gap_parallel(j.s->padded / 16, backward_block, &j);
}

/* Not through gap_parallel, which may be told to stop: the update phase is written whole. */
static gap_status commit(const gap_op *op, const gap_op_ctx *ctx) {
    const norm_state *s = GAP_ATTR_CONST(op, norm_state);
    double m = s->norm.momentum;
    const double *saved = ctx->saved; /* (2, padded) */
    unsigned state = gap_cpu_flush_denormals();
    for (int k = 0; k < 2; k++) {
        int which = k == 0 ? GAP_NORM_RUNNING_MEAN : GAP_NORM_RUNNING_VAR;
        if (op->weight[which] < 0) continue;
        float *running = ctx->weight[which]; /* (C) */
        const double *batch = saved + k * s->padded;
        for (int64_t c = 0; c < s->channels; c++) running[c] = (float)(m * batch[c] + (1.0 - m) * (double)running[c]);
    }
    gap_cpu_restore(state);
    return GAP_OK;
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    const norm_state *s = GAP_ATTR_CONST(op, norm_state);
    snprintf(text, bytes, "%d ranges of images, %lld pieces each", s->chunks, (long long)s->pieces);
}

const gap_op_def gap_op_norm = {
    .name = "norm", .backward_needs = GAP_NEED_OUT, .infer = infer, .prepare = prepare, .forward = forward,
    .backward = backward, .commit = commit, .describe = describe,
};

gap_status gap_emit_batch_norm(gap_oplist *list, gap_origin who, int in, const gap_norm_attr *attr, int gamma, int beta,
                               int running_mean, int running_var, int *out) {
    gap_status st = GAP_OK;
    const int weights[GAP_NORM_WEIGHTS] = {gamma, beta, running_mean, running_var};
    if (!list->training || attr->frozen)
        return gap_oplist_emit(list, &gap_op_affine_fixed, who.name, who.id, &in, 1, 1, attr, sizeof *attr, weights, GAP_NORM_WEIGHTS, out);
    const gap_affine_attr plain = {.act = GAP_ACT_NONE};
    int sums = -1, values[2] = {in, -1};
    GAP_TRY(gap_oplist_emit(list, &gap_op_moments, who.name, who.id, &in, 1, 1, NULL, 0, &running_mean, 1, &sums));
    const gap_desc x = list->value[in];
    norm_state s = {.norm = *attr, .channels = x.dim[0], .padded = gap_padded_channels(&x), .pieces = gap_pieces(x.dim[1], x.dim[2]),
                    .pixels = gap_plane_pixels(&x), .piece = gap_piece_rows(x.dim[1], x.dim[2]) * x.dim[2]};
    list->gradient[sums] = gap_norm_coef_desc(&x);
    GAP_TRY(gap_oplist_emit(list, &gap_op_norm, who.name, who.id, &sums, 1, 1, &s, sizeof s, weights, GAP_NORM_WEIGHTS, &values[1]));
    list->gradient[values[1]] = list->value[sums];
    GAP_TRY(gap_oplist_emit(list, &gap_op_affine, who.name, who.id, values, 2, 1, &plain, sizeof plain, NULL, 0, out));
done:
    return st;
}

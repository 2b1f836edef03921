#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/threads.h"
#include "ops/ops.h"
#include "ops/plane.h"

/* Statistics of one sample's group: channel sums by norm.h's moments, channels added in rising order in double; first the mean
 * (about 0), then the variance (about that mean, so that a large mean costs nothing). Backward sums have the same order;
 * dgamma and dbeta add samples in rising order. */

typedef struct {
    int64_t groups;
    double eps;
} group_attr;

/* Memory of one sample: 2 * padded doubles of channel sums, then 4 * padded floats. */
typedef struct {
    double *s, *q;                 /* (padded): channel sums */
    float *mean, *a, *b, *c;       /* (padded): each channel's group mean, and the coefficients of the pass over pixels */
} sample_memory;

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
} job;

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    char text[96];
    int64_t groups = GAP_ATTR_CONST(op, group_attr)->groups;
    if (in[0].layout != GAP_BLOCKED)
        return gap_fail(GAP_ERR_SHAPE, "group_norm: input must be an image (C, H, W), got %s", gap_desc_text(&in[0], text));
    if (groups < 1 || in[0].dim[0] % groups != 0)
        return gap_fail(GAP_ERR_SHAPE, "group_norm: groups must divide the channels, %lld, got %lld", (long long)in[0].dim[0], (long long)groups);
    out[0] = in[0];
    return GAP_OK;
}

static size_t sample_bytes(const gap_op *op) {
    return (size_t)gap_padded_channels(&op->in_desc[0]) * (2 * sizeof(double) + 4 * sizeof(float));
}

static gap_status prepare(gap_op *op, const gap_op_env *env) {
    op->workspace_bytes = (size_t)env->capacity * sample_bytes(op);
    op->saved_bytes = (size_t)(env->capacity * GAP_ATTR_CONST(op, group_attr)->groups * 2) * sizeof(float); /* mean, invstd */
    return GAP_OK;
}

static sample_memory memory_of(const job *j, int64_t s) {
    int64_t padded = gap_padded_channels(&j->op->in_desc[0]);
    char *base = (char *)j->ctx->workspace + (size_t)s * sample_bytes(j->op);
    sample_memory m = {.s = (double *)(void *)base};
    m.q = m.s + padded;
    m.mean = (float *)(void *)(m.q + padded);
    m.a = m.mean + padded, m.b = m.a + padded, m.c = m.b + padded;
    return m;
}

static float *saved_of(const job *j, int64_t s) { return (float *)j->ctx->saved + s * GAP_ATTR_CONST(j->op, group_attr)->groups * 2; }

static float gamma_of(const job *j, int64_t c) { return j->op->weight[0] >= 0 ? j->ctx->weight[0][c] : 1.0f; }
static float beta_of(const job *j, int64_t c) { return j->op->weight[1] >= 0 ? j->ctx->weight[1][c] : 0.0f; }

/* Channel sums about m->mean into m->s, m->q. */
static void channel_moments(const job *j, int64_t s, const sample_memory *m) {
    const gap_desc *d = &j->op->in_desc[0];
    int64_t blocks = gap_desc_blocks(d), pixels = gap_plane_pixels(d), plane = gap_plane_floats(d);
    const float *x = (const float *)j->ctx->in[0] + s * blocks * plane; /* (CB, H*W, 16) */
    memset(m->s, 0, (size_t)(2 * blocks * 16) * sizeof *m->s);
    for (int64_t b = 0; b < blocks; b++)
        j->ctx->kernels->norm->moments((size_t)pixels, x + b * plane, m->mean + b * 16, m->s + b * 16, m->q + b * 16);
}

static double group_sum(const double *v, int64_t first, int64_t n) {
    double sum = 0;
    for (int64_t c = first; c < first + n; c++) sum += v[c];
    return sum;
}

static void forward_sample(void *arg, int64_t s, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->in_desc[0];
    const group_attr *attr = GAP_ATTR_CONST(j->op, group_attr);
    int64_t blocks = gap_desc_blocks(d), pixels = gap_plane_pixels(d), plane = gap_plane_floats(d), per = d->dim[0] / attr->groups;
    double count = (double)(per * pixels);
    sample_memory m = memory_of(j, s);
    float *saved = saved_of(j, s); /* (groups, 2) */
    memset(m.mean, 0, (size_t)(4 * blocks * 16) * sizeof *m.mean);
    channel_moments(j, s, &m);
    for (int64_t c = 0; c < d->dim[0]; c++) m.mean[c] = (float)(group_sum(m.s, c / per * per, per) / count);
    channel_moments(j, s, &m);
    for (int64_t g = 0; g < attr->groups; g++) {
        double shift = group_sum(m.s, g * per, per) / count, var = group_sum(m.q, g * per, per) / count - shift * shift;
        double mean = (double)m.mean[g * per] + shift, invstd = 1.0 / sqrt((var < 0 ? 0 : var) + attr->eps);
        saved[2 * g] = (float)mean, saved[2 * g + 1] = (float)invstd;
        for (int64_t c = g * per; c < (g + 1) * per; c++) {
            m.a[c] = (float)((double)gamma_of(j, c) * invstd);
            m.b[c] = (float)((double)beta_of(j, c) - mean * (double)m.a[c]);
        }
    }
    for (int64_t b = 0; b < blocks; b++)
        j->ctx->kernels->norm->affine((size_t)pixels, (const float *)j->ctx->in[0] + (s * blocks + b) * plane, m.a + b * 16, m.b + b * 16,
                                      (float *)j->ctx->out[0] + (s * blocks + b) * plane);
}

/* With G = sum over the group of gamma * (sum dy), H = … of gamma * (sum dy (x - mean)):
 * dx = invstd * (gamma dy - G / M - (x - mean) invstd^2 H / M). */
static void backward_sample(void *arg, int64_t s, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_op_ctx *ctx = j->ctx;
    const gap_desc *d = &j->op->in_desc[0];
    const group_attr *attr = GAP_ATTR_CONST(j->op, group_attr);
    int64_t blocks = gap_desc_blocks(d), pixels = gap_plane_pixels(d), plane = gap_plane_floats(d), per = d->dim[0] / attr->groups;
    double count = (double)(per * pixels);
    const float *x = (const float *)ctx->in[0] + s * blocks * plane, *dy = (const float *)ctx->dout + s * blocks * plane; /* (CB, H*W, 16) */
    const float *saved = saved_of(j, s); /* (groups, 2) */
    sample_memory m = memory_of(j, s);
    memset(m.s, 0, sample_bytes(j->op));
    for (int64_t c = 0; c < d->dim[0]; c++) m.mean[c] = saved[c / per * 2];
    for (int64_t b = 0; b < blocks; b++)
        ctx->kernels->norm->moments_backward((size_t)pixels, dy + b * plane, x + b * plane, m.mean + b * 16, m.s + b * 16, m.q + b * 16);
    for (int64_t g = 0; g < attr->groups; g++) {
        double invstd = (double)saved[2 * g + 1], sum = 0, dot = 0;
        for (int64_t c = g * per; c < (g + 1) * per; c++) {
            sum += (double)gamma_of(j, c) * m.s[c];
            dot += (double)gamma_of(j, c) * m.q[c];
        }
        for (int64_t c = g * per; c < (g + 1) * per; c++) {
            m.a[c] = (float)((double)gamma_of(j, c) * invstd);
            m.b[c] = (float)(-invstd * invstd * invstd * dot / count);
            m.c[c] = (float)(-invstd * sum / count);
        }
    }
    for (int64_t b = 0; b < blocks && ctx->din[0] != NULL; b++)
        ctx->kernels->norm->affine_backward((size_t)pixels, dy + b * plane, x + b * plane, m.mean + b * 16, m.a + b * 16, m.b + b * 16,
                                            m.c + b * 16, (float *)ctx->din[0] + (s * blocks + b) * plane, ctx->din_add[0]);
}

static void weights_chunk(void *arg, int64_t chunk, int thread) {
    (void)chunk, (void)thread;
    const job *j = arg;
    const gap_op_ctx *ctx = j->ctx;
    int64_t channels = j->op->in_desc[0].dim[0], per = channels / GAP_ATTR_CONST(j->op, group_attr)->groups;
    float *dgamma = ctx->dweight[0], *dbeta = ctx->dweight[1]; /* (C) */
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, dot = 0;
        for (int64_t s = 0; s < ctx->n; s++) {
            sample_memory m = memory_of(j, s);
            sum += m.s[c];
            dot += m.q[c] * (double)saved_of(j, s)[c / per * 2 + 1];
        }
        if (dgamma != NULL) dgamma[c] = ctx->dweight_add ? dgamma[c] + (float)dot : (float)dot;
        if (dbeta != NULL) dbeta[c] = ctx->dweight_add ? dbeta[c] + (float)sum : (float)sum;
    }
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = {op, ctx};
    return gap_parallel(ctx->n, forward_sample, &j);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = {op, ctx};
    gap_status st = gap_parallel(ctx->n, backward_sample, &j);
    return st == GAP_OK ? gap_parallel(1, weights_chunk, &j) : st;
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    snprintf(text, bytes, "%lld groups", (long long)GAP_ATTR_CONST(op, group_attr)->groups);
}

static const gap_op_def def = {
    .name = "group_norm", .backward_needs = GAP_NEED_IN0,
    .infer = infer, .prepare = prepare, .forward = forward, .backward = backward, .describe = describe,
};

gap_status gap_emit_group_norm(gap_oplist *list, gap_origin who, int in, int64_t groups, double eps, int gamma, int beta, int *out) {
    group_attr attr = {groups, eps};
    int weights[2] = {gamma, beta};
    return gap_oplist_emit(list, &def, who.name, who.id, &in, 1, 1, &attr, sizeof attr, weights, 2, out);
}

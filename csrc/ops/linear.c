/* linear.c — y = x W^T + b for vectors, on the convolution's kernels: samples are the pixels, outputs the lanes.
 *
 * Order of summation: y and dx: chains over K_BLOCK inputs, added in order; dW: a chain over the samples of a segment (at
 * most SEGMENT), segments in order within a chunk of samples, chunks in order; db: a chain over the samples of a chunk,
 * chunks in order.
 */
#include <stdio.h>
#include <string.h>

#include "ops/ops.h"
#include "ops/scratch.h"

#define K_BLOCK 128   /* inputs of a chain, whose weights stay in the first cache */
#define SAMPLES 56    /* samples of a unit */
#define SEGMENT 128
#define F_BLOCKS 4    /* vectors of inputs in a unit of the weight gradient */

typedef struct { int64_t features; int slots, blas; } linear_attr;

/* One product: forward (in F, out OF) or the input's gradient (in OF, out F). */
typedef struct {
    int64_t in, out, blocks; /* blocks: vectors of 16 outputs */
    size_t w, bias;          /* sections of op->derived, in bytes: (blocks, in, 16), (blocks * 16) */
} product;


static size_t product_of(product *p, const gap_op *op, bool backward, size_t start) {
    const int64_t f = op->in_desc[0].dim[0], of = op->out_desc[0].dim[0];
    p->in = backward ? of : f, p->out = backward ? f : of, p->blocks = gap_ceil_div(p->out, 16);
    p->w = start, p->bias = start + gap_scratch_round((size_t)(p->blocks * p->in) * 64);
    return p->bias + (backward ? 0 : gap_scratch_round((size_t)p->blocks * 64));
}

static size_t run_scratch(void) { return (size_t)SAMPLES * 4 * 64; }
static size_t grad_scratch(int64_t of) { return (size_t)(SEGMENT + of) * 64; }
static int grad_chunks(const gap_op *op, int64_t capacity) {
    return gap_reduce_chunks(capacity, (size_t)(op->in_desc[0].dim[0] * op->out_desc[0].dim[0]) * 4);
}
static int bias_chunks(const gap_op *op, int64_t capacity) { return gap_reduce_chunks(capacity, (size_t)op->out_desc[0].dim[0] * 4); }
/* Bytes of the partial weight gradients: none for one chunk, which is summed in place. */
static size_t parts_bytes(const gap_op *op, int64_t capacity) {
    const int chunks = grad_chunks(op, capacity);
    return chunks < 2 ? 0 : gap_scratch_round((size_t)(chunks * op->in_desc[0].dim[0] * op->out_desc[0].dim[0]) * 4);
}

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    char text[96];
    if (in->ndim != 1 || in->dtype != GAP_F32 || in->layout != GAP_PLAIN || in->per_batch)
        return gap_fail(GAP_ERR_SHAPE, "linear: input must be a vector (features), got %s; a Flatten before it makes one of an image",
                        gap_desc_text(in, text));
    const linear_attr *a = GAP_ATTR_CONST(op, linear_attr);
    if (a->features < 1) return gap_fail(GAP_ERR_VALUE, "linear: out_features must be >= 1, got %lld", (long long)a->features);
    *out = gap_desc_vector(a->features);
    return GAP_OK;
}

static gap_status prepare(gap_op *op, const gap_op_env *env) {
    linear_attr *a = GAP_ATTR(op, linear_attr);
    product p;
    a->slots = gap_scratch_count(), a->blas = env->kernels->blas != NULL;
    op->saved_bytes = 0;
    op->derived_bytes = a->blas ? 0 : product_of(&p, op, false, 0);
    if (env->training && !a->blas) op->derived_bytes = product_of(&p, op, true, op->derived_bytes);
    size_t scratch = run_scratch(), grad = grad_scratch(op->out_desc[0].dim[0]);
    if (env->training && grad > scratch) scratch = grad;
    op->workspace_bytes = gap_scratch_round(scratch) * (size_t)a->slots;
    if (!env->training) return GAP_OK;
    op->workspace_bytes += parts_bytes(op, env->capacity);
    const size_t db = (size_t)(bias_chunks(op, env->capacity) * op->out_desc[0].dim[0]) * 4;
    if (db > op->workspace_bytes) op->workspace_bytes = db;
    return GAP_OK;
}

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    const product *p;
    const float *x;      /* (n, in) */
    float *y;            /* (n, out) */
    bool has_bias, add, transposed;
    int64_t n_groups, group;
    int chunks;
    float *parts;        /* (chunks, OF, F), or dW itself */
    gap_scratch scratch;
} linear_job;

static void derive_block(void *arg, int64_t b, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const product *p = job->p;
    const float *w = job->ctx->weight[0]; /* (OF, F) */
    float *to = (float *)(void *)((unsigned char *)job->ctx->derived + p->w) + b * p->in * 16;
    const int64_t lanes = gap_min64(16, p->out - b * 16);
    if (lanes < 16) memset(to, 0, (size_t)p->in * 64);
    if (job->transposed) {
        for (int64_t k = 0; k < p->in; k++) memcpy(to + k * 16, w + k * p->out + b * 16, (size_t)lanes * 4);
        return;
    }
    for (int64_t k0 = 0; k0 < p->in; k0 += 64) /* a tile of `to` stays in the first cache while the lanes are filled */
        for (int64_t l = 0; l < lanes; l++)
            for (int64_t k = k0; k < gap_min64(p->in, k0 + 64); k++) to[k * 16 + l] = w[(b * 16 + l) * p->in + k];
    float *bias = (float *)(void *)((unsigned char *)job->ctx->derived + p->bias);
    for (int64_t o = b * 16; o < b * 16 + 16; o++) bias[o] = job->has_bias && o < p->out ? job->ctx->weight[1][o] : 0.0f;
}

static gap_status derive(const gap_op *op, const gap_op_ctx *ctx) {
    gap_status st = GAP_OK;
    if (GAP_ATTR_CONST(op, linear_attr)->blas) return GAP_OK;
    product p;
    linear_job job = {.op = op, .ctx = ctx, .p = &p, .has_bias = op->weight[1] >= 0};
    const size_t used = product_of(&p, op, false, 0);
    GAP_TRY(gap_parallel(p.blocks, derive_block, &job));
    if (ctx->training) {
        product_of(&p, op, true, used), job.transposed = true;
        GAP_TRY(gap_parallel(p.blocks, derive_block, &job));
    }
done:
    return st;
}

/* A unit: up to SAMPLES samples by up to `group` vectors of outputs, summed in scratch and copied out without the padding. */
static void run_chunk(void *arg, int64_t unit, int thread) {
    linear_job *job = arg;
    const product *p = job->p;
    const int64_t n0 = unit / job->n_groups * SAMPLES, n1 = gap_min64(job->ctx->n, n0 + SAMPLES);
    const int64_t b0 = unit % job->n_groups * job->group, b1 = gap_min64(p->blocks, b0 + job->group), row = (b1 - b0) * 16;
    const int64_t width = gap_min64(p->out, b1 * 16) - b0 * 16;
    const unsigned char *derived = job->ctx->derived;
    const int64_t off = 0;
    int slot;
    float *tile = gap_scratch_take(&job->scratch, thread, &slot); /* (samples, row) */
    if (job->add)
        for (int64_t n = n0; n < n1; n++) {
            memcpy(tile + (n - n0) * row, job->y + n * p->out + b0 * 16, (size_t)width * 4);
            memset(tile + (n - n0) * row + width, 0, (size_t)(row - width) * 4);
        }
    gap_conv_rows r = {.a_px = p->in, .off = &off, .taps = 1, .blocks = 1, .chain = 1, .w_oc = p->in * 16, .y = tile,
                       .y_px = row, .y_oc = 16, .pixels = n1 - n0, .rows = 1, .oc_blocks = (int)(b1 - b0),
                       .bias = (const float *)(const void *)(derived + p->bias) + b0 * 16};
    r.start = job->add ? GAP_CONV_KEEP : job->has_bias ? GAP_CONV_BIAS : GAP_CONV_ZERO;
    for (int64_t k = 0; k < p->in; k += K_BLOCK, r.start = GAP_CONV_KEEP) {
        r.kc = r.kc_last = (int)gap_min64(K_BLOCK, p->in - k);
        r.a = job->x + n0 * p->in + k;
        r.w = (const float *)(const void *)(derived + p->w) + (b0 * p->in + k) * 16;
        job->ctx->kernels->conv->rows(&r);
    }
    for (int64_t n = n0; n < n1; n++) memcpy(job->y + n * p->out + b0 * 16, tile + (n - n0) * row, (size_t)width * 4);
    gap_scratch_give(&job->scratch, slot);
}

static gap_status run(linear_job *job) {
    const int slots = GAP_ATTR_CONST(job->op, linear_attr)->slots;
    job->group = job->ctx->n <= 6 ? 4 : 2, job->n_groups = gap_ceil_div(job->p->blocks, job->group);
    gap_scratch_begin(&job->scratch, job->ctx->workspace, run_scratch(), slots);
    return gap_parallel(gap_ceil_div(job->ctx->n, SAMPLES) * job->n_groups, run_chunk, job);
}

/* blas: one sample at a time, so that no sample's bits depend on its batch. */
static void blas_forward(void *arg, int64_t n, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const int64_t f = job->op->in_desc[0].dim[0], of = job->op->out_desc[0].dim[0];
    float *y = job->y + n * of;
    job->ctx->kernels->blas->sgemm(false, true, 1, of, f, job->x + n * f, f, job->ctx->weight[0], f, false, y, of);
    if (job->has_bias)
        for (int64_t o = 0; o < of; o++) y[o] += job->ctx->weight[1][o];
}

static void blas_dx(void *arg, int64_t n, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const int64_t f = job->op->in_desc[0].dim[0], of = job->op->out_desc[0].dim[0];
    job->ctx->kernels->blas->sgemm(false, false, 1, f, of, job->x + n * of, of, job->ctx->weight[0], f, job->add, job->y + n * f, f);
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    product p;
    product_of(&p, op, false, 0);
    linear_job job = {.op = op, .ctx = ctx, .p = &p, .x = ctx->in[0], .y = ctx->out[0], .has_bias = op->weight[1] >= 0};
    return GAP_ATTR_CONST(op, linear_attr)->blas ? gap_parallel(ctx->n, blas_forward, &job) : run(&job);
}

/* Samples [n0, n1): dw (OF, F) columns [f0, f1) += dy^T x. The last columns, when they are no whole vector, go through scratch. */
static void grad_segment(const linear_job *job, int64_t n0, int64_t n1, int64_t f0, int64_t f1, float *dw, float *scratch) {
    const int64_t f = job->op->in_desc[0].dim[0], of = job->op->out_desc[0].dim[0], whole = (f1 - f0) / 16, rest = (f1 - f0) % 16;
    const float *x = job->x;
    gap_conv_cols c = {.a = (const float *)job->ctx->dout + n0 * of, .a_px = of, .d = x + n0 * f + f0, .d_px = f, .d_oc = 16,
                       .pixels = n1 - n0, .rows = 1, .images = 1, .m = (int)of, .oc_blocks = (int)whole, .dw = dw + f0,
                       .dw_k = f, .dw_oc = 16};
    if (whole) job->ctx->kernels->conv->cols(&c);
    if (!rest) return;
    float *xs = scratch, *tile = scratch + SEGMENT * 16; /* (samples, 16), (OF, 16) */
    const int64_t at = f0 + whole * 16;
    memset(xs, 0, (size_t)(n1 - n0) * 64);
    for (int64_t n = n0; n < n1; n++) memcpy(xs + (n - n0) * 16, x + n * f + at, (size_t)rest * 4);
    for (int64_t o = 0; o < of; o++) {
        memset(tile + o * 16, 0, 64);
        memcpy(tile + o * 16, dw + o * f + at, (size_t)rest * 4);
    }
    c.d = xs, c.d_px = 16, c.oc_blocks = 1, c.dw = tile, c.dw_k = 16;
    job->ctx->kernels->conv->cols(&c);
    for (int64_t o = 0; o < of; o++) memcpy(dw + o * f + at, tile + o * 16, (size_t)rest * 4);
}

static void grad_chunk(void *arg, int64_t unit, int thread) {
    linear_job *job = arg;
    const int64_t f = job->op->in_desc[0].dim[0], of = job->op->out_desc[0].dim[0];
    const int64_t f0 = unit % job->n_groups * F_BLOCKS * 16, f1 = gap_min64(f, f0 + F_BLOCKS * 16), chunk = unit / job->n_groups;
    float *dw = job->parts + chunk * of * f;
    int64_t begin, end;
    int slot;
    gap_reduce_range(job->ctx->capacity, job->chunks, (int)chunk, job->ctx->n, &begin, &end);
    if (job->chunks > 1 || !job->ctx->dweight_add)
        for (int64_t o = 0; o < of; o++) memset(dw + o * f + f0, 0, (size_t)(f1 - f0) * 4);
    float *scratch = gap_scratch_take(&job->scratch, thread, &slot);
    for (int64_t n = begin; n < end; n += SEGMENT) grad_segment(job, n, gap_min64(end, n + SEGMENT), f0, f1, dw, scratch);
    gap_scratch_give(&job->scratch, slot);
}

static void blas_dw(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const int64_t f = job->op->in_desc[0].dim[0], of = job->op->out_desc[0].dim[0];
    const bool keep = job->chunks == 1 && job->ctx->dweight_add;
    float *dw = job->parts + chunk * of * f;
    int64_t begin, end;
    gap_reduce_range(job->ctx->capacity, job->chunks, (int)chunk, job->ctx->n, &begin, &end);
    if (end > begin)
        job->ctx->kernels->blas->sgemm(true, false, of, f, end - begin, (const float *)job->ctx->dout + begin * of, of,
                                       job->x + begin * f, f, keep, dw, f);
    else if (!keep) memset(dw, 0, (size_t)(of * f) * 4);
}

static void grad_finish(void *arg, int64_t o, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const int64_t f = job->op->in_desc[0].dim[0], size = f * job->op->out_desc[0].dim[0];
    float *dw = job->ctx->dweight[0] + o * f, *sum = job->parts + o * f; /* (F) of output o */
    for (int k = 1; k < job->chunks; k++)
        for (int64_t i = 0; i < f; i++) sum[i] += sum[k * size + i];
    for (int64_t i = 0; i < f; i++) dw[i] = job->ctx->dweight_add ? dw[i] + sum[i] : sum[i];
}

static gap_status weight_gradient(linear_job *job) {
    gap_status st = GAP_OK;
    const gap_op *op = job->op;
    const linear_attr *a = GAP_ATTR_CONST(op, linear_attr);
    const int64_t of = op->out_desc[0].dim[0];
    unsigned char *work = job->ctx->workspace;
    job->x = job->ctx->in[0];
    job->chunks = grad_chunks(op, job->ctx->capacity);
    job->parts = job->chunks > 1 ? (float *)(void *)work : job->ctx->dweight[0];
    job->n_groups = gap_ceil_div(op->in_desc[0].dim[0], F_BLOCKS * 16);
    gap_scratch_begin(&job->scratch, work + parts_bytes(op, job->ctx->capacity), grad_scratch(of), a->slots);
    if (a->blas) GAP_TRY(gap_parallel(job->chunks, blas_dw, job));
    else GAP_TRY(gap_parallel(job->chunks * job->n_groups, grad_chunk, job));
    if (job->chunks > 1) GAP_TRY(gap_parallel(of, grad_finish, job));
done:
    return st;
}

static void bias_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const int64_t of = job->op->out_desc[0].dim[0];
    const float *dy = job->ctx->dout; /* (n, OF) */
    float *sum = job->parts + chunk * of;
    int64_t begin, end;
    gap_reduce_range(job->ctx->capacity, job->chunks, (int)chunk, job->ctx->n, &begin, &end);
    memset(sum, 0, (size_t)of * 4);
    for (int64_t n = begin; n < end; n++)
        for (int64_t o = 0; o < of; o++) sum[o] += dy[n * of + o];
}

static void bias_finish(void *arg, int64_t unit, int thread) {
    (void)unit, (void)thread;
    const linear_job *job = arg;
    const int64_t of = job->op->out_desc[0].dim[0];
    float *db = job->ctx->dweight[1];
    for (int64_t o = 0; o < of; o++) {
        float sum = job->parts[o];
        for (int k = 1; k < job->chunks; k++) sum += job->parts[k * of + o];
        db[o] = job->ctx->dweight_add ? db[o] + sum : sum;
    }
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    gap_status st = GAP_OK;
    const bool blas = GAP_ATTR_CONST(op, linear_attr)->blas;
    product p;
    product_of(&p, op, true, product_of(&p, op, false, 0));
    linear_job job = {.op = op, .ctx = ctx, .p = &p, .x = ctx->dout, .y = ctx->din[0], .add = ctx->din_add[0]};
    if (ctx->din[0]) GAP_TRY(blas ? gap_parallel(ctx->n, blas_dx, &job) : run(&job));
    if (ctx->dweight[0]) GAP_TRY(weight_gradient(&job));
    if (ctx->dweight[1]) {
        job.chunks = bias_chunks(op, ctx->capacity), job.parts = ctx->workspace;
        GAP_TRY(gap_parallel(job.chunks, bias_chunk, &job));
        GAP_TRY(gap_parallel(1, bias_finish, &job));
    }
done:
    return st;
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    snprintf(text, bytes, "%s", GAP_ATTR_CONST(op, linear_attr)->blas ? "sgemm, a sample at a time" : "direct, 16 outputs per vector");
}

static const gap_op_def linear_def = {
    .name = "linear", .backward_needs = GAP_NEED_IN0, .infer = infer, .prepare = prepare, .derive = derive,
    .forward = forward, .backward = backward, .describe = describe,
};

gap_status gap_emit_linear(gap_oplist *list, gap_origin who, int in, int64_t out_features, int weight, int bias, int *out) {
    const linear_attr attr = {.features = out_features};
    const int weights[2] = {weight, bias};
    return gap_oplist_emit(list, &linear_def, who.name, who.id, &in, 1, 1, &attr, sizeof attr, weights, 2, out);
}

/* linear.c — y = x W^T + b for vectors, on weights that lie as the store has them.
 *
 * Order of summation: y: pieces of GAP_LINEAR_DEPTH inputs in order, each 16 chains and the tree across lanes (kernels/linear.h).
 * dx: chains over GAP_LINEAR_CHAIN outputs, in order. dW: chunks of samples in order; a chunk is the sum, in order, of chains
 * over SEGMENT samples. db: a chain over the samples of a chunk, chunks in order. What dx, dW, db hold stands before it all.
 */
#include <stdio.h>
#include <string.h>

#include "ops/ops.h"
#include "ops/scratch.h"

#define SEGMENT 128       /* samples of a chain */
#define SAMPLES 48        /* samples of a unit of y and dx */
#define OUTPUTS 32        /* outputs of a unit of y, where there are several tiles of samples; else FEW_OUTPUTS */
#define FEW_OUTPUTS 8
#define FEW_SAMPLES 6     /* one tile */
#define DX_INPUTS 128     /* inputs of a unit of dx */
#define DW_OUTPUTS 48     /* a unit of dW */
#define DW_INPUTS 128
#define DB_OUTPUTS 64

typedef struct { int64_t features; int slots, blas; } linear_attr;

static int64_t in_of(const gap_op *op) { return op->in_desc[0].dim[0]; }
static int64_t out_of(const gap_op *op) { return op->out_desc[0].dim[0]; }
static int grad_chunks(const gap_op *op, int64_t capacity) { return gap_reduce_chunks(capacity, (size_t)(in_of(op) * out_of(op)) * 4); }
static int bias_chunks(const gap_op *op, int64_t capacity) { return gap_reduce_chunks(capacity, (size_t)out_of(op) * 4); }
/* Room for a chunk's sum, which is made apart where it has several segments. */
static size_t grad_scratch(void) { return (size_t)DW_OUTPUTS * DW_INPUTS * 4; }
/* blas: bytes of the partial weight gradients; none for one chunk, which is summed in place. */
static size_t parts_bytes(const gap_op *op, int64_t capacity) {
    const int chunks = grad_chunks(op, capacity);
    return chunks < 2 ? 0 : gap_scratch_round((size_t)(chunks * in_of(op) * out_of(op)) * 4);
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
    a->slots = gap_scratch_count(), a->blas = env->kernels->blas != NULL;
    op->saved_bytes = op->derived_bytes = op->workspace_bytes = 0;
    if (!env->training) return GAP_OK;
    op->workspace_bytes = a->blas ? parts_bytes(op, env->capacity) : gap_scratch_round(grad_scratch()) * (size_t)a->slots;
    return GAP_OK;
}

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    const float *x;      /* the operand that has a row per sample: (n, F) or (n, OF) */
    float *y;            /* forward: (n, OF); the input's gradient: (n, F) */
    bool add;
    int64_t samples, width, n_groups; /* of a unit; units side by side */
    int chunks;
    float *parts;        /* blas: (chunks, OF, F), or dW itself */
    gap_scratch scratch;
} linear_job;

/* Cuts n samples by `total` columns into units of `samples` by `width`; gives how many there are. */
static int64_t cut(linear_job *job, int64_t samples, int64_t total, int64_t width) {
    job->samples = samples, job->width = width, job->n_groups = gap_ceil_div(total, width);
    return gap_ceil_div(job->ctx->n, samples) * job->n_groups;
}

static int64_t work_ns(const linear_job *job) { return gap_ns_of_fmas(job->ctx->n * in_of(job->op) * out_of(job->op)); }

static void forward_unit(void *arg, int64_t unit, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const int64_t f = in_of(job->op), of = out_of(job->op);
    const int64_t n0 = unit / job->n_groups * job->samples, o0 = unit % job->n_groups * job->width;
    const float *bias = job->op->weight[1] >= 0 ? job->ctx->weight[1] + o0 : NULL;
    gap_linear_dot d = {.x_row = f, .w_row = f, .y = job->y + n0 * of + o0, .y_row = of, .n = gap_min64(job->ctx->n - n0, job->samples),
                        .out = gap_min64(of - o0, job->width), .bias = bias};
    for (int64_t k = 0; k < f; k += GAP_LINEAR_DEPTH, d.keep = true) {
        d.x = job->x + n0 * f + k, d.w = job->ctx->weight[0] + o0 * f + k;
        d.depth = gap_min64(f - k, GAP_LINEAR_DEPTH);
        job->ctx->kernels->linear->dot(&d);
    }
}

/* blas: one sample at a time, so that no sample's bits depend on its batch. */
static void blas_forward(void *arg, int64_t n, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const int64_t f = in_of(job->op), of = out_of(job->op);
    float *y = job->y + n * of;
    job->ctx->kernels->blas->sgemm(false, true, 1, of, f, job->x + n * f, f, job->ctx->weight[0], f, false, y, of);
    if (job->op->weight[1] >= 0)
        for (int64_t o = 0; o < of; o++) y[o] += job->ctx->weight[1][o];
}

static void blas_dx(void *arg, int64_t n, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const int64_t f = in_of(job->op), of = out_of(job->op);
    job->ctx->kernels->blas->sgemm(false, false, 1, f, of, job->x + n * of, of, job->ctx->weight[0], f, job->add, job->y + n * f, f);
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    linear_job job = {.op = op, .ctx = ctx, .x = ctx->in[0], .y = ctx->out[0]};
    if (GAP_ATTR_CONST(op, linear_attr)->blas) return gap_parallel(ctx->n, blas_forward, &job);
    const int64_t units = cut(&job, SAMPLES, out_of(op), ctx->n <= FEW_SAMPLES ? FEW_OUTPUTS : OUTPUTS);
    return gap_parallel_sized(units, forward_unit, &job, work_ns(&job));
}

static void input_unit(void *arg, int64_t unit, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const int64_t f = in_of(job->op), of = out_of(job->op);
    const int64_t n0 = unit / job->n_groups * job->samples, f0 = unit % job->n_groups * job->width;
    gap_linear_product p = {.a_i = of, .a_j = 1, .b_row = f, .c = job->y + n0 * f + f0, .c_row = f,
                            .rows = gap_min64(job->ctx->n - n0, job->samples), .cols = gap_min64(f - f0, job->width), .keep = job->add};
    for (int64_t o = 0; o < of; o += GAP_LINEAR_CHAIN, p.keep = true) {
        p.a = job->x + n0 * of + o, p.b = job->ctx->weight[0] + o * f + f0;
        p.depth = gap_min64(of - o, GAP_LINEAR_CHAIN);
        job->ctx->kernels->linear->product(&p);
    }
}

/* Samples [n0, n1) into outputs [o0, o1) and inputs [f0, f1) of a gradient: to = dy^T x, or that added. */
static void grad_segments(const linear_job *job, int64_t n0, int64_t n1, int64_t o0, int64_t o1, int64_t f0, int64_t f1, float *to,
                          int64_t to_row, bool keep) {
    const int64_t f = in_of(job->op), of = out_of(job->op);
    gap_linear_product p = {.a_i = 1, .a_j = of, .b_row = f, .c = to, .c_row = to_row, .rows = o1 - o0, .cols = f1 - f0, .keep = keep};
    for (int64_t n = n0; n < n1; n += SEGMENT, p.keep = true) {
        p.a = (const float *)job->ctx->dout + n * of + o0, p.b = job->x + n * f + f0;
        p.depth = gap_min64(n1 - n, SEGMENT);
        job->ctx->kernels->linear->product(&p);
    }
}

/* A tile of dW, all chunks of samples: no partial gradients are kept, and no two threads meet. */
static void grad_unit(void *arg, int64_t unit, int thread) {
    linear_job *job = arg;
    const int64_t f = in_of(job->op), of = out_of(job->op);
    const int64_t o0 = unit / job->n_groups * DW_OUTPUTS, o1 = gap_min64(of, o0 + DW_OUTPUTS);
    const int64_t f0 = unit % job->n_groups * DW_INPUTS, f1 = gap_min64(f, f0 + DW_INPUTS);
    float *dw = job->ctx->dweight[0] + o0 * f + f0;
    int slot;
    float *sum = gap_scratch_take(&job->scratch, thread, &slot); /* (outputs, inputs) of the unit */
    bool keep = job->ctx->dweight_add;
    for (int k = 0; k < job->chunks; k++) {
        int64_t begin, end;
        gap_reduce_range(job->ctx->capacity, job->chunks, k, job->ctx->n, &begin, &end);
        if (begin >= end) continue; /* a short batch */
        if (!keep || end - begin <= SEGMENT) grad_segments(job, begin, end, o0, o1, f0, f1, dw, f, keep);
        else {
            grad_segments(job, begin, end, o0, o1, f0, f1, sum, f1 - f0, false);
            for (int64_t o = 0; o < o1 - o0; o++)
                job->ctx->kernels->eltwise->add((size_t)(f1 - f0), dw + o * f, sum + o * (f1 - f0), dw + o * f);
        }
        keep = true;
    }
    gap_scratch_give(&job->scratch, slot);
}

static void blas_dw(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const int64_t f = in_of(job->op), of = out_of(job->op);
    const bool keep = job->chunks == 1 && job->ctx->dweight_add;
    float *dw = job->parts + chunk * of * f;
    int64_t begin, end;
    gap_reduce_range(job->ctx->capacity, job->chunks, (int)chunk, job->ctx->n, &begin, &end);
    if (end > begin)
        job->ctx->kernels->blas->sgemm(true, false, of, f, end - begin, (const float *)job->ctx->dout + begin * of, of,
                                       job->x + begin * f, f, keep, dw, f);
    else if (!keep) memset(dw, 0, (size_t)(of * f) * 4);
}

/* blas: the chunks' partial gradients, in order. */
static void blas_dw_finish(void *arg, int64_t o, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const int64_t f = in_of(job->op), size = f * out_of(job->op);
    float *dw = job->ctx->dweight[0] + o * f, *sum = job->parts + o * f; /* (F) of output o */
    for (int k = 1; k < job->chunks; k++)
        for (int64_t i = 0; i < f; i++) sum[i] += sum[k * size + i];
    for (int64_t i = 0; i < f; i++) dw[i] = job->ctx->dweight_add ? dw[i] + sum[i] : sum[i];
}

static gap_status weight_gradient(linear_job *job) {
    gap_status st = GAP_OK;
    const linear_attr *a = GAP_ATTR_CONST(job->op, linear_attr);
    const int64_t of = out_of(job->op);
    job->x = job->ctx->in[0];
    job->chunks = grad_chunks(job->op, job->ctx->capacity);
    if (a->blas) {
        job->parts = job->chunks > 1 ? job->ctx->workspace : job->ctx->dweight[0];
        GAP_TRY(gap_parallel(job->chunks, blas_dw, job));
        if (job->chunks > 1) GAP_TRY(gap_parallel(of, blas_dw_finish, job));
    } else {
        job->n_groups = gap_ceil_div(in_of(job->op), DW_INPUTS);
        gap_scratch_begin(&job->scratch, job->ctx->workspace, grad_scratch(), a->slots);
        GAP_TRY(gap_parallel_sized(gap_ceil_div(of, DW_OUTPUTS) * job->n_groups, grad_unit, job, work_ns(job)));
    }
done:
    return st;
}

static void bias_unit(void *arg, int64_t unit, int thread) {
    (void)thread;
    const linear_job *job = arg;
    const int64_t of = out_of(job->op), o = unit * DB_OUTPUTS;
    for (int k = 0; k < job->chunks; k++) {
        int64_t begin, end;
        gap_reduce_range(job->ctx->capacity, job->chunks, k, job->ctx->n, &begin, &end);
        job->ctx->kernels->linear->columns(end - begin, gap_min64(DB_OUTPUTS, of - o), (const float *)job->ctx->dout + begin * of + o, of,
                                           job->ctx->dweight[1] + o, k > 0 || job->ctx->dweight_add);
    }
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    gap_status st = GAP_OK;
    const bool blas = GAP_ATTR_CONST(op, linear_attr)->blas;
    linear_job job = {.op = op, .ctx = ctx, .x = ctx->dout, .y = ctx->din[0], .add = ctx->din_add[0]};
    if (ctx->din[0] && blas) GAP_TRY(gap_parallel(ctx->n, blas_dx, &job));
    if (ctx->din[0] && !blas) GAP_TRY(gap_parallel_sized(cut(&job, SAMPLES, in_of(op), DX_INPUTS), input_unit, &job, work_ns(&job)));
    if (ctx->dweight[0]) GAP_TRY(weight_gradient(&job));
    if (ctx->dweight[1]) {
        job.chunks = bias_chunks(op, ctx->capacity);
        GAP_TRY(gap_parallel_sized(gap_ceil_div(out_of(op), DB_OUTPUTS), bias_unit, &job, gap_ns_of_floats(ctx->n * out_of(op))));
    }
done:
    return st;
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    snprintf(text, bytes, "%s", GAP_ATTR_CONST(op, linear_attr)->blas ? "sgemm, a sample at a time" : "direct, nothing packed");
}

static const gap_op_def linear_def = {
    .name = "linear", .backward_needs = GAP_NEED_IN0, .infer = infer, .prepare = prepare,
    .forward = forward, .backward = backward, .describe = describe,
};

gap_status gap_emit_linear(gap_oplist *list, gap_origin who, int in, int64_t out_features, int weight, int bias, int *out) {
    const linear_attr attr = {.features = out_features};
    const int weights[2] = {weight, bias};
    return gap_oplist_emit(list, &linear_def, who.name, who.id, &in, 1, 1, &attr, sizeof attr, weights, 2, out);
}

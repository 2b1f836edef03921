/* conv_blas.c — convolution in the kernel set `blas`: im2col and sgemm, an image at a time, bands of rows that fit a cache. */
#include "ops/conv_plan.h"

#include <string.h>

#define COLUMNS ((int64_t)1 << 19) /* floats of the column matrix of a band */


typedef struct {
    const conv_pass *p;
    const gap_op_ctx *ctx;
    bool has_bias, backward, want_dx, want_dw;
    int64_t in_group, out_group, k; /* channels of a group; rows of the column matrix */
    int64_t band;                   /* output rows of a band */
    int chunks;
    float *parts;                   /* (chunks, OC, C/g, kh, kw) */
    gap_scratch scratch;
} blas_job;

static int64_t depth(const conv_pass *p) { return p->in_c / p->groups * p->taps; }
static int64_t band_rows(const conv_pass *p) { return gap_min64(p->out_h, gap_max64(1, COLUMNS / (depth(p) * p->out_w))); }
static size_t weight_floats(const conv_pass *p) { return (size_t)(p->out_c * depth(p)); }
/* Two column matrices (backward needs both), and the output of a group. */
static size_t scratch_bytes(const conv_pass *p, bool training) {
    return (size_t)(band_rows(p) * p->out_w * (depth(p) * (training ? 2 : 1) + p->out_c / p->groups)) * 4;
}

size_t gap_conv_blas_bytes(const conv_pass *p, int64_t capacity, bool training, int slots) {
    size_t bytes = gap_scratch_round(scratch_bytes(p, training)) * (size_t)slots;
    if (training) bytes += gap_scratch_round((size_t)gap_reduce_chunks(capacity, weight_floats(p) * 4) * weight_floats(p) * 4);
    const size_t db = gap_conv_bias_bytes(p, capacity, slots);
    return training && db > bytes ? db : bytes;
}

/* Floats from an image's start to (channel, pixel); pixels of a channel are *step apart. */
static int64_t in_at(const conv_pass *p, int64_t c, int64_t *step) {
    *step = p->lanes;
    return p->lanes == 16 ? c / 16 * p->in_h * p->in_w * 16 + c % 16 : c;
}

/* Calls DO(column index, image float index) for each element of the column matrix that lies inside the image. */
#define EACH_COLUMN(job, g, i0, i1, OUTSIDE, INSIDE)                                                                       \
    const conv_pass *p = (job)->p;                                                                                         \
    const int64_t pixels = ((i1) - (i0)) * p->out_w;                                                                       \
    for (int64_t row = 0; row < (job)->k; row++) {                                                                         \
        const int64_t kw = row % p->kernel[1], kh = row / p->kernel[1] % p->kernel[0];                                     \
        int64_t step;                                                                                                      \
        const int64_t start = in_at(p, (g) * (job)->in_group + row / p->taps, &step);                                      \
        for (int64_t i = (i0); i < (i1); i++) {                                                                            \
            const int64_t h = i * p->stride[0] - p->pad[0] + kh * p->dilation[0];                                          \
            for (int64_t j = 0; j < p->out_w; j++) {                                                                       \
                const int64_t w = j * p->stride[1] - p->pad[1] + kw * p->dilation[1], at = row * pixels + (i - (i0)) * p->out_w + j; \
                if (h < 0 || h >= p->in_h || w < 0 || w >= p->in_w) { OUTSIDE; }                                           \
                else { const int64_t from = start + (h * p->in_w + w) * step; INSIDE; }                                    \
            }                                                                                                              \
        }                                                                                                                  \
    }

static void im2col(const blas_job *job, int64_t g, int64_t i0, int64_t i1, const float *x, float *col) {
    EACH_COLUMN(job, g, i0, i1, col[at] = 0.0f, col[at] = x[from])
}

static void col2im(const blas_job *job, int64_t g, int64_t i0, int64_t i1, const float *col, float *dx) {
    EACH_COLUMN(job, g, i0, i1, (void)at, dx[from] += col[at])
}

/* Rows [i0, i1) of a group's output channels, between the blocked image and a plain (channels, pixels) matrix. */
static void gather(const blas_job *job, int64_t g, int64_t i0, int64_t i1, const float *y, float *flat) {
    const conv_pass *p = job->p;
    const int64_t pixels = (i1 - i0) * p->out_w, plane = p->out_h * p->out_w * 16;
    for (int64_t o = 0; o < job->out_group; o++) {
        const int64_t c = g * job->out_group + o;
        const float *from = y + c / 16 * plane + i0 * p->out_w * 16 + c % 16;
        for (int64_t k = 0; k < pixels; k++) flat[o * pixels + k] = from[16 * k];
    }
}

static void scatter(const blas_job *job, int64_t g, int64_t i0, int64_t i1, const float *flat, float *y) {
    const conv_pass *p = job->p;
    const int64_t pixels = (i1 - i0) * p->out_w, plane = p->out_h * p->out_w * 16;
    for (int64_t o = 0; o < job->out_group; o++) {
        const int64_t c = g * job->out_group + o;
        const float bias = job->has_bias ? job->ctx->weight[1][c] : 0.0f;
        float *to = y + c / 16 * plane + i0 * p->out_w * 16 + c % 16;
        for (int64_t k = 0; k < pixels; k++) to[16 * k] = flat[o * pixels + k] + bias;
    }
}

static void forward_image(void *arg, int64_t n, int thread) {
    blas_job *job = arg;
    const conv_pass *p = job->p;
    const float *x = (const float *)job->ctx->in[0] + n * p->in_blocks * p->in_h * p->in_w * p->lanes;
    const int64_t image = p->out_blocks * p->out_h * p->out_w * 16;
    float *y = (float *)job->ctx->out[0] + n * image;
    int slot;
    float *col = gap_scratch_take(&job->scratch, thread, &slot), *flat = col + job->k * job->band * p->out_w;
    if (p->out_c % 16) memset(y + image - p->out_h * p->out_w * 16, 0, (size_t)(p->out_h * p->out_w * 16) * sizeof *y);
    for (int64_t g = 0; g < p->groups; g++)
        for (int64_t i0 = 0, i1; i0 < p->out_h; i0 = i1) {
            i1 = gap_min64(p->out_h, i0 + job->band);
            const int64_t pixels = (i1 - i0) * p->out_w;
            im2col(job, g, i0, i1, x, col);
            job->ctx->kernels->blas->sgemm(false, false, job->out_group, pixels, job->k, job->ctx->weight[0] + g * job->out_group * job->k,
                                           job->k, col, pixels, false, flat, pixels);
            scatter(job, g, i0, i1, flat, y);
        }
    gap_scratch_give(&job->scratch, slot);
}

/* One image's gradients: dx is written, dw added to `part`. */
static void backward_one(const blas_job *job, int64_t n, float *part, float *col) {
    const conv_pass *p = job->p;
    const gap_op_ctx *ctx = job->ctx;
    const int64_t in_image = p->in_blocks * p->in_h * p->in_w * p->lanes;
    const float *x = (const float *)ctx->in[0] + n * in_image;
    const float *dy = (const float *)ctx->dout + n * p->out_blocks * p->out_h * p->out_w * 16;
    float *dx = job->want_dx ? (float *)ctx->din[0] + n * in_image : NULL;
    float *dcol = col + job->k * job->band * p->out_w, *flat = dcol + job->k * job->band * p->out_w;
    if (dx && !ctx->din_add[0]) memset(dx, 0, (size_t)in_image * sizeof *dx);
    for (int64_t g = 0; g < p->groups; g++)
        for (int64_t i0 = 0, i1; i0 < p->out_h; i0 = i1) {
            i1 = gap_min64(p->out_h, i0 + job->band);
            const int64_t pixels = (i1 - i0) * p->out_w, w = g * job->out_group * job->k;
            gather(job, g, i0, i1, dy, flat);
            if (dx) {
                ctx->kernels->blas->sgemm(true, false, job->k, pixels, job->out_group, ctx->weight[0] + w, job->k, flat, pixels,
                                          false, dcol, pixels);
                col2im(job, g, i0, i1, dcol, dx);
            }
            if (!job->want_dw) continue;
            im2col(job, g, i0, i1, x, col);
            ctx->kernels->blas->sgemm(false, true, job->out_group, job->k, pixels, flat, pixels, col, pixels, true, part + w, job->k);
        }
}

static void backward_chunk(void *arg, int64_t chunk, int thread) {
    blas_job *job = arg;
    int64_t begin, end;
    int slot;
    float *part = job->parts + (size_t)chunk * weight_floats(job->p);
    gap_reduce_range(job->ctx->capacity, job->chunks, (int)chunk, job->ctx->n, &begin, &end);
    float *col = gap_scratch_take(&job->scratch, thread, &slot);
    if (job->want_dw) memset(part, 0, weight_floats(job->p) * sizeof *part);
    for (int64_t n = begin; n < end; n++) backward_one(job, n, part, col);
    gap_scratch_give(&job->scratch, slot);
}

static void add_chunks(void *arg, int64_t o, int thread) {
    (void)thread;
    const blas_job *job = arg;
    const int64_t row = depth(job->p);
    float *dw = job->ctx->dweight[0] + o * row; /* (C/g, kh, kw) of output channel o */
    for (int64_t i = 0; i < row; i++) {
        const float *part = job->parts + o * row + i;
        float sum = part[0];
        for (int k = 1; k < job->chunks; k++) sum += part[(size_t)k * weight_floats(job->p)];
        dw[i] = job->ctx->dweight_add ? dw[i] + sum : sum;
    }
}

static void begin(blas_job *job, const conv_pass *p, const gap_op_ctx *ctx, bool training, int slots) {
    job->p = p, job->ctx = ctx;
    job->in_group = p->in_c / p->groups, job->out_group = p->out_c / p->groups, job->k = depth(p), job->band = band_rows(p);
    const size_t bytes = scratch_bytes(p, training);
    gap_scratch_begin(&job->scratch, ctx->workspace, bytes, slots);
    job->parts = (float *)(void *)((unsigned char *)ctx->workspace + gap_scratch_round(bytes) * (size_t)slots);
    job->chunks = gap_reduce_chunks(ctx->capacity, weight_floats(p) * 4);
}

gap_status gap_conv_blas_forward(const conv_pass *p, const gap_op_ctx *ctx, bool has_bias, int slots) {
    blas_job job = {.has_bias = has_bias};
    begin(&job, p, ctx, false, slots);
    return gap_parallel(ctx->n, forward_image, &job);
}

gap_status gap_conv_blas_backward(const conv_pass *p, const gap_op_ctx *ctx, int slots) {
    gap_status st = GAP_OK;
    blas_job job = {.want_dx = ctx->din[0] != NULL, .want_dw = ctx->dweight[0] != NULL};
    begin(&job, p, ctx, true, slots);
    GAP_TRY(gap_parallel(job.chunks, backward_chunk, &job));
    if (job.want_dw) GAP_TRY(gap_parallel(p->out_c, add_chunks, &job));
    const gap_source dy = {.x = ctx->dout, .plane = p->out_h * p->out_w * 16, .blocks = p->out_blocks};
    if (ctx->dweight[1]) GAP_TRY(gap_conv_bias(p, ctx, &dy, slots));
done:
    return st;
}

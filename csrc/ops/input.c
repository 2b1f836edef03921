#include <stdio.h>
#include <string.h>

#include "core/shape.h"
#include "core/threads.h"
#include "ops/cut.h"
#include "ops/ops.h"
#include "ops/plane.h"

/* Bytes have 256 values: what each becomes stands in a table of derived_bytes, (channels of attr or 1, 256), made with the
 * kernels' fma, so that a byte image and the same image as floats through fma(x, a, b) get the same bits. */
#define LEVELS 256

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    gap_cut cut; /* of planes */
} job;

void gap_input_of_byte(const gap_input_attr *a, int64_t channel, float *scale, float *shift) {
    *scale = a->n == 0 ? (float)(1.0 / 255.0) : channel < a->n ? a->a[channel] : 0.0f;
    *shift = channel < a->n ? a->b[channel] : 0.0f;
}

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    const gap_input_attr *a = GAP_ATTR_CONST(op, gap_input_attr);
    char text[96];
    bool bytes = in[0].dtype == GAP_U8 && in[0].layout == GAP_NHWC, floats = in[0].dtype == GAP_F32 && in[0].layout == GAP_PLAIN;
    if (!(bytes || floats) || in[0].ndim != 3)
        return gap_fail(GAP_ERR_SHAPE, "input: must be uint8 (H, W, C) or float32 (C, H, W), got %s", gap_desc_text(&in[0], text));
    if (a->n != 0 && a->n != in[0].dim[0])
        return gap_fail(GAP_ERR_SHAPE, "input: mean and std must have one number per channel, %lld, got %d", (long long)in[0].dim[0], a->n);
    out[0] = gap_desc_image(in[0].dim[0], in[0].dim[1], in[0].dim[2]);
    return GAP_OK;
}

static gap_status prepare(gap_op *op, const gap_op_env *env) {
    (void)env;
    int n = GAP_ATTR_CONST(op, gap_input_attr)->n;
    if (op->in_desc[0].dtype == GAP_U8) op->derived_bytes = (size_t)(n > 0 ? n : 1) * LEVELS * sizeof(float);
    return GAP_OK;
}

static void derive_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread, (void)chunk;
    const job *j = arg;
    const gap_input_attr *a = GAP_ATTR_CONST(j->op, gap_input_attr);
    float level[LEVELS][16], scale[16], shift[16];
    float *table = j->ctx->derived; /* (n or 1, 256) */
    for (int l = 0; l < 16; l++) {
        gap_input_of_byte(a, l, &scale[l], &shift[l]);
        for (int v = 0; v < LEVELS; v++) level[v][l] = (float)v;
    }
    j->ctx->kernels->norm->affine(LEVELS, level[0], scale, shift, level[0]);
    for (int l = 0; l < (a->n > 0 ? a->n : 1); l++)
        for (int v = 0; v < LEVELS; v++) table[l * LEVELS + v] = level[v][l];
}

static gap_status derive(const gap_op *op, const gap_op_ctx *ctx) {
    job j = {.op = op, .ctx = ctx};
    return op->in_desc[0].dtype == GAP_U8 ? gap_parallel(1, derive_chunk, &j) : GAP_OK;
}

static void bytes_plane(const job *j, int64_t s, int64_t b, float *y) {
    const gap_desc *d = &j->op->in_desc[0];
    int64_t channels = d->dim[0], pixels = d->dim[1] * d->dim[2], first = b * 16;
    int64_t lanes = channels - first < 16 ? channels - first : 16, step = GAP_ATTR_CONST(j->op, gap_input_attr)->n > 0 ? LEVELS : 0;
    const uint8_t *x = (const uint8_t *)j->ctx->in[0] + s * channels * pixels + first; /* (H*W, C) from channel `first` */
    const float *table = (const float *)j->ctx->derived + first * step;                /* (lanes or 1, 256) */
    memset(y, 0, (size_t)(pixels * 16) * sizeof *y);
    if (lanes == 3) { /* photographs: worth a loop without a variable bound */
        for (int64_t p = 0; p < pixels; p++, x += channels, y += 16)
            y[0] = table[x[0]], y[1] = table[step + x[1]], y[2] = table[2 * step + x[2]];
        return;
    }
    for (int64_t p = 0; p < pixels; p++, x += channels, y += 16)
        for (int64_t l = 0; l < lanes; l++) y[l] = table[l * step + x[l]];
}

static void floats_plane(const job *j, int64_t s, int64_t b, float *y) {
    const gap_desc *d = &j->op->in_desc[0];
    const gap_input_attr *a = GAP_ATTR_CONST(j->op, gap_input_attr);
    int64_t channels = d->dim[0], pixels = d->dim[1] * d->dim[2], first = b * 16;
    int64_t lanes = channels - first < 16 ? channels - first : 16;
    const float *x = (const float *)j->ctx->in[0] + (s * channels + first) * pixels; /* (lanes, H*W) */
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t l = 0; l < 16; l++) y[p * 16 + l] = l < lanes ? x[l * pixels + p] : 0.0f;
    if (a->n == 0) return;
    float scale[16] = {0}, shift[16] = {0};
    memcpy(scale, a->a + first, (size_t)lanes * sizeof *scale);
    memcpy(shift, a->b + first, (size_t)lanes * sizeof *shift);
    j->ctx->kernels->norm->affine((size_t)pixels, y, scale, shift, y);
}

/* ---- pixels (H, W, C), for a first convolution that reads them so (fusion's rule `pixels`) ---- */

#define PIXEL_RUN 256 /* pixels at a time */

static void bytes_pixels(const job *j, int64_t s, float *y) {
    const gap_desc *d = &j->op->out_desc[0];
    const int64_t channels = d->dim[0], count = gap_desc_count(d), step = GAP_ATTR_CONST(j->op, gap_input_attr)->n > 0 ? LEVELS : 0;
    const uint8_t *x = (const uint8_t *)j->ctx->in[0] + s * count; /* (H*W, C) */
    const float *table = j->ctx->derived;                          /* (C or 1, 256) */
    if (channels == 3) {
        for (int64_t k = 0; k < count; k += 3)
            y[k] = table[x[k]], y[k + 1] = table[step + x[k + 1]], y[k + 2] = table[2 * step + x[k + 2]];
        return;
    }
    for (int64_t k = 0; k < count; k += channels)
        for (int64_t c = 0; c < channels; c++) y[k + c] = table[c * step + x[k + c]];
}

/* Channel c of pixels [p, p + n) of a sample, normalised. */
static void floats_run(const job *j, const float *x, int64_t c, int64_t p, int64_t n, float run[PIXEL_RUN]) {
    const gap_input_attr *a = GAP_ATTR_CONST(j->op, gap_input_attr);
    const gap_desc *d = &j->op->out_desc[0];
    float scale[16], shift[16];
    memcpy(run, x + c * d->dim[1] * d->dim[2] + p, (size_t)n * sizeof *run);
    memset(run + n, 0, (size_t)(PIXEL_RUN - n) * sizeof *run);
    if (a->n == 0) return;
    for (int l = 0; l < 16; l++) scale[l] = a->a[c], shift[l] = a->b[c];
    j->ctx->kernels->norm->affine((size_t)gap_ceil_div(n, 16), run, scale, shift, run);
}

static void floats_pixels(const job *j, int64_t s, float *y) {
    const gap_desc *d = &j->op->out_desc[0];
    const int64_t channels = d->dim[0], pixels = d->dim[1] * d->dim[2];
    const float *x = (const float *)j->ctx->in[0] + s * channels * pixels; /* (C, H*W) */
    float run[GAP_PIXEL_CHANNELS][PIXEL_RUN];
    for (int64_t p = 0; p < pixels; p += PIXEL_RUN, y += PIXEL_RUN * channels) {
        const int64_t n = gap_min64(PIXEL_RUN, pixels - p);
        for (int64_t c = 0; c < channels; c++) floats_run(j, x, c, p, n, run[c]);
        if (channels == 3) {
            for (int64_t k = 0; k < n; k++) y[3 * k] = run[0][k], y[3 * k + 1] = run[1][k], y[3 * k + 2] = run[2][k];
            continue;
        }
        for (int64_t k = 0; k < n; k++)
            for (int64_t c = 0; c < channels; c++) y[k * channels + c] = run[c][k];
    }
}

static void pixels_chunk(void *arg, int64_t s, int thread) {
    (void)thread;
    const job *j = arg;
    float *y = (float *)j->ctx->out[0] + s * gap_desc_count(&j->op->out_desc[0]); /* (H, W, C) */
    if (j->op->in_desc[0].dtype == GAP_U8) bytes_pixels(j, s, y);
    else floats_pixels(j, s, y);
}

static void forward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->out_desc[0];
    int64_t blocks = gap_desc_blocks(d), plane = gap_plane_floats(d);
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        float *y = (float *)j->ctx->out[0] + u * plane; /* (H, W, 16) */
        if (j->op->in_desc[0].dtype == GAP_U8) bytes_plane(j, u / blocks, u % blocks, y);
        else floats_plane(j, u / blocks, u % blocks, y);
    }
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_desc *d = &op->out_desc[0];
    job j = {.op = op, .ctx = ctx};
    if (d->layout == GAP_NHWC) return gap_parallel(ctx->n, pixels_chunk, &j);
    j.cut = gap_cut_of(ctx->n * gap_desc_blocks(d), gap_plane_floats(d));
    return gap_parallel(gap_cut_chunks(j.cut), forward_chunk, &j);
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    snprintf(text, bytes, "%s%s, %s", op->in_desc[0].dtype == GAP_U8 ? "uint8 by table" : "float32",
             op->out_desc[0].layout == GAP_NHWC ? " to pixels" : "",
             GAP_ATTR_CONST(op, gap_input_attr)->n > 0 ? "normalised" : "as it is");
}

const gap_op_def gap_op_input = {
    .name = "input", .infer = infer, .prepare = prepare, .derive = derive, .forward = forward, .describe = describe,
};

gap_status gap_emit_input(gap_oplist *list, int in, const gap_input_attr *attr, int *out) {
    if (in >= 0 && in < list->n_values && list->value[in].ndim == 1 && list->value[in].dtype == GAP_F32) {
        *out = in;
        return GAP_OK;
    }
    return gap_oplist_emit(list, &gap_op_input, "input", 0, &in, 1, 1, attr, sizeof *attr, NULL, 0, out);
}

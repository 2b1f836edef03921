#include <stdio.h>
#include <string.h>

#include "core/threads.h"
#include "ops/cut.h"
#include "ops/ops.h"
#include "ops/plane.h"

#define STRETCH 256 /* pixels of a block drawn at once: the table stays in the first cache */

typedef struct { double p; } dropout_attr;

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    gap_cut cut;        /* of planes, or samples of plain values */
    uint32_t threshold; /* kept: 24-bit draws from here on */
    float scale;
    const float *from;
    float *to;
    bool add;
} job;

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    double p = GAP_ATTR_CONST(op, dropout_attr)->p;
    if (!(p >= 0 && p < 1)) return gap_fail(GAP_ERR_VALUE, "dropout: p must be in [0, 1), got %g", p);
    out[0] = in[0];
    return GAP_OK;
}

/* keep[k * step] = 1 where element first + k of a sample is kept, else 0. */
static void draw(const job *j, const gap_rng *place, int64_t first, int64_t n, int64_t step, uint8_t *keep) {
    uint32_t word[4];
    for (int64_t k = 0; k < n; k++) {
        int64_t e = first + k;
        if (k == 0 || e % 4 == 0) gap_rng_block(place, (uint32_t)(e / 4), word);
        keep[k * step] = (word[e % 4] >> 8) >= j->threshold;
    }
}

/* to (+)= from * (kept ? scale : 0) */
static void apply(const job *j, int64_t n, const uint8_t *keep, const float *from, float *to) {
    const float scale = j->scale;
    if (j->add)
        for (int64_t k = 0; k < n; k++) to[k] += keep[k] ? from[k] * scale : 0.0f;
    else
        for (int64_t k = 0; k < n; k++) to[k] = keep[k] ? from[k] * scale : 0.0f;
}

static gap_rng place_of(const job *j, int64_t s) {
    gap_rng r = {.seed = j->ctx->seed, .stream = GAP_STREAM_DROPOUT, .epoch = (uint32_t)j->ctx->epoch,
                 .sample = (uint32_t)j->ctx->ids[s], .op = (uint32_t)j->op->layer_id};
    return r;
}

/* Draws follow channels, memory follows pixels: a stretch of pixels is drawn channel by channel into a small table first. */
static void drop_planes(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_desc *d = &j->op->out_desc[0];
    int64_t blocks = gap_desc_blocks(d), pixels = gap_plane_pixels(d), plane = gap_plane_floats(d);
    uint8_t keep[STRETCH * 16]; /* (pixels, 16) */
    for (int64_t u = gap_cut_begin(j->cut, chunk); u < gap_cut_end(j->cut, chunk); u++) {
        int64_t s = u / blocks, c = u % blocks * 16, lanes = d->dim[0] - c < 16 ? d->dim[0] - c : 16;
        gap_rng place = place_of(j, s);
        for (int64_t l = lanes; l < 16; l++) /* padding channels are never kept */
            for (int64_t p = 0; p < STRETCH; p++) keep[p * 16 + l] = 0;
        for (int64_t begin = 0; begin < pixels; begin += STRETCH) {
            int64_t n = pixels - begin < STRETCH ? pixels - begin : STRETCH, at = u * plane + begin * 16;
            for (int64_t l = 0; l < lanes; l++) draw(j, &place, (c + l) * pixels + begin, n, 16, keep + l);
            apply(j, n * 16, keep, j->from + at, j->to + at);
        }
    }
}

static void drop_samples(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    int64_t count = gap_desc_count(&j->op->out_desc[0]);
    uint8_t keep[STRETCH * 16];
    for (int64_t s = gap_cut_begin(j->cut, chunk); s < gap_cut_end(j->cut, chunk); s++) {
        gap_rng place = place_of(j, s);
        for (int64_t begin = 0; begin < count; begin += STRETCH * 16) {
            int64_t n = count - begin < STRETCH * 16 ? count - begin : STRETCH * 16, at = s * count + begin;
            draw(j, &place, begin, n, 1, keep);
            apply(j, n, keep, j->from + at, j->to + at);
        }
    }
}

static gap_status run(const gap_op *op, const gap_op_ctx *ctx, const float *from, float *to, bool add) {
    const gap_desc *d = &op->out_desc[0];
    double p = GAP_ATTR_CONST(op, dropout_attr)->p;
    bool blocked = d->layout == GAP_BLOCKED;
    job j = {.op = op, .ctx = ctx, .from = from, .to = to, .add = add};
    j.cut = blocked ? gap_cut_of(ctx->n * gap_desc_blocks(d), gap_plane_floats(d)) : gap_cut_of(ctx->n, gap_desc_count(d));
    j.threshold = (uint32_t)(p * 16777216.0 + 0.5);
    j.scale = (float)(1.0 / (1.0 - p));
    return gap_parallel(gap_cut_chunks(j.cut), blocked ? drop_planes : drop_samples, &j);
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) { return run(op, ctx, ctx->in[0], ctx->out[0], false); }

/* The same draws again: no mask is kept. */
static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    return ctx->din[0] == NULL ? GAP_OK : run(op, ctx, ctx->dout, ctx->din[0], ctx->din_add[0]);
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    snprintf(text, bytes, "p = %g, drawn again in backward", GAP_ATTR_CONST(op, dropout_attr)->p);
}

static const gap_op_def def = {
    .name = "dropout", .inplace_ok = true, .infer = infer, .forward = forward, .backward = backward, .describe = describe,
};

gap_status gap_emit_dropout(gap_oplist *list, gap_origin who, int in, double p, int *out) {
    dropout_attr attr = {p};
    return gap_oplist_emit(list, &def, who.name, who.id, &in, 1, 1, &attr, sizeof attr, NULL, 0, out);
}

#include <stdio.h>
#include <string.h>

#include "core/threads.h"
#include "ops/ops.h"
#include "ops/plane.h"

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
} job;

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    char a[96], b[96];
    int64_t total = 0;
    if (op->n_in < 2) return gap_fail(GAP_ERR_SHAPE, "concat: takes 2 to %d inputs, got %d", GAP_OP_MAX_IN, op->n_in);
    for (int k = 0; k < op->n_in; k++) {
        gap_desc like = in[0];
        like.dim[0] = in[k].dim[0];
        if (!gap_desc_equal(&like, &in[k]))
            return gap_fail(GAP_ERR_SHAPE, "concat: inputs must agree in all but their first size, got %s and %s",
                            gap_desc_text(&in[0], a), gap_desc_text(&in[k], b));
        total += in[k].dim[0];
    }
    out[0] = in[0].layout == GAP_BLOCKED ? gap_desc_image(total, in[0].dim[1], in[0].dim[2]) : gap_desc_vector(total);
    return GAP_OK;
}

/* Inputs that stand in the output already, a bit each: their producers write them there, and find their gradients there. */
typedef struct { unsigned slices; } concat_attr;

static bool stands(const gap_op *op, int k) { return GAP_ATTR_CONST(op, concat_attr)->slices >> k & 1; }

/* The part that channels [first, first + d->dim[0]) of the whole have in one sample: runs of lanes that are neighbours in both.
 * Block `b` of the part, from lane `lane` on, goes to block `whole_b` of the whole, from lane `whole_lane` on. */
typedef struct { int64_t b, lane, whole_b, whole_lane, count; } run;

static bool next_run(const gap_desc *d, int64_t first, int64_t *channel, run *r) {
    int64_t c = *channel, cb = d->cb;
    if (c >= d->dim[0]) return false;
    r->b = c / cb, r->lane = c % cb;
    r->whole_b = (first + c) / cb, r->whole_lane = (first + c) % cb;
    r->count = cb - (r->lane > r->whole_lane ? r->lane : r->whole_lane);
    if (r->count > d->dim[0] - c) r->count = d->dim[0] - c;
    *channel = c + r->count;
    return true;
}

static void copy_lanes(int64_t pixels, int64_t cb, int64_t count, const float *from, float *to, bool add) {
    if (count == cb && !add) {
        memcpy(to, from, (size_t)(pixels * cb) * sizeof *to);
        return;
    }
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t l = 0; l < count; l++) to[p * cb + l] = add ? to[p * cb + l] + from[p * cb + l] : from[p * cb + l];
}

static void forward_images(const job *j, int64_t s) {
    const gap_desc *whole = &j->op->out_desc[0];
    int64_t plane = gap_plane_floats(whole), pixels = gap_plane_pixels(whole), first = 0;
    float *y = (float *)j->ctx->out[0] + s * gap_desc_stored(whole); /* (CB, H, W, cb) */
    gap_pad_clear(whole, y);
    for (int k = 0; k < j->op->n_in; k++) {
        const gap_desc *d = &j->op->in_desc[k];
        if (stands(j->op, k)) {
            first += d->dim[0];
            continue;
        }
        const float *x = (const float *)j->ctx->in[k] + s * gap_desc_stored(d); /* (CBk, H, W, cb) */
        run r;
        for (int64_t c = 0; next_run(d, first, &c, &r);)
            copy_lanes(pixels, d->cb, r.count, x + r.b * plane + r.lane, y + r.whole_b * plane + r.whole_lane, false);
        first += d->dim[0];
    }
}

static bool adds(const gap_op_ctx *c, int k) { /* an input that stands there twice gets both parts */
    for (int i = 0; i < k; i++)
        if (c->din[i] == c->din[k]) return true;
    return c->din_add[k];
}

static void backward_images(const job *j, int64_t s) {
    const gap_desc *whole = &j->op->out_desc[0];
    int64_t plane = gap_plane_floats(whole), pixels = gap_plane_pixels(whole), first = 0;
    const float *dy = (const float *)j->ctx->dout + s * gap_desc_stored(whole); /* (CB, H, W, cb) */
    for (int k = 0; k < j->op->n_in; k++) {
        const gap_desc *d = &j->op->in_desc[k];
        if (j->ctx->din[k] != NULL && !stands(j->op, k)) {
            float *dx = (float *)j->ctx->din[k] + s * gap_desc_stored(d); /* (CBk, H, W, cb) */
            bool add = adds(j->ctx, k);
            if (!add) gap_pad_clear(d, dx);
            run r;
            for (int64_t c = 0; next_run(d, first, &c, &r);)
                copy_lanes(pixels, d->cb, r.count, dy + r.whole_b * plane + r.whole_lane, dx + r.b * plane + r.lane, add);
        }
        first += d->dim[0];
    }
}

static void forward_sample(void *arg, int64_t s, int thread) {
    (void)thread;
    const job *j = arg;
    if (j->op->out_desc[0].layout == GAP_BLOCKED) {
        forward_images(j, s);
        return;
    }
    float *y = (float *)j->ctx->out[0] + s * j->op->out_desc[0].dim[0]; /* (F) */
    for (int k = 0; k < j->op->n_in; k++) {
        int64_t n = j->op->in_desc[k].dim[0];
        memcpy(y, (const float *)j->ctx->in[k] + s * n, (size_t)n * sizeof *y);
        y += n;
    }
}

static void backward_sample(void *arg, int64_t s, int thread) {
    (void)thread;
    const job *j = arg;
    if (j->op->out_desc[0].layout == GAP_BLOCKED) {
        backward_images(j, s);
        return;
    }
    const float *dy = (const float *)j->ctx->dout + s * j->op->out_desc[0].dim[0]; /* (F) */
    for (int k = 0; k < j->op->n_in; k++) {
        int64_t n = j->op->in_desc[k].dim[0];
        if (j->ctx->din[k] != NULL)
            j->ctx->kernels->eltwise->copy((size_t)n, dy, (float *)j->ctx->din[k] + s * n, adds(j->ctx, k));
        dy += n;
    }
}

static bool all_stand(const gap_op *op) { return GAP_ATTR_CONST(op, concat_attr)->slices == (1u << op->n_in) - 1; }

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = {op, ctx};
    if (all_stand(op)) return GAP_OK;
    return gap_parallel(ctx->n, forward_sample, &j);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = {op, ctx};
    if (all_stand(op)) return GAP_OK;
    return gap_parallel(ctx->n, backward_sample, &j);
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    bool whole = true;
    int there = 0;
    for (int k = 0; k + 1 < op->n_in; k++) whole = whole && gap_pad_channels(&op->in_desc[k]) == 0;
    for (int k = 0; k < op->n_in; k++) there += stands(op, k);
    snprintf(text, bytes, "%d inputs, %d of them made in their place; %s", op->n_in, there, whole ? "whole blocks" : "lanes are shifted");
}

static const gap_op_def def = {.name = "concat", .infer = infer, .forward = forward, .backward = backward, .describe = describe};

gap_status gap_emit_concat(gap_oplist *list, gap_origin who, const int *in, int n_in, int *out) {
    return gap_oplist_emit(list, &def, who.name, who.id, in, n_in, 1, NULL, 0, NULL, 0, out);
}

bool gap_op_is_concat(const gap_op *op) { return op->def == &def; }

int64_t gap_concat_slice(const gap_op *op, int k) {
    if (op->def != &def || !stands(op, k)) return -1;
    int64_t floats = 0;
    for (int i = 0; i < k; i++) floats += gap_desc_stored(&op->in_desc[i]);
    return floats;
}

bool gap_concat_make_slice(gap_op *op, int k) {
    const gap_desc *whole = &op->out_desc[0];
    if (whole->layout != GAP_BLOCKED) return false;
    for (int i = 0; i <= k; i++)
        if (gap_pad_channels(&op->in_desc[i]) > 0) return false;
    GAP_ATTR(op, concat_attr)->slices |= 1u << k;
    op->in_desc[k].skip = gap_desc_stored(whole) - gap_desc_stored(&op->in_desc[k]);
    return true;
}

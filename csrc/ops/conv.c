#include "ops/conv_plan.h"

#include <stdio.h>
#include <string.h>

#include "core/shape.h"
#include "ops/norm.h"

/* attr->plan[]: what prepare settled */
enum { PLAN_SLOTS, PLAN_TRAINING, PLAN_BLAS, PLAN_CHUNKS };

static int64_t modulo(int64_t a, int64_t b) { return ((a % b) + b) % b; }

int64_t gap_conv_chain(int64_t terms) { return terms > 0 && terms < CONV_CHAIN ? CONV_CHAIN / terms : 1; }

int64_t gap_conv_lo(const conv_pass *p, int64_t o) {
    if (p->depthwise) return o;
    if (p->lanes != 16) return 0;
    const int64_t group = o * 16 / (p->out_c / p->groups);
    return gap_min64(group * (p->in_c / p->groups) / 16, p->in_blocks - p->range);
}

/* Input blocks from the first to the last channel that feeds output block o. */
static int64_t reach(const conv_pass *p, int64_t o) {
    const int64_t per_out = p->out_c / p->groups, per_in = p->in_c / p->groups;
    const int64_t last = gap_min64(p->out_c, o * 16 + 16) - 1;
    return ((last / per_out + 1) * per_in - 1) / 16 - o * 16 / per_out * per_in / 16 + 1;
}

bool gap_conv_tap(const conv_pass *p, int axis, int64_t phase, int64_t k, int64_t *offset) {
    if (!p->backward) {
        *offset = k * p->dilation[axis] - p->pad[axis];
        return true;
    }
    const int64_t v = phase + p->pad[axis] - k * p->dilation[axis];
    if (modulo(v, p->stride[axis])) return false;
    *offset = v / p->stride[axis];
    return true;
}

/* Sizes, offsets and packing: everything that the sums depend on. */
static void pass_shape(conv_pass *p, const gap_op *op, bool backward) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    const gap_desc *x = &op->in_desc[0], *y = &op->out_desc[0], *in = backward ? y : x, *out = backward ? x : y;
    memset(p, 0, sizeof *p);
    p->backward = backward;
    p->groups = a->groups;
    p->lanes = in->layout == GAP_NHWC ? in->dim[0] : 16;
    p->depthwise = a->groups == x->dim[0] && a->groups == a->out_channels && x->layout == GAP_BLOCKED;
    p->in_c = in->dim[0], p->in_h = in->dim[1], p->in_w = in->dim[2];
    p->out_c = out->dim[0], p->out_h = out->dim[1], p->out_w = out->dim[2];
    p->in_blocks = p->lanes == 16 ? gap_ceil_div(p->in_c, 16) : 1, p->out_blocks = gap_ceil_div(p->out_c, 16);
    p->taps = a->kernel[0] * a->kernel[1];
    for (int k = 0; k < 2; k++) {
        p->kernel[k] = a->kernel[k], p->pad[k] = a->padding[k], p->dilation[k] = a->dilation[k], p->stride[k] = a->stride[k];
        p->in_step[k] = backward ? 1 : a->stride[k], p->out_step[k] = backward ? a->stride[k] : 1;
        p->count[k] = gap_ceil_div(k ? p->out_w : p->out_h, p->out_step[k]);
        for (int64_t t = 0; t < p->kernel[k]; t++) {
            const int64_t phase = backward ? modulo(t * p->dilation[k] - p->pad[k], p->stride[k]) : 0;
            int64_t at = 0;
            gap_conv_tap(p, k, phase, t, &at);
            p->first[k] = t ? gap_min64(p->first[k], at) : at, p->last[k] = t ? gap_max64(p->last[k], at) : at;
        }
    }
    const bool run = p->lanes != 16 && p->dilation[1] == 1; /* kw*C neighbouring floats of an image row are one entry */
    p->entries = run ? p->kernel[0] : p->taps;
    p->run = p->lanes == 16 ? 16 : run ? p->kernel[1] * p->lanes : p->lanes;
    p->range = 1;
    if (!p->depthwise && p->lanes == 16)
        for (int64_t o = 0; o < p->out_blocks; o++) p->range = gap_max64(p->range, reach(p, o));
    p->w_oc = p->depthwise ? p->taps * 16 : p->range * p->entries * p->run * 16;
}

/* A 1x1 kernel at stride 1 without padding: the plane is one row. A function of shape alone, as sums depend on it. */
static void flatten(conv_pass *p) {
    p->flat = !p->depthwise && p->taps == 1 && p->stride[0] == 1 && p->stride[1] == 1 && p->in_h == p->out_h && p->in_w == p->out_w;
    if (!p->flat) return;
    p->in_w *= p->in_h, p->in_h = 1, p->out_w *= p->out_h, p->out_h = 1;
    p->count[1] *= p->count[0], p->count[0] = 1;
}

static int64_t common_divisor(int64_t a, int64_t b) { return b ? common_divisor(b, a % b) : a; }

/* The largest multiple of `step` that is at most `most`; one step at least, `all` at most. */
static int64_t whole_steps(int64_t most, int64_t step, int64_t all) { return gap_min64(all, gap_max64(1, most / step) * step); }

/* Cuts the work into units that fit a cache, are many enough for the threads, and cover whole pieces of the output. */
static void pass_units(conv_pass *p, int64_t capacity, bool packed) {
    const bool inside_h = p->first[0] >= 0 && (p->count[0] - 1) * p->in_step[0] + p->last[0] < p->in_h;
    const bool inside_w = p->first[1] >= 0 && (p->count[1] - 1) * p->in_step[1] + p->last[1] < p->in_w;
    const int64_t piece_rows = gap_piece_rows(p->out_h, p->out_w);
    p->piece = piece_rows * p->out_w;
    p->direct = inside_h && inside_w && !packed;
    flatten(p);
    p->cols = p->direct ? p->in_w : (p->count[1] - 1) * p->in_step[1] + p->last[1] - p->first[1] + 1;
    for (int k = 0; k < 2; k++) p->origin[k] = p->direct ? 0 : p->first[k];
    const int64_t blocks = p->depthwise ? 1 : p->in_blocks;
    const int64_t budget = (int64_t)CONV_SCRATCH / (p->depthwise ? 4 : 1);
    const int64_t row_bytes = p->cols * p->lanes * blocks * 4, halo = p->last[0] - p->first[0];
    p->band_rows = p->count[0], p->band_cols = p->count[1];
    if (p->count[0] > 1) {
        const int64_t fit = (gap_max64(1, budget / row_bytes) - 1 - halo) / p->in_step[0] + 1;
        p->band_rows = whole_steps(fit, piece_rows / common_divisor(piece_rows, p->out_step[0]), p->count[0]);
    } else if (p->flat) {
        p->band_cols = whole_steps(budget / (p->lanes * blocks * 4), p->piece, p->count[1]);
    }
    p->n_row_bands = gap_ceil_div(p->count[0], p->band_rows), p->n_col_bands = gap_ceil_div(p->count[1], p->band_cols);
    p->images = 1;
    const int64_t image = p->flat && packed ? p->band_cols * p->lanes * blocks * 4 : row_bytes * ((p->band_rows - 1) * p->in_step[0] + halo + 1);
    if (p->n_row_bands == 1 && p->n_col_bands == 1)
        p->images = gap_max64(1, gap_min64(gap_min64(budget / image, gap_ceil_div(256, p->count[0] * p->count[1])), capacity));
    p->n_oc_parts = p->out_blocks;
    if (!p->depthwise) {
        const int64_t units = gap_ceil_div(capacity, p->images) * p->n_row_bands * p->n_col_bands;
        p->n_oc_parts = gap_min64(gap_ceil_div(packed ? CONV_UNITS / 2 : CONV_UNITS, units), gap_ceil_div(p->out_blocks, 4));
    }
    if (!p->direct) p->scratch_bytes = (size_t)(p->images * image);
}

void gap_conv_pass(conv_pass *p, const gap_op *op, bool backward, int64_t capacity, bool packed) {
    pass_shape(p, op, backward);
    pass_units(p, capacity, packed);
}

void gap_conv_shape(conv_pass *p, const gap_op *op) { pass_shape(p, op, false); }

conv_derived gap_conv_sections(const conv_pass *p, size_t start) {
    conv_derived d;
    d.off = start;
    d.place = d.off + gap_scratch_round((size_t)p->entries * sizeof(int64_t));
    d.w = d.place + gap_scratch_round((size_t)p->taps * sizeof(conv_place));
    d.bias = d.w + gap_scratch_round((size_t)(p->out_blocks * p->w_oc) * 4);
    d.total = d.bias + (p->backward ? 0 : gap_scratch_round((size_t)p->out_blocks * 64));
    return d;
}

bool gap_conv_wants_backward(const gap_op *op) {
    return GAP_ATTR_CONST(op, gap_conv_attr)->plan[PLAN_TRAINING] && op->in_desc[0].layout == GAP_BLOCKED;
}

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    gap_status st = GAP_OK;
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    char text[96];
    int64_t size[2];
    if (in->ndim != 3 || in->dtype != GAP_F32 || in->per_batch || in->layout == GAP_PLAIN)
        return gap_fail(GAP_ERR_SHAPE, "convolution: input must be an image (C, H, W), got %s", gap_desc_text(in, text));
    if (a->groups < 1 || in->dim[0] % a->groups || a->out_channels < 1 || a->out_channels % a->groups)
        return gap_fail(GAP_ERR_SHAPE, "convolution: groups must divide the %lld input and %lld output channels, got %lld",
                        (long long)in->dim[0], (long long)a->out_channels, (long long)a->groups);
    for (int k = 0; k < 2; k++) {
        if (a->padding[k] < 0) return gap_fail(GAP_ERR_VALUE, "convolution: padding must be >= 0, got %lld", (long long)a->padding[k]);
        GAP_TRY(gap_window_size(&size[k], "convolution", in->dim[1 + k], a->kernel[k], a->stride[k], a->padding[k], a->padding[k],
                                a->dilation[k], false));
    }
    *out = gap_desc_image(a->out_channels, size[0], size[1]);
done:
    return st;
}

/* What forward reads goes through a prologue; what backward reads does. */
static bool forward_packed(const gap_op *op) { return GAP_ATTR_CONST(op, gap_conv_attr)->fuse.apply; }
static bool backward_packed(const gap_op *op) { return GAP_ATTR_CONST(op, gap_conv_attr)->fuse.sums; }

static conv_table table_at(const gap_op *op, size_t start) {
    const gap_conv_fuse *f = &GAP_ATTR_CONST(op, gap_conv_attr)->fuse;
    const int64_t padded = gap_padded_channels(&op->out_desc[0]);
    const int64_t rows = f->fixed ? GAP_NORM_ROWS : f->sums ? 1 : 0;
    return (conv_table){start, start + gap_scratch_round((size_t)(rows * padded) * 4)};
}

static void at_least(size_t *bytes, size_t need) {
    if (*bytes < need) *bytes = need;
}

static gap_status prepare(gap_op *op, const gap_op_env *env) {
    gap_conv_attr *a = GAP_ATTR(op, gap_conv_attr);
    const int slots = gap_scratch_count();
    a->plan[PLAN_SLOTS] = slots, a->plan[PLAN_TRAINING] = env->training, a->plan[PLAN_BLAS] = env->kernels->blas != NULL;
    op->workspace_bytes = op->derived_bytes = op->saved_bytes = 0;
    conv_pass forward, backward;
    gap_conv_pass(&forward, op, false, env->capacity, forward_packed(op));
    a->plan[PLAN_CHUNKS] = gap_conv_grad_chunks(&forward, env->capacity);
    if (a->plan[PLAN_BLAS]) {
        gap_conv_shape(&forward, op);
        op->workspace_bytes = gap_conv_blas_bytes(&forward, env->capacity, env->training, slots);
        return GAP_OK;
    }
    op->workspace_bytes = gap_scratch_round(forward.scratch_bytes) * (size_t)slots;
    op->derived_bytes = table_at(op, gap_conv_sections(&forward, 0).total).total;
    if (!env->training) return GAP_OK;
    at_least(&op->workspace_bytes, gap_conv_grad_bytes(&forward, env->capacity, backward_packed(op), slots));
    if (gap_conv_wants_backward(op)) {
        gap_conv_pass(&backward, op, true, env->capacity, backward_packed(op));
        at_least(&op->workspace_bytes, gap_scratch_round(backward.scratch_bytes) * (size_t)slots);
        op->derived_bytes = gap_conv_sections(&backward, op->derived_bytes).total;
    }
    return GAP_OK;
}

/* The pivot of the sums, or the fixed statistics. */
static void derive_table(const gap_op *op, const gap_op_ctx *ctx, float *table) {
    const gap_conv_fuse *f = &GAP_ATTR_CONST(op, gap_conv_attr)->fuse;
    const int64_t padded = gap_padded_channels(&op->out_desc[0]), channels = op->out_desc[0].dim[0];
    if (f->fixed) gap_norm_table_fixed(op, ctx, GAP_CONV_NORM, channels, padded, f->eps, table);
    else if (f->sums)
        for (int64_t c = 0; c < padded; c++)
            table[c] = c < channels ? gap_norm_weight(op, ctx, GAP_CONV_NORM + GAP_NORM_RUNNING_MEAN, c, 0.0f) : 0.0f;
}

static gap_status derive(const gap_op *op, const gap_op_ctx *ctx) {
    gap_status st = GAP_OK;
    if (GAP_ATTR_CONST(op, gap_conv_attr)->plan[PLAN_BLAS]) return GAP_OK;
    conv_pass p;
    gap_conv_pass(&p, op, false, ctx->capacity, forward_packed(op));
    conv_derived d = gap_conv_sections(&p, 0);
    GAP_TRY(gap_conv_derive(&p, &d, ctx->derived, ctx->weight[0], op->weight[1] >= 0 ? ctx->weight[1] : NULL));
    const conv_table t = table_at(op, d.total);
    derive_table(op, ctx, (float *)(void *)((unsigned char *)ctx->derived + t.at));
    if (gap_conv_wants_backward(op)) {
        gap_conv_pass(&p, op, true, ctx->capacity, backward_packed(op));
        d = gap_conv_sections(&p, t.total);
        GAP_TRY(gap_conv_derive(&p, &d, ctx->derived, ctx->weight[0], NULL));
    }
done:
    return st;
}

/* The input as forward and the weight gradient read it. */
static gap_source input_of(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_conv_fuse *f = &GAP_ATTR_CONST(op, gap_conv_attr)->fuse;
    const gap_desc *d = &op->in_desc[0];
    gap_source s = {.x = ctx->in[0], .plane = gap_desc_stored(d), .blocks = 1};
    if (d->layout == GAP_BLOCKED) s.plane = gap_plane_floats(d), s.blocks = gap_desc_blocks(d);
    if (!f->apply) return s;
    const float *table = ctx->in[1]; /* (rows, padded) */
    s.pro.scale = table + GAP_NORM_SCALE * gap_padded_channels(d), s.pro.shift = table + GAP_NORM_SHIFT * gap_padded_channels(d);
    s.pro.act = f->act, s.pro.act_arg = f->act_arg;
    return s;
}

/* The gradient of the output as backward reads it. */
static gap_source output_gradient(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_desc *d = &op->out_desc[0];
    const int64_t padded = gap_padded_channels(d);
    gap_source s = {.x = ctx->dout, .plane = gap_plane_floats(d), .blocks = gap_desc_blocks(d)};
    if (!GAP_ATTR_CONST(op, gap_conv_attr)->fuse.sums) return s;
    const float *coef = ctx->dout2; /* (rows, padded) */
    s.pro.z = ctx->out[0], s.pro.mean = coef + GAP_COEF_MEAN * padded, s.pro.scale = coef + GAP_COEF_SCALE * padded;
    s.pro.b = coef + GAP_COEF_B * padded, s.pro.c = coef + GAP_COEF_C * padded;
    return s;
}

static gap_sink output_of(const gap_op *op, const gap_op_ctx *ctx, const float *table) {
    const gap_conv_fuse *f = &GAP_ATTR_CONST(op, gap_conv_attr)->fuse;
    const gap_desc *d = &op->out_desc[0];
    const int64_t padded = gap_padded_channels(d);
    gap_sink s = {.y = ctx->out[0], .plane = gap_plane_floats(d), .blocks = gap_desc_blocks(d), .pieces = gap_pieces(d->dim[1], d->dim[2])};
    if (f->sums) s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_SUMS, .pivot = table, .sums = ctx->out[1]};
    if (f->fixed)
        s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_APPLY, .scale = table + GAP_NORM_SCALE * padded, .shift = table + GAP_NORM_SHIFT * padded,
                               .residual = f->residual ? ctx->in[op->n_in - 1] : NULL, .act = f->out_act, .act_arg = f->out_act_arg};
    return s;
}

static gap_sink input_gradient(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_conv_fuse *f = &GAP_ATTR_CONST(op, gap_conv_attr)->fuse;
    const gap_desc *d = &op->in_desc[0];
    const int64_t padded = gap_padded_channels(d);
    gap_sink s = {.y = ctx->din[0], .add = ctx->din_add[0], .plane = gap_plane_floats(d), .blocks = gap_desc_blocks(d),
                  .pieces = gap_pieces(d->dim[1], d->dim[2])};
    if (!f->apply) return s;
    const float *table = ctx->in[1]; /* (rows, padded) */
    s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_MASK, .act = f->act, .act_arg = f->act_arg, .z = ctx->in[0], .sums = ctx->din[1],
                           .scale = table + GAP_NORM_SCALE * padded, .shift = table + GAP_NORM_SHIFT * padded, .mean = table + GAP_NORM_MEAN * padded};
    return s;
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    conv_pass p;
    gap_conv_shape(&p, op);
    if (a->plan[PLAN_BLAS]) return gap_conv_blas_forward(&p, ctx, op->weight[1] >= 0, a->plan[PLAN_SLOTS]);
    gap_conv_pass(&p, op, false, ctx->capacity, forward_packed(op));
    const conv_derived d = gap_conv_sections(&p, 0);
    const float *table = (const float *)(const void *)((const unsigned char *)ctx->derived + d.total);
    const gap_source in = input_of(op, ctx);
    const gap_sink out = output_of(op, ctx, table);
    return gap_conv_run(&p, ctx, &d, &in, &out, op->weight[1] >= 0, a->plan[PLAN_SLOTS]);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    gap_status st = GAP_OK;
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    conv_pass fwd, bwd;
    gap_conv_shape(&fwd, op);
    if (a->plan[PLAN_BLAS]) return gap_conv_blas_backward(&fwd, ctx, a->plan[PLAN_SLOTS]);
    gap_conv_pass(&fwd, op, false, ctx->capacity, forward_packed(op));
    const conv_derived d = gap_conv_sections(&fwd, 0);
    const gap_source x = input_of(op, ctx), dy = output_gradient(op, ctx);
    if (ctx->dweight[0]) GAP_TRY(gap_conv_grad(&fwd, ctx, &d, &x, &dy, a->plan[PLAN_SLOTS]));
    if (ctx->dweight[1]) GAP_TRY(gap_conv_bias(&fwd, ctx, &dy, a->plan[PLAN_SLOTS]));
    if (ctx->din[0]) {
        if (op->in_desc[0].layout == GAP_NHWC) return gap_fail(GAP_ERR_INTERNAL, "%s: an image has no gradient", op->layer);
        gap_conv_pass(&bwd, op, true, ctx->capacity, backward_packed(op));
        const conv_derived e = gap_conv_sections(&bwd, table_at(op, d.total).total);
        const gap_sink dx = input_gradient(op, ctx);
        GAP_TRY(gap_conv_run(&bwd, ctx, &e, &dy, &dx, false, a->plan[PLAN_SLOTS]));
    }
done:
    return st;
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    const gap_conv_fuse *f = &a->fuse;
    conv_pass p;
    gap_conv_pass(&p, op, false, 1, forward_packed(op));
    if (a->plan[PLAN_BLAS]) snprintf(text, bytes, "im2col + sgemm, %d gradient chunks", a->plan[PLAN_CHUNKS]);
    else
        snprintf(text, bytes, "%s%s%s, rows of %lld, %d gradient chunks%s%s%s", p.depthwise ? "depthwise" : "direct",
                 p.lanes != 16 ? " from pixels" : "", p.direct ? ", in place" : ", padded", (long long)p.band_cols, a->plan[PLAN_CHUNKS],
                 f->apply ? "; norm + act on load" : "", f->sums ? "; sums on store" : "", f->fixed ? "; norm + act on store" : "");
}

const gap_op_def gap_op_conv = {
    .name = "conv", .backward_needs = GAP_NEED_IN0, .infer = infer, .prepare = prepare, .derive = derive,
    .forward = forward, .backward = backward, .describe = describe,
};

gap_status gap_emit_conv(gap_oplist *list, gap_origin who, int in, const gap_conv_attr *attr, int weight, int bias, int *out) {
    const int weights[2] = {weight, bias};
    return gap_oplist_emit(list, &gap_op_conv, who.name, who.id, &in, 1, 1, attr, sizeof *attr, weights, 2, out);
}

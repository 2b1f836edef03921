#include "ops/conv_plan.h"

#include <stdio.h>
#include <string.h>

#include "core/shape.h"

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

/* A 1x1 kernel at stride 1 without padding: the plane is one row. */
static void flatten(conv_pass *p) {
    if (!p->direct || p->taps > 1 || p->stride[0] > 1 || p->stride[1] > 1 || p->in_h != p->out_h || p->in_w != p->out_w) return;
    p->in_w *= p->in_h, p->in_h = 1, p->out_w *= p->out_h, p->out_h = 1;
    p->count[1] *= p->count[0], p->count[0] = 1;
}

/* Cuts the work into units that fit a cache and are many enough for the threads. */
static void pass_units(conv_pass *p, int64_t capacity) {
    const bool inside_h = p->first[0] >= 0 && (p->count[0] - 1) * p->in_step[0] + p->last[0] < p->in_h;
    const bool inside_w = p->first[1] >= 0 && (p->count[1] - 1) * p->in_step[1] + p->last[1] < p->in_w;
    p->direct = inside_h && inside_w;
    flatten(p);
    p->cols = p->direct ? p->in_w : (p->count[1] - 1) * p->in_step[1] + p->last[1] - p->first[1] + 1;
    for (int k = 0; k < 2; k++) p->origin[k] = p->direct ? 0 : p->first[k];
    const int64_t blocks = p->depthwise ? 1 : p->in_blocks;
    const int64_t budget = (int64_t)CONV_SCRATCH / (p->depthwise ? 4 : 1);
    const int64_t row_bytes = p->cols * p->lanes * blocks * 4, halo = p->last[0] - p->first[0];
    const int64_t rows_in = gap_max64(1, budget / row_bytes);
    p->n_row_bands = p->n_col_bands = 1;
    if (p->count[0] > 1) {
        const int64_t fit = gap_max64(1, (rows_in - 1 - halo) / p->in_step[0] + 1);
        p->n_row_bands = gap_ceil_div(p->count[0], gap_min64(fit, p->count[0]));
    } else if (p->direct && p->taps == 1 && p->in_step[1] == 1 && p->out_step[1] == 1) {
        p->n_col_bands = gap_ceil_div(p->count[1], gap_max64(64, budget / (p->lanes * blocks * 4)));
    }
    p->band_rows = gap_ceil_div(p->count[0], p->n_row_bands), p->band_cols = gap_ceil_div(p->count[1], p->n_col_bands);
    p->images = 1;
    if (p->n_row_bands == 1 && p->n_col_bands == 1) {
        const int64_t image = row_bytes * ((p->count[0] - 1) * p->in_step[0] + halo + 1);
        p->images = gap_max64(1, gap_min64(gap_min64(budget / image, gap_ceil_div(256, p->count[0] * p->count[1])), capacity));
    }
    p->n_oc_parts = p->out_blocks;
    if (!p->depthwise) {
        const int64_t units = gap_ceil_div(capacity, p->images) * p->n_row_bands * p->n_col_bands;
        p->n_oc_parts = gap_min64(gap_ceil_div(CONV_UNITS, units), gap_ceil_div(p->out_blocks, 4));
    }
    if (!p->direct)
        p->scratch_bytes = (size_t)(p->images * blocks * ((p->band_rows - 1) * p->in_step[0] + halo + 1) * p->cols * p->lanes) * 4;
}

void gap_conv_pass(conv_pass *p, const gap_op *op, bool backward, int64_t capacity) {
    pass_shape(p, op, backward);
    pass_units(p, capacity);
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

static gap_status prepare(gap_op *op, const gap_op_env *env) {
    gap_conv_attr *a = GAP_ATTR(op, gap_conv_attr);
    const int slots = gap_scratch_count();
    a->plan[PLAN_SLOTS] = slots, a->plan[PLAN_TRAINING] = env->training, a->plan[PLAN_BLAS] = env->kernels->blas != NULL;
    op->workspace_bytes = op->derived_bytes = op->saved_bytes = 0;
    conv_pass forward, backward;
    gap_conv_pass(&forward, op, false, env->capacity);
    a->plan[PLAN_CHUNKS] = gap_conv_grad_chunks(&forward, env->capacity);
    if (a->plan[PLAN_BLAS]) {
        gap_conv_shape(&forward, op);
        op->workspace_bytes = gap_conv_blas_bytes(&forward, env->capacity, env->training, slots);
        return GAP_OK;
    }
    op->workspace_bytes = gap_scratch_round(forward.scratch_bytes) * (size_t)slots;
    op->derived_bytes = gap_conv_sections(&forward, 0).total;
    if (!env->training) return GAP_OK;
    const size_t grad = gap_conv_grad_bytes(&forward, env->capacity, slots);
    if (grad > op->workspace_bytes) op->workspace_bytes = grad;
    if (gap_conv_wants_backward(op)) {
        gap_conv_pass(&backward, op, true, env->capacity);
        const size_t data = gap_scratch_round(backward.scratch_bytes) * (size_t)slots;
        if (data > op->workspace_bytes) op->workspace_bytes = data;
        op->derived_bytes = gap_conv_sections(&backward, op->derived_bytes).total;
    }
    return GAP_OK;
}

static gap_status derive(const gap_op *op, const gap_op_ctx *ctx) {
    gap_status st = GAP_OK;
    if (GAP_ATTR_CONST(op, gap_conv_attr)->plan[PLAN_BLAS]) return GAP_OK;
    conv_pass p;
    gap_conv_pass(&p, op, false, ctx->capacity);
    conv_derived d = gap_conv_sections(&p, 0);
    GAP_TRY(gap_conv_derive(&p, &d, ctx->derived, ctx->weight[0], op->weight[1] >= 0 ? ctx->weight[1] : NULL));
    if (gap_conv_wants_backward(op)) {
        gap_conv_pass(&p, op, true, ctx->capacity);
        d = gap_conv_sections(&p, d.total);
        GAP_TRY(gap_conv_derive(&p, &d, ctx->derived, ctx->weight[0], NULL));
    }
done:
    return st;
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    conv_pass p;
    gap_conv_shape(&p, op);
    if (a->plan[PLAN_BLAS]) return gap_conv_blas_forward(&p, ctx, op->weight[1] >= 0, a->plan[PLAN_SLOTS]);
    gap_conv_pass(&p, op, false, ctx->capacity);
    const conv_derived d = gap_conv_sections(&p, 0);
    return gap_conv_run(&p, ctx, &d, ctx->in[0], ctx->out[0], op->weight[1] >= 0, false, a->plan[PLAN_SLOTS]);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    gap_status st = GAP_OK;
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    conv_pass fwd, bwd;
    gap_conv_shape(&fwd, op);
    if (a->plan[PLAN_BLAS]) return gap_conv_blas_backward(&fwd, ctx, a->plan[PLAN_SLOTS]);
    gap_conv_pass(&fwd, op, false, ctx->capacity);
    const conv_derived d = gap_conv_sections(&fwd, 0);
    if (ctx->din[0]) {
        if (op->in_desc[0].layout == GAP_NHWC) return gap_fail(GAP_ERR_INTERNAL, "%s: an image has no gradient", op->layer);
        gap_conv_pass(&bwd, op, true, ctx->capacity);
        const conv_derived e = gap_conv_sections(&bwd, d.total);
        GAP_TRY(gap_conv_run(&bwd, ctx, &e, ctx->dout, ctx->din[0], false, ctx->din_add[0], a->plan[PLAN_SLOTS]));
    }
    GAP_TRY(gap_conv_grad(&fwd, ctx, &d, a->plan[PLAN_SLOTS]));
done:
    return st;
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    conv_pass p;
    gap_conv_pass(&p, op, false, 1);
    if (a->plan[PLAN_BLAS]) snprintf(text, bytes, "im2col + sgemm, %d gradient chunks", a->plan[PLAN_CHUNKS]);
    else
        snprintf(text, bytes, "%s%s%s, rows of %lld, %d gradient chunks", p.depthwise ? "depthwise" : "direct",
                 p.lanes != 16 ? " from pixels" : "", p.direct ? ", in place" : ", padded", (long long)p.band_cols, a->plan[PLAN_CHUNKS]);
}

static const gap_op_def conv_def = {
    .name = "conv", .backward_needs = GAP_NEED_IN0, .infer = infer, .prepare = prepare, .derive = derive,
    .forward = forward, .backward = backward, .describe = describe,
};

gap_status gap_emit_conv(gap_oplist *list, gap_origin who, int in, const gap_conv_attr *attr, int weight, int bias, int *out) {
    const int weights[2] = {weight, bias};
    return gap_oplist_emit(list, &conv_def, who.name, who.id, &in, 1, 1, attr, sizeof *attr, weights, 2, out);
}

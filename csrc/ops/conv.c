/* conv.c — the convolution op: chooses a method by shape and precision, and hands it what fusion put around it. */
#include <stdio.h>
#include <string.h>

#include "core/shape.h"
#include "ops/conv_depthwise.h"
#include "ops/conv_plan.h"
#include "ops/conv_pointwise.h"
#include "ops/conv_winograd.h"
#include "ops/norm.h"

typedef enum { METHOD_DIRECT, METHOD_WINOGRAD, METHOD_DEPTHWISE, METHOD_POINTWISE, METHOD_BLAS } conv_method;

/* attr->plan[]: what prepare settled. PLAN_TILE: outputs of a Winograd tile's side; of a pointwise one, whether Strassen's
 * method is allowed. */
enum { PLAN_METHOD, PLAN_TILE, PLAN_SLOTS, PLAN_TRAINING, PLAN_GATE_SUMS /* in workspace, units of GAP_ALIGN */ };

bool gap_conv_reads_pixels(const gap_op *op) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    return a->groups == 1 && !a->fuse.apply && a->fuse.gate == 0 && !gap_depthwise_fits(op); /* 1 -> 1 channels: another order of sums */
}

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    gap_status st = GAP_OK;
    gap_conv_attr *a = GAP_ATTR(op, gap_conv_attr);
    char text[96];
    int64_t size[2], padded[3] = {0, 0, gap_max64(in->dim[0], a->out_channels)};
    if (in->ndim != 3 || in->dtype != GAP_F32 || in->per_batch || in->layout == GAP_PLAIN)
        return gap_fail(GAP_ERR_SHAPE, "convolution: input must be an image (C, H, W), got %s", gap_desc_text(in, text));
    if (a->groups < 1 || in->dim[0] % a->groups || a->out_channels < 1 || a->out_channels % a->groups)
        return gap_fail(GAP_ERR_SHAPE, "convolution: groups must divide the %lld input and %lld output channels, got %lld",
                        (long long)in->dim[0], (long long)a->out_channels, (long long)a->groups);
    for (int k = 0; k < 2; k++) {
        if (a->padding[k] < 0) return gap_fail(GAP_ERR_VALUE, "convolution: padding must be >= 0, got %lld", (long long)a->padding[k]);
        GAP_TRY(gap_window_size(&size[k], "convolution", in->dim[1 + k], a->kernel[k], a->stride[k], a->padding[k], a->padding[k],
                                a->dilation[k], false));
        padded[k] = in->dim[1 + k] + 2 * a->padding[k];
        a->stride[k] = gap_min64(a->stride[k], padded[k]); /* a longer one has no second step, but backward would look at each place of it */
    }
    GAP_TRY(gap_size_check("convolution: padded", padded, 3));
    *out = gap_desc_image(a->out_channels, size[0], size[1]);
done:
    return st;
}

/* ---- the choice, and where its derived data lies ---- */

static conv_method choose(const gap_op *op, const gap_op_env *env, int *tile) {
    gap_wino_tile which = GAP_WINO_NONE;
    if (env->kernels->blas != NULL) return METHOD_BLAS;
    if (gap_depthwise_fits(op)) return METHOD_DEPTHWISE;
    if (gap_pointwise_fits(op)) {
        *tile = env->precision == GAP_PRECISION_FAST;
        return METHOD_POINTWISE;
    }
    if (!gap_wino_fits(op, env->precision, &which)) return METHOD_DIRECT;
    *tile = (int)which;
    return METHOD_WINOGRAD;
}

/* What forward reads goes through a prologue; what backward reads does. */
static bool forward_packed(const gap_op *op) {
    const gap_conv_fuse *f = &GAP_ATTR_CONST(op, gap_conv_attr)->fuse;
    return f->apply || f->gate > 0 || f->bytes;
}
static bool backward_packed(const gap_op *op) { return GAP_ATTR_CONST(op, gap_conv_attr)->fuse.sums; }
static int planned(const gap_op *op, int what) { return GAP_ATTR_CONST(op, gap_conv_attr)->plan[what]; }
static bool wants_backward(const gap_op *op) { return planned(op, PLAN_TRAINING) && op->in_desc[0].layout == GAP_BLOCKED; }

/* One convolution, laid out for its method. */
typedef struct {
    conv_method method;
    int slots;
    conv_pass direct, direct_back;
    gap_wino wino, wino_back;
    gap_depthwise depthwise;
    gap_pointwise pointwise;
    size_t pointwise_back;               /* in `derived`: both directions are kept there. Made where they are used, in memory that
                                          * other ops had just written, they took twice as long (resnet50: 37 ms for 20) */
    size_t table, backward;              /* in `derived`, behind the weights; in `derived_back`, behind what the weight gradient reads */
    size_t derived_bytes, derived_back_bytes;
} conv_setup;

static size_t gate_bytes(const gap_op *op, int64_t capacity) {
    const gap_desc *d = &op->in_desc[0];
    if (GAP_ATTR_CONST(op, gap_conv_attr)->fuse.gate == 0 || !planned(op, PLAN_TRAINING)) return 0;
    return (size_t)(capacity * gap_pieces(d->dim[1], d->dim[2]) * 2 * gap_padded_channels(d)) * 4;
}

/* The table of the epilogue: the pivot of its sums, (padded), or fixed statistics, (rows, padded). */
static size_t table_bytes(const gap_op *op) {
    const gap_conv_fuse *f = &GAP_ATTR_CONST(op, gap_conv_attr)->fuse;
    const int64_t rows = f->fixed ? GAP_NORM_ROWS : f->sums ? 1 : 0;
    return gap_scratch_round((size_t)(rows * gap_padded_channels(&op->out_desc[0])) * 4);
}

static void set_up(conv_setup *s, const gap_op *op, int64_t capacity) {
    const bool back = wants_backward(op);
    s->method = (conv_method)planned(op, PLAN_METHOD), s->slots = planned(op, PLAN_SLOTS), s->backward = 0;
    size_t forward = 0, backward = 0;
    switch (s->method) {
    case METHOD_BLAS: gap_conv_shape(&s->direct, op); break;
    case METHOD_DEPTHWISE:
        gap_depthwise_plan(&s->depthwise, op, capacity);
        forward = gap_depthwise_derived_bytes(&s->depthwise); /* of both directions */
        break;
    case METHOD_POINTWISE:
        gap_pointwise_plan(&s->pointwise, op, capacity, planned(op, PLAN_TILE));
        s->pointwise_back = gap_scratch_round(gap_pointwise_derived_bytes(&s->pointwise));
        forward = s->pointwise_back + (back ? gap_pointwise_derived_back_bytes(&s->pointwise) : 0);
        break;
    case METHOD_WINOGRAD:
        gap_wino_plan(&s->wino, op, false, planned(op, PLAN_TILE), capacity);
        forward = gap_wino_derived_bytes(&s->wino);
        if (!back) break;
        gap_wino_plan(&s->wino_back, op, true, planned(op, PLAN_TILE), capacity);
        backward = gap_wino_derived_bytes(&s->wino_back);
        break;
    case METHOD_DIRECT:
        gap_conv_pass(&s->direct, op, false, capacity, forward_packed(op));
        forward = gap_conv_sections(&s->direct, 0).total;
        if (!planned(op, PLAN_TRAINING)) break;
        s->backward = backward = gap_conv_sections(&s->direct, 0).w; /* the lists of taps stand in front of the weights */
        if (!back) break;
        gap_conv_pass(&s->direct_back, op, true, capacity, backward_packed(op));
        backward = gap_conv_sections(&s->direct_back, s->backward).total;
        break;
    }
    s->table = gap_scratch_round(forward);
    s->derived_bytes = s->table + table_bytes(op), s->derived_back_bytes = backward;
}

static void at_least(size_t *bytes, size_t need) {
    if (*bytes < need) *bytes = need;
}

static size_t workspace_bytes(const conv_setup *s, const gap_op *op, const gap_op_env *env) {
    const bool back = wants_backward(op);
    size_t bytes = 0;
    conv_pass shape;
    switch (s->method) {
    case METHOD_BLAS: return gap_conv_blas_bytes(&s->direct, env->capacity, env->training, s->slots);
    case METHOD_DEPTHWISE: bytes = gap_depthwise_workspace_bytes(&s->depthwise, env->training, s->slots); break;
    case METHOD_POINTWISE: bytes = gap_pointwise_workspace_bytes(&s->pointwise, env->training, s->slots); break;
    case METHOD_WINOGRAD:
        bytes = gap_wino_workspace_bytes(&s->wino, s->slots);
        if (back) at_least(&bytes, gap_wino_workspace_bytes(&s->wino_back, s->slots));
        if (env->training) at_least(&bytes, gap_wino_grad_bytes(&s->wino, s->slots));
        break;
    case METHOD_DIRECT:
        bytes = gap_scratch_round(s->direct.scratch_bytes) * (size_t)s->slots;
        if (back) at_least(&bytes, gap_scratch_round(s->direct_back.scratch_bytes) * (size_t)s->slots);
        if (env->training) at_least(&bytes, gap_conv_grad_bytes(&s->direct, env->capacity, backward_packed(op), s->slots));
        break;
    }
    if (!env->training || op->weight[1] < 0) return bytes;
    gap_conv_shape(&shape, op);
    at_least(&bytes, gap_conv_bias_bytes(&shape, env->capacity, s->slots));
    return bytes;
}

static gap_status prepare(gap_op *op, const gap_op_env *env) {
    gap_conv_attr *a = GAP_ATTR(op, gap_conv_attr);
    conv_setup s;
    a->plan[PLAN_SLOTS] = gap_scratch_count(), a->plan[PLAN_TRAINING] = env->training;
    a->plan[PLAN_METHOD] = (int)choose(op, env, &a->plan[PLAN_TILE]);
    set_up(&s, op, env->capacity);
    op->derived_bytes = s.method == METHOD_BLAS ? 0 : s.derived_bytes;
    op->derived_back_bytes = s.derived_back_bytes;
    const size_t own = gap_scratch_round(workspace_bytes(&s, op, env)), gate = gate_bytes(op, env->capacity);
    op->workspace_bytes = own + gate;
    a->plan[PLAN_GATE_SUMS] = (int)(own / GAP_ALIGN);
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

static gap_status derive_forward(const conv_setup *s, const gap_op *op, const gap_op_ctx *ctx) {
    const float *weight = ctx->weight[0], *bias = op->weight[1] >= 0 ? ctx->weight[1] : NULL;
    unsigned char *derived = ctx->derived;
    derive_table(op, ctx, (float *)(void *)(derived + s->table));
    if (s->method == METHOD_DEPTHWISE) return gap_depthwise_derive(&s->depthwise, weight, bias, derived);
    if (s->method == METHOD_POINTWISE) {
        const gap_status st = gap_pointwise_derive(&s->pointwise, weight, bias, derived);
        return st == GAP_OK && wants_backward(op) ? gap_pointwise_derive_back(&s->pointwise, weight, derived + s->pointwise_back) : st;
    }
    if (s->method == METHOD_WINOGRAD) return gap_wino_derive(&s->wino, weight, bias, derived, ctx);
    const conv_derived d = gap_conv_sections(&s->direct, 0);
    return gap_conv_derive(&s->direct, &d, derived, weight, bias);
}

static gap_status derive_back(const conv_setup *s, const gap_op *op, const gap_op_ctx *ctx) {
    unsigned char *derived = ctx->derived_back;
    if (s->method == METHOD_WINOGRAD) return gap_wino_derive(&s->wino_back, ctx->weight[0], NULL, derived, ctx);
    conv_derived d = gap_conv_sections(&s->direct, 0);
    gap_conv_derive_lists(&s->direct, &d, derived);
    if (!wants_backward(op)) return GAP_OK;
    d = gap_conv_sections(&s->direct_back, s->backward);
    return gap_conv_derive(&s->direct_back, &d, derived, ctx->weight[0], NULL);
}

static gap_status derive(const gap_op *op, const gap_op_ctx *ctx) {
    gap_status st = GAP_OK;
    conv_setup s;
    set_up(&s, op, ctx->capacity);
    if (s.method == METHOD_BLAS) return GAP_OK;
    if (ctx->derived != NULL) GAP_TRY(derive_forward(&s, op, ctx));
    if (ctx->derived_back != NULL && s.derived_back_bytes > 0) GAP_TRY(derive_back(&s, op, ctx));
done:
    return st;
}

/* ---- the ends: what stands in memory, and what it means ---- */

/* The input as forward and the weight gradient read it. */
static gap_source input_of(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_conv_fuse *f = &GAP_ATTR_CONST(op, gap_conv_attr)->fuse;
    const gap_desc *d = &op->in_desc[0];
    gap_source s = {.x = ctx->in[0], .plane = gap_desc_stored(d), .blocks = 1};
    if (d->layout == GAP_BLOCKED) s.plane = gap_plane_floats(d), s.blocks = gap_desc_blocks(d);
    if (f->bytes) s.x = NULL, s.bytes = ctx->in[0], s.pro.scale = f->byte_scale, s.pro.shift = f->byte_shift;
    if (f->gate > 0) s.pro.gate = ctx->in[f->gate];
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
    gap_source s = {.x = ctx->dout, .plane = gap_plane_floats(d), .blocks = gap_desc_blocks(d), .skip = d->skip};
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
    gap_sink s = {.y = ctx->out[0], .plane = gap_plane_floats(d), .blocks = gap_desc_blocks(d), .pieces = gap_pieces(d->dim[1], d->dim[2]), .skip = d->skip};
    if (f->sums) s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_SUMS, .pivot = table, .sums = ctx->out[1]};
    if (f->fixed)
        s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_APPLY, .scale = table + GAP_NORM_SCALE * padded, .shift = table + GAP_NORM_SHIFT * padded,
                               .residual = f->residual > 0 ? ctx->in[f->residual] : NULL, .act = f->out_act, .act_arg = f->out_act_arg};
    return s;
}

/* The epilogue's sums per piece, of which the gate's gradient is made. */
static float *gate_sums(const gap_op *op, const gap_op_ctx *ctx) {
    return (float *)(void *)((unsigned char *)ctx->workspace + (size_t)planned(op, PLAN_GATE_SUMS) * GAP_ALIGN);
}

typedef struct { const gap_op *op; const gap_op_ctx *ctx; } gate_job;

/* The gate's gradient of image n: its pieces' sums, in order. */
static void gate_image(void *arg, int64_t n, int thread) {
    (void)thread;
    const gate_job *job = arg;
    const gap_desc *d = &job->op->in_desc[0];
    const int gate = GAP_ATTR_CONST(job->op, gap_conv_attr)->fuse.gate;
    const int64_t padded = gap_padded_channels(d), pieces = gap_pieces(d->dim[1], d->dim[2]);
    const float *sums = gate_sums(job->op, job->ctx) + n * pieces * 2 * padded;
    float *dgate = (float *)job->ctx->din[gate] + n * padded;
    for (int64_t c = 0; c < padded; c++) {
        double s = 0;
        for (int64_t q = 0; q < pieces; q++) s += (double)sums[q * 2 * padded + c];
        dgate[c] = job->ctx->din_add[gate] ? dgate[c] + (float)s : (float)s;
    }
}

static gap_status gate_gradient(const gap_op *op, const gap_op_ctx *ctx) {
    const int gate = GAP_ATTR_CONST(op, gap_conv_attr)->fuse.gate;
    gate_job job = {op, ctx};
    return gate > 0 && ctx->din[gate] != NULL ? gap_parallel(ctx->n, gate_image, &job) : GAP_OK;
}

static gap_sink input_gradient(const gap_op *op, const gap_op_ctx *ctx) {
    const gap_conv_fuse *f = &GAP_ATTR_CONST(op, gap_conv_attr)->fuse;
    const gap_desc *d = &op->in_desc[0];
    const int64_t padded = gap_padded_channels(d);
    gap_sink s = {.y = ctx->din[0], .add = ctx->din_add[0], .plane = gap_plane_floats(d), .blocks = gap_desc_blocks(d),
                  .pieces = gap_pieces(d->dim[1], d->dim[2])};
    if (f->gate > 0)
        s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_GATE, .out = ctx->in[0], .gate = ctx->in[f->gate],
                               .sums = ctx->din[f->gate] != NULL ? gate_sums(op, ctx) : NULL};
    if (!f->apply && f->join == 0) return s;
    const int x = f->join, residual = x + GAP_AFFINE_RESIDUAL; /* with apply, in[0] is x itself */
    const float *table = ctx->in[x + GAP_AFFINE_TABLE];         /* (rows, padded) */
    s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_MASK, .act = f->act, .act_arg = f->act_arg, .out = f->join_out ? ctx->in[0] : NULL,
                           .z = ctx->in[x], .sums = ctx->din[x + GAP_AFFINE_TABLE], .mean = table + GAP_NORM_MEAN * padded,
                           .scale = table + GAP_NORM_SCALE * padded, .shift = table + GAP_NORM_SHIFT * padded};
    if (f->join == 0 || op->n_in <= residual) return s;
    s.epi.z2 = ctx->in[residual], s.epi.sums2 = ctx->din[x + GAP_AFFINE_RESIDUAL_TABLE];
    s.epi.mean2 = (const float *)ctx->in[x + GAP_AFFINE_RESIDUAL_TABLE] + GAP_NORM_MEAN * padded; /* (padded) */
    return s;
}

/* ---- the passes ---- */

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    const unsigned char *derived = ctx->derived;
    const bool has_bias = op->weight[1] >= 0;
    conv_setup s;
    set_up(&s, op, ctx->capacity);
    const gap_source in = input_of(op, ctx);
    const gap_sink out = output_of(op, ctx, (const float *)(const void *)(derived + s.table));
    switch (s.method) {
    case METHOD_BLAS: return gap_conv_blas_forward(&s.direct, ctx, has_bias, s.slots);
    case METHOD_DEPTHWISE: return gap_depthwise_run(&s.depthwise, ctx, derived, &in, &out, has_bias, s.slots);
    case METHOD_POINTWISE: return gap_pointwise_run(&s.pointwise, ctx, derived, &in, &out, has_bias, s.slots);
    case METHOD_WINOGRAD: return gap_wino_run(&s.wino, ctx, derived, &in, &out, has_bias, s.slots);
    case METHOD_DIRECT: break;
    }
    const conv_derived d = gap_conv_sections(&s.direct, 0);
    return gap_conv_run(&s.direct, ctx, &d, &in, &out, has_bias, s.slots);
}

/* Both passes find what they read in derived_back. */
static gap_status backward_direct(const conv_setup *s, const gap_op_ctx *ctx, const gap_source *x, const gap_source *dy, const gap_sink *dx) {
    gap_status st = GAP_OK;
    gap_op_ctx back = *ctx;
    back.derived = ctx->derived_back;
    const conv_derived d = gap_conv_sections(&s->direct, 0);
    if (ctx->dweight[0]) GAP_TRY(gap_conv_grad(&s->direct, &back, &d, x, dy, s->slots));
    if (dx != NULL) {
        const conv_derived e = gap_conv_sections(&s->direct_back, s->backward);
        GAP_TRY(gap_conv_run(&s->direct_back, &back, &e, dy, dx, false, s->slots));
    }
done:
    return st;
}

static gap_status backward_winograd(const conv_setup *s, const gap_op_ctx *ctx, const gap_source *x, const gap_source *dy, const gap_sink *dx) {
    gap_status st = GAP_OK;
    if (ctx->dweight[0]) GAP_TRY(gap_wino_grad(&s->wino, ctx, x, dy, ctx->dweight[0], ctx->dweight_add, s->slots));
    if (dx != NULL) GAP_TRY(gap_wino_run(&s->wino_back, ctx, ctx->derived_back, dy, dx, false, s->slots));
done:
    return st;
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    gap_status st = GAP_OK;
    conv_setup s;
    conv_pass shape;
    set_up(&s, op, ctx->capacity);
    if (s.method == METHOD_BLAS) return gap_conv_blas_backward(&s.direct, ctx, s.slots);
    if (ctx->din[0] != NULL && op->in_desc[0].layout == GAP_NHWC) return gap_fail(GAP_ERR_INTERNAL, "%s: an image has no gradient", op->layer);
    const gap_source x = input_of(op, ctx), dy = output_gradient(op, ctx);
    const gap_sink sink = input_gradient(op, ctx), *dx = ctx->din[0] != NULL ? &sink : NULL;
    if (ctx->dweight[1]) {
        gap_conv_shape(&shape, op);
        GAP_TRY(gap_conv_bias(&shape, ctx, &dy, s.slots));
    }
    switch (s.method) {
    case METHOD_DEPTHWISE: GAP_TRY(gap_depthwise_back(&s.depthwise, ctx, ctx->derived, &x, &dy, dx, ctx->dweight[0], ctx->dweight_add, s.slots)); break;
    case METHOD_POINTWISE: GAP_TRY(gap_pointwise_back(&s.pointwise, ctx, (const unsigned char *)ctx->derived + s.pointwise_back, &x, &dy, dx, ctx->dweight[0], ctx->dweight_add, s.slots)); break;
    case METHOD_WINOGRAD: GAP_TRY(backward_winograd(&s, ctx, &x, &dy, dx)); break;
    case METHOD_DIRECT: GAP_TRY(backward_direct(&s, ctx, &x, &dy, dx)); break;
    case METHOD_BLAS: break;
    }
    GAP_TRY(gate_gradient(op, ctx));
done:
    return st;
}

static void describe(const gap_op *op, char *text, size_t bytes) {
    static const char *const names[] = {"direct", "Winograd", "depthwise", "pointwise", "im2col + sgemm"};
    const gap_conv_fuse *f = &GAP_ATTR_CONST(op, gap_conv_attr)->fuse;
    const int method = planned(op, PLAN_METHOD), m = planned(op, PLAN_TILE);
    char tile[24] = "";
    gap_pointwise p;
    if (method == METHOD_POINTWISE) {
        gap_pointwise_plan(&p, op, 1, m);
        if (p.fast_ahead || p.fast_back) snprintf(tile, sizeof tile, ", Strassen");
    }
    if (method == METHOD_WINOGRAD) snprintf(tile, sizeof tile, " F(%dx%d, 3x3)", m, m);
    snprintf(text, bytes, "%s%s%s%s%s%s%s%s", names[method], tile, f->bytes ? " from bytes, normalised on load" : op->in_desc[0].layout == GAP_NHWC ? " from pixels" : "",
             f->apply ? "; norm + act on load" : "", f->gate > 0 ? "; gate on load" : "", f->sums ? "; sums on store" : "",
             f->join > 0 ? "; masks its input's gradient" : "", f->fixed ? "; norm + act on store" : "");
}

const gap_op_def gap_op_conv = {
    .name = "conv", .backward_needs = GAP_NEED_IN0, .slices = true, .infer = infer, .prepare = prepare, .derive = derive,
    .forward = forward, .backward = backward, .describe = describe,
};

gap_status gap_emit_conv(gap_oplist *list, gap_origin who, int in, const gap_conv_attr *attr, int weight, int bias, int *out) {
    const int weights[2] = {weight, bias};
    return gap_oplist_emit(list, &gap_op_conv, who.name, who.id, &in, 1, 1, attr, sizeof *attr, weights, 2, out);
}

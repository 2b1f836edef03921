/* conv_pass.c — a pass from shapes: taps, sizes, and how its work is cut. */
#include <string.h>

#include "ops/conv_plan.h"

static int64_t modulo(int64_t a, int64_t b) { return ((a % b) + b) % b; }

int64_t gap_conv_chain(int64_t terms) { return terms > 0 && terms < CONV_CHAIN ? CONV_CHAIN / terms : 1; }

int64_t gap_conv_lo(const conv_pass *p, int64_t o) {
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

/* What kernels/conv.h has for groups: 3 columns side by side, all of a sum in one chain. */
static int64_t group_of(const conv_pass *p) {
    const int64_t each = p->in_c / p->groups;
    const bool fits = p->lanes == 16 && p->out_c == p->in_c && (each == 4 || each == 8) && p->kernel[1] == 3 && p->dilation[1] == 1 && p->stride[1] <= 2;
    return fits && p->taps * each <= CONV_CHAIN ? each : 0;
}

/* Sizes, offsets and packing: everything that the sums depend on. */
static void pass_shape(conv_pass *p, const gap_op *op, bool backward) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    const gap_desc *x = &op->in_desc[0], *y = &op->out_desc[0], *in = backward ? y : x, *out = backward ? x : y;
    memset(p, 0, sizeof *p);
    p->backward = backward;
    p->groups = a->groups;
    p->lanes = in->layout == GAP_NHWC ? in->dim[0] : 16;
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
    p->group = group_of(p);
    p->run = p->group ? p->group : p->lanes == 16 ? 16 : run ? p->kernel[1] * p->lanes : p->lanes;
    p->range = 1;
    if (p->lanes == 16)
        for (int64_t o = 0; o < p->out_blocks; o++) p->range = gap_max64(p->range, reach(p, o));
    p->w_oc = p->range * p->entries * p->run * 16;
}

/* A 1x1 kernel at stride 1 without padding: the plane is one row. A function of shape alone, as sums depend on it. */
static void flatten(conv_pass *p) {
    p->flat = p->taps == 1 && p->stride[0] == 1 && p->stride[1] == 1 && p->in_h == p->out_h && p->in_w == p->out_w;
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
    const bool apart = p->groups > 1 && p->range == 1; /* an output block has its own input block: a unit each */
    const int64_t blocks = apart ? 1 : p->in_blocks, budget = (int64_t)CONV_SCRATCH;
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
    const int64_t units = gap_ceil_div(capacity, p->images) * p->n_row_bands * p->n_col_bands;
    p->n_oc_parts = gap_min64(gap_ceil_div(packed ? CONV_UNITS / 2 : CONV_UNITS, units), gap_ceil_div(p->out_blocks, 4));
    if (apart) p->n_oc_parts = p->out_blocks;
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

/* pointwise_case.h — a pointwise convolution alone, with buffers for every fusion: shared by its test and its bench. */
#ifndef GAP_TESTS_POINTWISE_CASE_H
#define GAP_TESTS_POINTWISE_CASE_H

#include "kernels/stream.h"
#include "op_harness.h"
#include "ops/conv_pointwise.h"
#include "ops/scratch.h"

typedef struct { int64_t n, c, oc, h, w, s[2]; } pw_shape;

typedef struct {
    gap_oplist list;
    gap_op *op;
    gap_op_ctx ctx;
    gap_pointwise plan;
    int slots;
    int64_t in_plane, out_plane, in_blocks, out_blocks, in_pieces, out_pieces; /* planes in floats */
    size_t n_x, n_y, n_w, n_in_sums, n_out_sums;
    float *x, *rx, *ox, *zx;        /* inputs: z1, a residual, a forward value and a second z for masks */
    float *dy, *zy, *ry;            /* outputs: g, z2, a residual */
    float *y, *dx, *w, *b, *dw, *out_sums, *in_sums, *in_sums2;
    float *vx[8], *vy[8];           /* vectors over padded channels of the input, of the output; [7]: (n, padded) gates */
    unsigned char *work, *derived, *derived_back;
    size_t work_bytes, derived_bytes, back_bytes;
} pw_case;

static bool pw_strassen = true; /* plans made from now on may use Strassen's method, as in precision "fast" */

#define PW_GUARD 256 /* bytes behind workspace and derived data that must stay as they are */

/* Pixels of real channels drawn from `seed`; padding lanes are 0. */
static inline float *pw_image(int64_t n, const gap_desc *d, uint32_t seed) {
    float *p = NULL;
    CHECK_OK(gap_alloc(&p, (size_t)(n * gap_desc_stored(d)), 4));
    if (p) op_fill_image(p, n, d, seed);
    return p;
}

static inline float *pw_blank(size_t n) { /* NaN: nothing may be read before it is written */
    float *p = NULL;
    CHECK_OK(gap_alloc(&p, n, 4));
    if (p) memset(p, 0xFF, n * 4);
    return p;
}

static inline void pw_vectors(float *v[8], int64_t capacity, int64_t channels, int64_t blocks, uint32_t seed) {
    for (int k = 0; k < 8; k++) {
        const int64_t rows = k == 7 ? capacity : 1;
        CHECK_OK(gap_alloc(&v[k], (size_t)(rows * blocks * 16), 4));
        for (int64_t r = 0; r < rows; r++) harness_fill(v[k] + r * blocks * 16, (size_t)channels, seed + (uint32_t)k + 100 * (uint32_t)r);
    }
}

/* `extra`: bytes of workspace beside its own need, for a bench that runs another method in it. */
static inline void pw_make(pw_case *c, const pw_shape *s, const gap_kernels *kernels, int64_t capacity, bool training, size_t extra) {
    memset(c, 0, sizeof *c);
    gap_oplist_init(&c->list, training);
    const gap_desc in = gap_desc_image(s->c, s->h, s->w);
    const gap_conv_attr attr = {.out_channels = s->oc, .groups = 1, .kernel = {1, 1}, .stride = {s->s[0], s->s[1]}, .dilation = {1, 1}};
    int value, out;
    CHECK_OK(gap_oplist_value(&c->list, &in, &value));
    CHECK_OK(gap_emit_conv(&c->list, (gap_origin){"conv", 0}, value, &attr, 0, 1, &out));
    c->op = &c->list.op[0];
    CHECK(gap_pointwise_fits(c->op));
    gap_pointwise_plan(&c->plan, c->op, capacity, pw_strassen);
    const gap_desc *o = &c->op->out_desc[0];
    c->slots = gap_scratch_count();
    c->in_blocks = c->plan.in_blocks, c->out_blocks = c->plan.out_blocks;
    c->in_plane = in.dim[1] * in.dim[2] * 16, c->out_plane = o->dim[1] * o->dim[2] * 16;
    c->in_pieces = gap_pieces(in.dim[1], in.dim[2]), c->out_pieces = gap_pieces(o->dim[1], o->dim[2]);
    c->n_x = (size_t)(capacity * c->in_blocks * c->in_plane), c->n_y = (size_t)(capacity * c->out_blocks * c->out_plane);
    c->n_w = (size_t)(s->c * s->oc);
    c->n_in_sums = (size_t)(capacity * c->in_pieces * 2 * c->in_blocks * 16), c->n_out_sums = (size_t)(capacity * c->out_pieces * 2 * c->out_blocks * 16);
    c->x = pw_image(capacity, &in, 1), c->rx = pw_image(capacity, &in, 2), c->ox = pw_image(capacity, &in, 3), c->zx = pw_image(capacity, &in, 4);
    c->dy = pw_image(capacity, o, 5), c->zy = pw_image(capacity, o, 6), c->ry = pw_image(capacity, o, 7);
    c->y = pw_blank(c->n_y), c->dx = pw_blank(c->n_x), c->dw = pw_blank(c->n_w);
    c->w = pw_blank(c->n_w), c->b = pw_blank((size_t)s->oc);
    c->out_sums = pw_blank(c->n_out_sums), c->in_sums = pw_blank(c->n_in_sums), c->in_sums2 = pw_blank(c->n_in_sums);
    harness_fill(c->w, c->n_w, 8), harness_fill(c->b, (size_t)s->oc, 9);
    pw_vectors(c->vx, capacity, s->c, c->in_blocks, 10), pw_vectors(c->vy, capacity, s->oc, c->out_blocks, 1000);
    c->work_bytes = gap_pointwise_workspace_bytes(&c->plan, training, c->slots) + extra, c->derived_bytes = gap_pointwise_derived_bytes(&c->plan), c->back_bytes = gap_pointwise_derived_back_bytes(&c->plan);
    CHECK_OK(gap_alloc(&c->work, c->work_bytes + PW_GUARD, 1));
    CHECK_OK(gap_alloc(&c->derived, c->derived_bytes + PW_GUARD, 1));
    CHECK_OK(gap_alloc(&c->derived_back, c->back_bytes + PW_GUARD, 1));
    memset(c->work, 0xFF, c->work_bytes + PW_GUARD), memset(c->derived, 0xFF, c->derived_bytes + PW_GUARD), memset(c->derived_back, 0xFF, c->back_bytes + PW_GUARD);
    c->ctx = (gap_op_ctx){.n = capacity, .capacity = capacity, .training = training, .workspace = c->work, .derived = c->derived, .kernels = kernels};
    CHECK_OK(gap_pointwise_derive(&c->plan, c->w, c->b, c->derived));
    CHECK_OK(gap_pointwise_derive_back(&c->plan, c->w, c->derived_back));
}

static inline void pw_free(pw_case *c) {
    float *all[] = {c->x, c->rx, c->ox, c->zx, c->dy, c->zy, c->ry, c->y, c->dx, c->w, c->b, c->dw, c->out_sums, c->in_sums, c->in_sums2};
    for (int k = 0; k < PW_GUARD; k++) CHECK(c->work[c->work_bytes + (size_t)k] == 0xFF && c->derived[c->derived_bytes + (size_t)k] == 0xFF && c->derived_back[c->back_bytes + (size_t)k] == 0xFF);
    for (int k = 0; k < GAP_COUNTOF(all); k++) gap_free(all[k]);
    for (int k = 0; k < 8; k++) gap_free(c->vx[k]), gap_free(c->vy[k]);
    gap_free(c->work), gap_free(c->derived), gap_free(c->derived_back);
    gap_oplist_free(&c->list);
}

static inline gap_source pw_source_x(const pw_case *c) { return (gap_source){.x = c->x, .plane = c->in_plane, .blocks = c->in_blocks}; }
static inline gap_source pw_source_dy(const pw_case *c) { return (gap_source){.x = c->dy, .plane = c->out_plane, .blocks = c->out_blocks}; }
static inline gap_sink pw_sink_y(const pw_case *c) { return (gap_sink){.y = c->y, .plane = c->out_plane, .blocks = c->out_blocks, .pieces = c->out_pieces}; }
static inline gap_sink pw_sink_dx(const pw_case *c) { return (gap_sink){.y = c->dx, .plane = c->in_plane, .blocks = c->in_blocks, .pieces = c->in_pieces}; }

/* As in training between BatchNorms: the input through scale, shift and ReLU6, the output's sums; the output's gradient through
 * its coefficients, the input's through the mask and its sums. */
static inline gap_source pw_norm_x(const pw_case *c) {
    gap_source s = pw_source_x(c);
    s.pro.scale = c->vx[0], s.pro.shift = c->vx[1], s.pro.act = GAP_ACT_RELU6;
    return s;
}
static inline gap_source pw_norm_dy(const pw_case *c) {
    gap_source s = pw_source_dy(c);
    s.pro.scale = c->vy[0], s.pro.z = c->zy, s.pro.mean = c->vy[1], s.pro.b = c->vy[2], s.pro.c = c->vy[3];
    return s;
}
static inline gap_sink pw_sums_y(const pw_case *c) {
    gap_sink s = pw_sink_y(c);
    s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_SUMS, .pivot = c->vy[4], .sums = c->out_sums};
    return s;
}
static inline gap_sink pw_mask_dx(const pw_case *c) {
    gap_sink s = pw_sink_dx(c);
    s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_MASK, .act = GAP_ACT_RELU6, .scale = c->vx[0], .shift = c->vx[1], .z = c->x, .mean = c->vx[4], .sums = c->in_sums};
    return s;
}

#endif

/* depthwise_case.h — a depthwise convolution alone, with buffers for every fusion: shared by its test and its bench. */
#ifndef GAP_TESTS_DEPTHWISE_CASE_H
#define GAP_TESTS_DEPTHWISE_CASE_H

#include "kernels/stream.h"
#include "op_harness.h"
#include "ops/conv_depthwise.h"
#include "ops/scratch.h"

typedef struct { int64_t n, c, h, w, k[2], s[2], p[2], d[2]; } dw_shape;

typedef struct {
    gap_oplist list;
    gap_op *op;
    gap_op_ctx ctx;
    gap_depthwise plan;
    int slots;
    int64_t in_plane, out_plane, blocks, in_pieces, out_pieces; /* planes in floats */
    size_t n_x, n_y, n_w, n_in_sums, n_out_sums, work_bytes;
    float *x, *rx, *ox, *zx;        /* inputs: z1, a residual, a forward value and a second z for masks */
    float *dy, *zy, *ry;            /* outputs: g, z2, a residual */
    float *y, *dx, *w, *b, *dw, *out_sums, *in_sums, *in_sums2;
    float *v[8];                    /* vectors over padded channels; v[7]: (n, padded) gates */
    unsigned char *work;
    void *derived;
} dw_case;

/* Pixels of real channels drawn from `seed`; padding lanes are 0. */
static inline float *dw_image(int64_t n, const gap_desc *d, uint32_t seed) {
    float *p = NULL;
    CHECK_OK(gap_alloc(&p, (size_t)(n * gap_desc_stored(d)), 4));
    if (p) op_fill_image(p, n, d, seed);
    return p;
}

static inline float *dw_blank(size_t n) { /* NaN: nothing may be read before it is written */
    float *p = NULL;
    CHECK_OK(gap_alloc(&p, n, 4));
    if (p) memset(p, 0xFF, n * 4);
    return p;
}

static inline void dw_make(dw_case *c, const dw_shape *s, const gap_kernels *kernels, int64_t capacity, bool training) {
    memset(c, 0, sizeof *c);
    gap_oplist_init(&c->list, training);
    const gap_desc in = gap_desc_image(s->c, s->h, s->w);
    gap_conv_attr attr = {.out_channels = s->c, .groups = s->c};
    for (int k = 0; k < 2; k++) attr.kernel[k] = s->k[k], attr.stride[k] = s->s[k], attr.padding[k] = s->p[k], attr.dilation[k] = s->d[k];
    int value, out;
    CHECK_OK(gap_oplist_value(&c->list, &in, &value));
    CHECK_OK(gap_emit_conv(&c->list, (gap_origin){"conv", 0}, value, &attr, 0, 1, &out));
    c->op = &c->list.op[0];
    CHECK(gap_depthwise_fits(c->op));
    gap_depthwise_plan(&c->plan, c->op, capacity);
    const gap_desc *o = &c->op->out_desc[0];
    c->slots = gap_scratch_count();
    c->blocks = c->plan.blocks, c->in_plane = in.dim[1] * in.dim[2] * 16, c->out_plane = o->dim[1] * o->dim[2] * 16;
    c->in_pieces = gap_pieces(in.dim[1], in.dim[2]), c->out_pieces = gap_pieces(o->dim[1], o->dim[2]);
    c->n_x = (size_t)(capacity * c->blocks * c->in_plane), c->n_y = (size_t)(capacity * c->blocks * c->out_plane);
    c->n_w = (size_t)(s->c * s->k[0] * s->k[1]);
    c->n_in_sums = (size_t)(capacity * c->in_pieces * 2 * c->blocks * 16), c->n_out_sums = (size_t)(capacity * c->out_pieces * 2 * c->blocks * 16);
    c->x = dw_image(capacity, &in, 1), c->rx = dw_image(capacity, &in, 2), c->ox = dw_image(capacity, &in, 3), c->zx = dw_image(capacity, &in, 4);
    c->dy = dw_image(capacity, o, 5), c->zy = dw_image(capacity, o, 6), c->ry = dw_image(capacity, o, 7);
    c->y = dw_blank(c->n_y), c->dx = dw_blank(c->n_x), c->dw = dw_blank(c->n_w);
    c->w = dw_blank(c->n_w), c->b = dw_blank((size_t)s->c);
    c->out_sums = dw_blank(c->n_out_sums), c->in_sums = dw_blank(c->n_in_sums), c->in_sums2 = dw_blank(c->n_in_sums);
    harness_fill(c->w, c->n_w, 8), harness_fill(c->b, (size_t)s->c, 9);
    for (int k = 0; k < 8; k++) {
        const int64_t rows = k == 7 ? capacity : 1;
        CHECK_OK(gap_alloc(&c->v[k], (size_t)(rows * c->blocks * 16), 4));
        for (int64_t r = 0; r < rows; r++) harness_fill(c->v[k] + r * c->blocks * 16, (size_t)s->c, 10 + (uint32_t)k + 100 * (uint32_t)r);
    }
    c->work_bytes = gap_depthwise_workspace_bytes(&c->plan, training, c->slots);
    CHECK_OK(gap_alloc(&c->work, c->work_bytes, 1));
    CHECK_OK(gap_alloc(&c->derived, gap_depthwise_derived_bytes(&c->plan), 1));
    memset(c->work, 0xFF, c->work_bytes);
    c->ctx = (gap_op_ctx){.n = capacity, .capacity = capacity, .training = training, .workspace = c->work, .kernels = kernels};
    CHECK_OK(gap_depthwise_derive(&c->plan, c->w, c->b, c->derived));
}

static inline void dw_free(dw_case *c) {
    float *all[] = {c->x, c->rx, c->ox, c->zx, c->dy, c->zy, c->ry, c->y, c->dx, c->w, c->b, c->dw, c->out_sums, c->in_sums, c->in_sums2};
    for (int k = 0; k < GAP_COUNTOF(all); k++) gap_free(all[k]);
    for (int k = 0; k < 8; k++) gap_free(c->v[k]);
    gap_free(c->work), gap_free(c->derived);
    gap_oplist_free(&c->list);
}

static inline gap_source dw_source(const dw_case *c, const float *x, int64_t plane) { return (gap_source){.x = x, .plane = plane, .blocks = c->blocks}; }
static inline gap_sink dw_sink(const dw_case *c, float *y, int64_t plane, int64_t pieces) {
    return (gap_sink){.y = y, .plane = plane, .blocks = c->blocks, .pieces = pieces};
}

#endif

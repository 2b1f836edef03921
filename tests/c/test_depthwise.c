/* Depthwise convolution against the definition in double, against its parts done one after another, and against itself:
 * kernel sets, thread counts, batch sizes. */
#include "depthwise_case.h"

static const dw_shape shapes[] = {
    {3, 32, 9, 8, {3, 3}, {1, 1}, {1, 1}, {1, 1}},    {2, 40, 13, 9, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {2, 24, 10, 11, {5, 5}, {2, 2}, {2, 2}, {1, 1}},  {5, 16, 7, 7, {3, 3}, {1, 1}, {1, 1}, {1, 1}},
    {4, 20, 14, 14, {5, 5}, {1, 1}, {2, 2}, {1, 1}},  {1, 16, 40, 37, {3, 3}, {1, 1}, {1, 1}, {1, 1}}, /* several pieces */
    {2, 16, 45, 41, {3, 3}, {2, 2}, {1, 1}, {1, 1}},  {1, 17, 33, 60, {5, 5}, {2, 2}, {2, 2}, {1, 1}},
    {1, 16, 56, 24, {5, 5}, {1, 1}, {2, 2}, {1, 1}},  {2, 16, 12, 12, {3, 3}, {1, 1}, {2, 2}, {2, 2}},
    {2, 16, 30, 31, {3, 3}, {2, 2}, {2, 2}, {2, 2}},  {1, 16, 15, 15, {3, 3}, {3, 2}, {1, 0}, {1, 3}},
    {2, 16, 8, 8, {1, 1}, {1, 1}, {0, 0}, {1, 1}},    {2, 19, 9, 9, {1, 1}, {2, 2}, {0, 0}, {1, 1}},   /* phases without taps */
    {2, 16, 14, 13, {7, 7}, {1, 1}, {3, 3}, {1, 1}},  {1, 16, 33, 20, {7, 7}, {2, 2}, {3, 3}, {1, 1}},
    {2, 16, 5, 5, {2, 2}, {2, 2}, {0, 0}, {1, 1}},    {1, 16, 3, 3, {3, 3}, {1, 1}, {4, 4}, {1, 1}},   /* more padding than kernel */
    {2, 33, 3, 2, {1, 1}, {1, 1}, {3, 2}, {1, 1}},    {1, 16, 23, 25, {3, 5}, {5, 6}, {1, 2}, {1, 1}}, /* strides beyond the kernel */
    {3, 48, 1, 1, {3, 3}, {1, 1}, {1, 1}, {1, 1}},    {2, 16, 1, 300, {1, 3}, {1, 1}, {0, 1}, {1, 1}},
    {2, 16, 300, 1, {3, 1}, {1, 2}, {1, 0}, {1, 1}},  {1, 16, 20, 20, {4, 6}, {1, 1}, {2, 3}, {1, 1}},
    {1, 32, 64, 64, {3, 3}, {1, 1}, {6, 6}, {6, 6}},
    {2, 24, 14, 14, {5, 5}, {2, 2}, {2, 2}, {1, 1}},  {1, 16, 57, 55, {5, 5}, {2, 2}, {2, 2}, {1, 1}}, /* read straight on: whole tiles */
    {3, 16, 15, 16, {3, 3}, {2, 2}, {1, 1}, {1, 1}},  {1, 32, 112, 56, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {2, 16, 8, 7, {5, 5}, {2, 2}, {2, 2}, {1, 1}},    {1, 16, 2, 13, {3, 3}, {2, 2}, {1, 1}, {1, 1}},
    {2, 24, 28, 28, {3, 3}, {1, 1}, {1, 1}, {1, 1}},  {2, 16, 15, 14, {3, 3}, {1, 1}, {1, 1}, {1, 1}}, /* back in tiles of 7: several pieces, steps */
    {3, 40, 1, 7, {3, 3}, {1, 1}, {1, 1}, {1, 1}},    {1, 16, 31, 28, {5, 5}, {2, 2}, {2, 2}, {1, 1}},
};

static const char *const set_names[] = {"avx512", "avx2", "neon", "ref"};
static const gap_kernel_set_id set_ids[] = {GAP_SET_AVX512, GAP_SET_AVX2, GAP_SET_NEON, GAP_SET_REF};

static const gap_kernels *kernels_of(const char *set) {
    const gap_kernels *k = NULL;
    CHECK_OK(gap_kernels_find(&k, set));
    return k;
}

/* ---- what is run: nothing fused, or one of these fusions ---- */

typedef struct {
    int pro_x, pro_dy, epi_y, epi_dx; /* 0: none */
    bool add, bias;
} fusion;
static const fusion plain = {0, 0, 0, 0, false, true};
static const fusion fusions[] = {
    {1, 1, 1, 1, false, false}, {2, 1, 2, 2, false, true}, {3, 2, 3, 3, false, true}, {4, 1, 1, 4, true, false}, {0, 2, 3, 5, true, true}, {5, 0, 2, 1, false, false},
    {0, 1, 4, 1, false, true}, {6, 0, 4, 0, false, false}, {6, 1, 0, 6, false, false}, {7, 0, 0, 7, false, false}, {1, 0, 0, 1, false, false},
};

static gap_source source_x(const dw_case *c, int kind) {
    gap_source s = dw_source(c, c->x, c->in_plane);
    if (kind >= 1 && kind <= 4) s.pro.scale = c->v[0], s.pro.shift = c->v[1], s.pro.act = GAP_ACT_RELU6;
    if (kind == 2) s.pro.act = GAP_ACT_HARDSWISH;
    if (kind == 3) s.pro.residual = c->rx, s.pro.residual_scale = c->v[2], s.pro.residual_shift = c->v[3], s.pro.act = GAP_ACT_LEAKY_RELU, s.pro.act_arg = 0.1f;
    if (kind == 4) s.pro.gate = c->v[7], s.pro.act = GAP_ACT_SILU;
    if (kind == 5 || kind == 6) s.pro.act = GAP_ACT_RELU;
    if (kind == 7) s.pro.act = GAP_ACT_SILU;
    if (kind == 6 || kind == 7) s.pro.scale = c->v[0], s.pro.shift = c->v[1];
    return s;
}

static gap_source source_dy(const dw_case *c, int kind) {
    gap_source s = dw_source(c, c->dy, c->out_plane);
    if (kind) s.pro.scale = c->v[0], s.pro.z = c->zy, s.pro.mean = c->v[1], s.pro.b = c->v[2], s.pro.c = c->v[3];
    if (kind == 2) s.pro.residual = c->ry;
    return s;
}

static gap_sink sink_y(const dw_case *c, int kind, bool add) {
    gap_sink s = dw_sink(c, c->y, c->out_plane, c->out_pieces);
    s.add = add;
    if (kind == 1) s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_SUMS, .pivot = c->v[4], .sums = c->out_sums};
    if (kind == 2) s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_SUMS, .sums = c->out_sums};
    if (kind == 3) s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_APPLY, .scale = c->v[5], .shift = c->v[6], .residual = c->ry, .act = GAP_ACT_HARDSWISH};
    if (kind == 4) s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_APPLY, .scale = c->v[5], .shift = c->v[6], .act = GAP_ACT_RELU6};
    return s;
}

static gap_sink sink_dx(const dw_case *c, int kind, bool add) {
    gap_sink s = dw_sink(c, c->dx, c->in_plane, c->in_pieces);
    s.add = add;
    if (!kind) return s;
    s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_MASK, .act = GAP_ACT_RELU6, .scale = c->v[0], .shift = c->v[1], .z = c->x, .mean = c->v[4], .sums = c->in_sums};
    if (kind == 2) s.epi.act = GAP_ACT_HARDSWISH;
    if (kind == 3) s.epi.act = GAP_ACT_RELU, s.epi.out = c->ox, s.epi.z = NULL, s.epi.mean = NULL;
    if (kind == 4) s.epi.act = GAP_ACT_LEAKY_RELU, s.epi.act_arg = 0.2f, s.epi.out = c->ox, s.epi.z2 = c->zx, s.epi.mean2 = c->v[5], s.epi.sums2 = c->in_sums2;
    if (kind == 6) s.epi.act = GAP_ACT_RELU;
    if (kind == 7) s.epi.act = GAP_ACT_SILU;
    if (kind == 5) s.epi.act = GAP_ACT_SILU, s.epi.scale = s.epi.shift = NULL;
    return s;
}

static void run(dw_case *c, const fusion *f) {
    const gap_source x = source_x(c, f->pro_x), dy = source_dy(c, f->pro_dy);
    const gap_sink y = sink_y(c, f->epi_y, f->add), dx = sink_dx(c, f->epi_dx, f->add);
    if (f->add) {
        harness_fill(c->y, c->n_y, 21), harness_fill(c->dx, c->n_x, 22);
        if (c->ctx.training) harness_fill(c->dw, c->n_w, 23);
    }
    CHECK_OK(gap_depthwise_run(&c->plan, &c->ctx, c->derived, &x, &y, f->bias, c->slots));
    if (c->ctx.training) CHECK_OK(gap_depthwise_back(&c->plan, &c->ctx, c->derived, &x, &dy, &dx, c->dw, f->add, c->slots));
}

static void check_same(const dw_case *a, const dw_case *b, const char *what, int k) {
    char name[64];
    snprintf(name, sizeof name, "shape %d, %s", k, what);
    CHECK(op_same(name, a->y, b->y, a->n_y));
    CHECK(op_same(name, a->out_sums, b->out_sums, a->n_out_sums));
    if (!a->ctx.training) return;
    CHECK(op_same(name, a->dw, b->dw, a->n_w));
    CHECK(op_same(name, a->dx, b->dx, a->n_x));
    CHECK(op_same(name, a->in_sums, b->in_sums, a->n_in_sums));
    CHECK(op_same(name, a->in_sums2, b->in_sums2, a->n_in_sums));
}

/* ---- the definition ---- */

typedef struct { double *y, *dx, *dw; } truth;

static int64_t at_image(const gap_desc *d, int64_t n, int64_t c, int64_t h, int64_t w) {
    return n * gap_desc_stored(d) + ((c / 16 * d->dim[1] + h) * d->dim[2] + w) * 16 + c % 16;
}

static void define(truth *t, const dw_case *b, const dw_shape *s) {
    const gap_desc *in = &b->op->in_desc[0], *out = &b->op->out_desc[0];
    CHECK_OK(gap_alloc(&t->y, b->n_y, 8));
    CHECK_OK(gap_alloc(&t->dx, b->n_x, 8));
    CHECK_OK(gap_alloc(&t->dw, b->n_w, 8));
    for (int64_t n = 0; n < s->n; n++)
        for (int64_t c = 0; c < s->c; c++)
            for (int64_t i = 0; i < out->dim[1]; i++)
                for (int64_t j = 0; j < out->dim[2]; j++) {
                    const int64_t to = at_image(out, n, c, i, j);
                    double sum = (double)b->b[c];
                    for (int64_t kh = 0; kh < s->k[0]; kh++)
                        for (int64_t kw = 0; kw < s->k[1]; kw++) {
                            const int64_t h = i * s->s[0] - s->p[0] + kh * s->d[0], w = j * s->s[1] - s->p[1] + kw * s->d[1];
                            if (h < 0 || h >= s->h || w < 0 || w >= s->w) continue;
                            const int64_t wi = (c * s->k[0] + kh) * s->k[1] + kw, xi = at_image(in, n, c, h, w);
                            sum += (double)b->x[xi] * (double)b->w[wi];
                            t->dx[xi] += (double)b->dy[to] * (double)b->w[wi];
                            t->dw[wi] += (double)b->dy[to] * (double)b->x[xi];
                        }
                    t->y[to] = sum;
                }
}

static void free_truth(truth *t) { gap_free(t->y), gap_free(t->dx), gap_free(t->dw); }

static void one_against_definition(const dw_shape *s, const char *set, int k) {
    char name[64];
    dw_case c;
    truth t;
    dw_make(&c, s, kernels_of(set), s->n, true);
    run(&c, &plain);
    define(&t, &c, s);
    snprintf(name, sizeof name, "%s shape %d", set ? set : "best", k);
    CHECK(op_near(name, c.y, t.y, c.n_y, 2e-6)); /* padding lanes are 0 in both */
    CHECK(op_near(name, c.dw, t.dw, c.n_w, 2e-6));
    CHECK(op_near(name, c.dx, t.dx, c.n_x, 2e-6));
    free_truth(&t);
    dw_free(&c);
}

static void test_depthwise_definition(void) {
    for (int i = 0; i < GAP_COUNTOF(set_ids); i++)
        for (int k = 0; gap_kernels_available(set_ids[i]) && k < GAP_COUNTOF(shapes); k++) one_against_definition(&shapes[k], set_names[i], k);
}

static int64_t draw(uint32_t *state, int64_t lo, int64_t hi) { return lo + (int64_t)(harness_u32(state) % (uint32_t)(hi - lo + 1)); }

static dw_shape random_shape(uint32_t *state) {
    for (;;) {
        dw_shape s = {.n = draw(state, 1, 5), .c = draw(state, 1, 40), .h = draw(state, 1, 40), .w = draw(state, 1, 40)};
        for (int k = 0; k < 2; k++)
            s.k[k] = draw(state, 1, 7), s.s[k] = draw(state, 1, 3), s.p[k] = draw(state, 0, 3), s.d[k] = draw(state, 1, 2);
        if (draw(state, 0, 1)) s.k[1] = s.k[0] = 3 + 2 * draw(state, 0, 1), s.d[0] = s.d[1] = 1, s.s[0] = s.s[1] = draw(state, 1, 2);
        if (s.h + 2 * s.p[0] > s.d[0] * (s.k[0] - 1) && s.w + 2 * s.p[1] > s.d[1] * (s.k[1] - 1)) return s;
    }
}

/* Whatever comes: the definition, and one set's bits against another's, with something fused. */
static void test_depthwise_random_shapes(void) {
    uint32_t state = 2026;
    for (int k = 0; k < 150; k++) {
        const dw_shape s = random_shape(&state);
        const int before = harness_broken;
        one_against_definition(&s, NULL, k);
        if (gap_kernels_available(GAP_SET_AVX2)) {
            dw_case a, b;
            dw_make(&a, &s, kernels_of(NULL), s.n, true), dw_make(&b, &s, kernels_of("avx2"), s.n, true);
            run(&a, &fusions[k % GAP_COUNTOF(fusions)]), run(&b, &fusions[k % GAP_COUNTOF(fusions)]);
            check_same(&a, &b, "random", k);
            dw_free(&a), dw_free(&b);
        }
        if (harness_broken != before)
            printf("  n %d, c %d, %dx%d, kernel %dx%d, stride %d %d, padding %d %d, dilation %d %d\n", (int)s.n, (int)s.c, (int)s.h, (int)s.w, (int)s.k[0],
                   (int)s.k[1], (int)s.s[0], (int)s.s[1], (int)s.p[0], (int)s.p[1], (int)s.d[0], (int)s.d[1]);
    }
}

/* ---- fused against one thing after another ---- */

/* A plain copy of what a source means. */
static float *meaning(const dw_case *c, const gap_source *s, size_t n) {
    float *to = dw_blank(n);
    for (int64_t p = 0; p < c->ctx.n * c->blocks; p++) {
        const gap_prologue pro = gap_source_at(s, p / c->blocks, p % c->blocks);
        c->ctx.kernels->stream->map(s->plane / 16, s->x + p * s->plane, &pro, to + p * s->plane, false);
    }
    return to;
}

static void finish_all(const dw_case *c, const gap_sink *s, int64_t h, int64_t w) {
    for (int64_t p = 0; p < c->ctx.n * c->blocks; p++) {
        const gap_stream_finish f = {.y = s->y + p * s->plane, .pixels = h * w, .piece = gap_piece_rows(h, w) * w, .epi = gap_sink_at(s, p / c->blocks, p % c->blocks, 0, 0)};
        c->ctx.kernels->stream->finish(&f);
    }
}

static void run_apart(dw_case *c, const dw_shape *s, const fusion *f) {
    const gap_source x = source_x(c, f->pro_x), dy = source_dy(c, f->pro_dy);
    float *x_plain = meaning(c, &x, c->n_x), *dy_plain = meaning(c, &dy, c->n_y);
    const gap_source xs = dw_source(c, x_plain, c->in_plane), dys = dw_source(c, dy_plain, c->out_plane);
    const gap_sink y = sink_y(c, f->epi_y, f->add), dx = sink_dx(c, f->epi_dx, f->add);
    gap_sink yp = y, dxp = dx;
    yp.epi.kind = dxp.epi.kind = GAP_EPILOGUE_NONE;
    if (f->add) harness_fill(c->y, c->n_y, 21), harness_fill(c->dx, c->n_x, 22), harness_fill(c->dw, c->n_w, 23);
    CHECK_OK(gap_depthwise_run(&c->plan, &c->ctx, c->derived, &xs, &yp, f->bias, c->slots));
    CHECK_OK(gap_depthwise_back(&c->plan, &c->ctx, c->derived, &xs, &dys, &dxp, c->dw, f->add, c->slots));
    finish_all(c, &y, c->plan.out_h, c->plan.out_w);
    finish_all(c, &dx, s->h, s->w);
    gap_free(x_plain), gap_free(dy_plain);
}

static void test_depthwise_fused_is_one_thing_after_another(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++)
        for (int f = 0; f < GAP_COUNTOF(fusions); f++) {
            dw_case a, b;
            dw_make(&a, &shapes[k], kernels_of(NULL), shapes[k].n, true), dw_make(&b, &shapes[k], kernels_of(NULL), shapes[k].n, true);
            run(&a, &fusions[f]), run_apart(&b, &shapes[k], &fusions[f]);
            check_same(&a, &b, "apart", k);
            dw_free(&a), dw_free(&b);
        }
}

/* ---- the same bits ---- */

static void test_depthwise_same_bits_in_every_kernel_set(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++)
        for (int f = 0; f < 3; f++) {
            dw_case ref, b;
            dw_make(&ref, &shapes[k], kernels_of("ref"), shapes[k].n, true);
            run(&ref, &fusions[f]);
            for (int i = 0; i < GAP_COUNTOF(set_ids) - 1; i++) {
                if (!gap_kernels_available(set_ids[i])) continue;
                dw_make(&b, &shapes[k], kernels_of(set_names[i]), shapes[k].n, true);
                run(&b, &fusions[f]);
                check_same(&ref, &b, set_names[i], k);
                dw_free(&b);
            }
            dw_free(&ref);
        }
}

static void test_depthwise_same_bits_at_any_thread_count(void) {
    const int before = gap_threads_get();
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        dw_case one, b;
        CHECK_OK(gap_threads_set(1));
        dw_make(&one, &shapes[k], kernels_of(NULL), shapes[k].n, true);
        run(&one, &fusions[0]);
        dw_make(&b, &shapes[k], kernels_of(NULL), shapes[k].n, true);
        for (int t = 2; t <= 7; t += t == 3 ? 4 : 1) { /* also more threads than the plan was made for */
            CHECK_OK(gap_threads_set(t));
            run(&b, &fusions[0]);
            check_same(&one, &b, "threads", k);
        }
        dw_free(&one), dw_free(&b);
    }
    CHECK_OK(gap_threads_set(before));
}

/* A sample's output and its sums depend on no other sample, on its place, or on the plan's capacity. */
static void test_depthwise_forward_does_not_depend_on_the_batch(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        dw_case many, one;
        dw_make(&many, &shapes[k], kernels_of(NULL), shapes[k].n + 3, false), dw_make(&one, &shapes[k], kernels_of(NULL), 1, false);
        run(&many, &fusions[0]);
        for (int64_t n = 0; n < shapes[k].n + 3; n++) {
            memcpy(one.x, many.x + (size_t)n * one.n_x, one.n_x * 4);
            run(&one, &fusions[0]);
            CHECK(op_same("batch", many.y + (size_t)n * one.n_y, one.y, one.n_y));
            CHECK(op_same("sums", many.out_sums + (size_t)n * one.n_out_sums, one.out_sums, one.n_out_sums));
        }
        many.ctx.n = 1; /* a short batch in a larger plan */
        memcpy(many.x, many.x + (size_t)(shapes[k].n + 2) * one.n_x, one.n_x * 4);
        run(&many, &fusions[0]);
        CHECK(op_same("short batch", many.y, one.y, one.n_y));
        dw_free(&many), dw_free(&one);
    }
}

/* A short last batch: the gradients of its samples alone; dx has the bits of the full batch. */
static void test_depthwise_short_batch_gradients(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        dw_shape s = shapes[k];
        dw_case full, part;
        truth t;
        dw_make(&full, &s, kernels_of(NULL), s.n + 4, true), dw_make(&part, &s, kernels_of(NULL), s.n + 4, true);
        part.ctx.n = s.n;
        run(&full, &plain), run(&part, &plain);
        define(&t, &part, &s);
        CHECK(op_near("dw of a short batch", part.dw, t.dw, part.n_w, 2e-6));
        CHECK(op_same("dx of a short batch", part.dx, full.dx, (size_t)(s.n * part.blocks * part.in_plane)));
        free_truth(&t);
        dw_free(&full), dw_free(&part);
    }
}

/* Frozen weights, no input gradient: nothing else is written, the rest has the same bits. */
static void test_depthwise_only_what_is_wanted(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        dw_case all, c;
        dw_make(&all, &shapes[k], kernels_of(NULL), shapes[k].n, true), dw_make(&c, &shapes[k], kernels_of(NULL), shapes[k].n, true);
        run(&all, &fusions[0]);
        const gap_source x = source_x(&c, 1), dy = source_dy(&c, 1), none = {0};
        const gap_sink dx = sink_dx(&c, 1, false);
        float *untouched = dw_blank(c.n_x > c.n_w ? c.n_x : c.n_w);
        CHECK_OK(gap_depthwise_back(&c.plan, &c.ctx, c.derived, &none, &dy, &dx, NULL, false, c.slots));
        CHECK(op_same("dx alone", all.dx, c.dx, c.n_x) && op_same("its sums", all.in_sums, c.in_sums, c.n_in_sums));
        CHECK(memcmp(c.dw, untouched, c.n_w * 4) == 0);
        memset(c.dx, 0xFF, c.n_x * 4);
        CHECK_OK(gap_depthwise_back(&c.plan, &c.ctx, c.derived, &x, &dy, NULL, c.dw, false, c.slots));
        CHECK(op_same("dw alone", all.dw, c.dw, c.n_w));
        CHECK(memcmp(c.dx, untouched, c.n_x * 4) == 0);
        CHECK_OK(gap_depthwise_back(&c.plan, &c.ctx, c.derived, &x, &dy, NULL, NULL, false, c.slots));
        gap_free(untouched);
        dw_free(&all), dw_free(&c);
    }
}

static void test_depthwise_adds_where_asked(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        const dw_shape *s = &shapes[k];
        fusion f = plain;
        dw_case c;
        truth t;
        float *was;
        dw_make(&c, s, kernels_of(NULL), s->n, true);
        f.add = true, f.bias = false;
        memset(c.b, 0, (size_t)s->c * 4);
        run(&c, &f);
        define(&t, &c, s);
        const size_t most = c.n_x > c.n_y ? c.n_x : c.n_y;
        CHECK_OK(gap_alloc(&was, most > c.n_w ? most : c.n_w, 4));
        harness_fill(was, c.n_y, 21);
        for (size_t i = 0; i < c.n_y; i++) t.y[i] += (double)was[i];
        harness_fill(was, c.n_x, 22);
        for (size_t i = 0; i < c.n_x; i++) t.dx[i] += (double)was[i];
        harness_fill(was, c.n_w, 23);
        for (size_t i = 0; i < c.n_w; i++) t.dw[i] += (double)was[i];
        CHECK(op_near("added y", c.y, t.y, c.n_y, 2e-6));
        CHECK(op_near("added dx", c.dx, t.dx, c.n_x, 2e-6));
        CHECK(op_near("added dw", c.dw, t.dw, c.n_w, 2e-6));
        gap_free(was), free_truth(&t);
        dw_free(&c);
    }
}

static void test_depthwise_fits_only_depthwise(void) {
    static const struct { int64_t c, oc, g; bool pixels, fits; } cases[] = {
        {32, 32, 32, false, true}, {17, 17, 17, false, true}, {1, 1, 1, false, true}, {32, 64, 32, false, false}, {32, 32, 16, false, false}, {3, 3, 3, true, false},
    };
    for (int k = 0; k < GAP_COUNTOF(cases); k++) {
        gap_oplist list;
        gap_oplist_init(&list, true);
        gap_desc in = gap_desc_image(cases[k].c, 8, 8);
        if (cases[k].pixels) in.layout = GAP_NHWC, in.cb = 0;
        const gap_conv_attr attr = {.out_channels = cases[k].oc, .kernel = {3, 3}, .stride = {1, 1}, .dilation = {1, 1}, .groups = cases[k].g};
        int value, out;
        CHECK_OK(gap_oplist_value(&list, &in, &value));
        CHECK_OK(gap_emit_conv(&list, (gap_origin){"conv", 0}, value, &attr, 0, -1, &out));
        CHECK(gap_depthwise_fits(&list.op[0]) == cases[k].fits);
        gap_oplist_free(&list);
    }
}

/* ---- rows, finished in registers ---- */

enum { FIN_ROWS = 5, FIN_MOST = 28, FIN_IN = (FIN_ROWS * 2 + 5) * (FIN_MOST * 2 + 5) * 16, FIN_OUT = FIN_ROWS * FIN_MOST * 16 };
typedef struct { int taps, step, pixels, shift; bool stream; } finished_form;

/* Rows in two calls, finished by them; then by a pass. True: the set has a form for it, and its bits are those. */
static bool finished_like_a_pass(const gap_kernels *k, const finished_form *v, gap_epilogue e) {
    static float in[FIN_IN], w[25 * 16], sums[2][32];
    _Alignas(64) static float y[2][FIN_OUT + 16], state[9 * 16];
    const int64_t cols = (int64_t)(v->pixels - 1) * v->step + v->taps;
    const float *row[FIN_ROWS * 2 + 5];
    harness_fill(in, FIN_IN, 3), harness_fill(w, 25 * 16, 4);
    memset(y, 0, sizeof y), memset(sums, 0, sizeof sums);
    for (int i = 0; i < FIN_ROWS * 2 + 5; i++) row[i] = in + i * cols * 16;
    gap_depthwise_rows r = {.taps = {.row = row, .row_step = v->step, .row_tap = 1, .px = v->step * 16, .col_tap = 16, .taps_h = v->taps, .taps_w = v->taps},
                            .w = w, .bias = w, .y = y[0] + v->shift, .y_row = v->pixels * 16, .y_px = 16, .rows = 2, .pixels = v->pixels};
    e.sums = sums[0], e.sums_second = 16;
    gap_depthwise_finish f = {.epi = &e, .state = state, .piece = FIN_ROWS * v->pixels, .stream = v->stream};
    if (!k->depthwise->rows_finished(&r, &f)) return false;
    r.taps.row += 2 * v->step, r.y += 2 * r.y_row, r.rows = FIN_ROWS - 2, f.pixel = 2 * v->pixels;
    CHECK(k->depthwise->rows_finished(&r, &f));
    r.taps.row = row, r.y = y[1] + v->shift, r.rows = FIN_ROWS, e.sums = sums[1];
    k->depthwise->rows(&r);
    k->stream->finish(&(gap_stream_finish){.y = r.y, .pixels = f.piece, .piece = f.piece, .epi = e});
    CHECK(memcmp(y[0], y[1], sizeof y[0]) == 0);
    CHECK(memcmp(sums[0], sums[1], sizeof sums[0]) == 0);
    return true;
}

static void test_depthwise_rows_finished_like_a_pass_over_them(void) {
    static const int widths[] = {4, 7, 8, 14, 21, 28, 5};
    static float vector[3][16];
    for (int k = 0; k < 3; k++) harness_fill(vector[k], 16, 20 + (uint32_t)k);
    const gap_epilogue ends[] = {{.kind = GAP_EPILOGUE_NONE},
                                 {.kind = GAP_EPILOGUE_SUMS},
                                 {.kind = GAP_EPILOGUE_SUMS, .pivot = vector[2]},
                                 {.kind = GAP_EPILOGUE_APPLY, .scale = vector[0], .shift = vector[1]},
                                 {.kind = GAP_EPILOGUE_APPLY, .scale = vector[0], .shift = vector[1], .act = GAP_ACT_RELU},
                                 {.kind = GAP_EPILOGUE_APPLY, .scale = vector[0], .shift = vector[1], .act = GAP_ACT_RELU6},
                                 {.kind = GAP_EPILOGUE_APPLY, .scale = vector[0], .shift = vector[1], .act = GAP_ACT_HARDSWISH},
                                 {.kind = GAP_EPILOGUE_APPLY, .scale = vector[0], .shift = vector[1], .act = GAP_ACT_SILU}};
    for (int i = 0; i < GAP_COUNTOF(set_ids); i++) {
        if (!gap_kernels_available(set_ids[i])) continue;
        const gap_kernels *k = kernels_of(set_names[i]);
        int done = 0;
        for (int c = 0; c < GAP_COUNTOF(widths) * 16; c++) {
            const finished_form v = {c & 1 ? 5 : 3, c & 2 ? 2 : 1, widths[c / 16], c & 4 ? 4 : 0, (c & 8) != 0};
            for (int e = 0; e < GAP_COUNTOF(ends); e++) done += finished_like_a_pass(k, &v, ends[e]);
        }
        const int forms = set_ids[i] == GAP_SET_AVX512 ? 7 : set_ids[i] == GAP_SET_AVX2 ? 5 : 0; /* AVX2 has no registers for sums */
        CHECK(done >= 6 * 16 * forms);
    }
}

/* ---- back, a plane at once ---- */

enum { BACK_H = 13, BACK_MOST = 14, BACK_IN = BACK_H * BACK_MOST * 16 };

/* A plane of that width past the caches, then the same twice through them, beside a plane that shares its work: equal bits. False:
 * the set has no form for it. */
static bool back_streams(const gap_kernels *k, int kernel, int stride, int width, gap_act act, bool z) {
    static float x[BACK_IN], dy[BACK_IN], zy[BACK_IN], w[25 * 16], v[6][16], work[(5 * (BACK_MOST + 2) + 30) * 16];
    _Alignas(64) static float dx[2][BACK_IN];
    float dw[2][25 * 16] = {{0}}, sums[2][64] = {{0}};
    harness_fill(x, BACK_IN, 3), harness_fill(dy, BACK_IN, 4), harness_fill(zy, BACK_IN, 5), harness_fill(w, 25 * 16, 6);
    for (int i = 0; i < 6; i++) harness_fill(v[i], 16, 7 + (uint32_t)i);
    memset(dx, 0, sizeof dx), memset(work, 0xFF, sizeof work);
    gap_prologue pro = {0};
    if (z) pro = (gap_prologue){.scale = v[0], .z = zy, .mean = v[1], .b = v[2], .c = v[3]};
    gap_epilogue e = {.kind = GAP_EPILOGUE_MASK, .act = act, .scale = v[4], .shift = v[5], .z = x, .sums = sums[0], .sums_piece = 32, .sums_second = 16};
    const int64_t out_w = (width + stride - 1) / stride;
    gap_depthwise_sweep_back b = {.x = x, .dy = dy, .w = w, .pro = &pro, .epi = &e, .dx = dx[0], .dw = dw[0], .in_h = BACK_H, .in_w = width,
                                  .out_h = (BACK_H + stride - 1) / stride, .out_w = out_w, .step = 3, .piece = 8, .kernel = kernel, .stride = stride,
                                  .stream = true, .begins = true, .ends = true, .work = work};
    CHECK((size_t)gap_depthwise_back_floats(out_w) <= sizeof work / 4);
    if (!k->depthwise->sweep_back(&b)) return false;
    b.stream = false, b.begins = b.ends = false, b.dx = dx[1], b.dw = dw[1], e.sums = sums[1]; /* what the last plane left in `work` */
    CHECK(k->depthwise->sweep_back(&b));
    CHECK(memcmp(dx[0], dx[1], sizeof dx[0]) == 0 && memcmp(dw[0], dw[1], sizeof dw[0]) == 0 && memcmp(sums[0], sums[1], sizeof sums[0]) == 0);
    for (int64_t i = 0; i < BACK_IN; i++) CHECK((i < (int64_t)BACK_H * width * 16) || dx[0][i] == 0.0f);
    return true;
}

static void test_depthwise_back_streams_with_the_same_bits(void) {
    static const int forms[][2] = {{3, 1}, {3, 2}, {5, 2}, {5, 1}, {7, 1}}, widths[] = {7, 14, 12, 9, 3};
    static const gap_act acts[] = {GAP_ACT_RELU, GAP_ACT_RELU6, GAP_ACT_HARDSWISH, GAP_ACT_SILU, GAP_ACT_TANH};
    for (int i = 0; i < GAP_COUNTOF(set_ids); i++) {
        if (!gap_kernels_available(set_ids[i])) continue;
        int done = 0;
        for (int c = 0; c < 250; c++) done += back_streams(kernels_of(set_names[i]), forms[c % 5][0], forms[c % 5][1], widths[c / 5 % 5], acts[c / 25 % 5], c >= 125);
        CHECK(done == (set_ids[i] == GAP_SET_AVX512 || set_ids[i] == GAP_SET_AVX2 ? 3 * 5 * 4 * 2 : 0));
    }
}

int main(void) {
    RUN(test_depthwise_definition);
    RUN(test_depthwise_random_shapes);
    RUN(test_depthwise_fused_is_one_thing_after_another);
    RUN(test_depthwise_same_bits_in_every_kernel_set);
    RUN(test_depthwise_same_bits_at_any_thread_count);
    RUN(test_depthwise_forward_does_not_depend_on_the_batch);
    RUN(test_depthwise_short_batch_gradients);
    RUN(test_depthwise_only_what_is_wanted);
    RUN(test_depthwise_adds_where_asked);
    RUN(test_depthwise_fits_only_depthwise);
    RUN(test_depthwise_rows_finished_like_a_pass_over_them);
    RUN(test_depthwise_back_streams_with_the_same_bits);
    return harness_end();
}

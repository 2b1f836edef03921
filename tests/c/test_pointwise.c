/* Pointwise convolution against the definition in double, against its parts done one after another, and against itself:
 * kernel sets, thread counts, batch sizes. */
#include "pointwise_case.h"

static const pw_shape shapes[] = {
    {3, 32, 16, 9, 8, {1, 1}},    {2, 16, 96, 37, 29, {1, 1}},  {2, 24, 40, 40, 21, {1, 1}},  {5, 17, 33, 7, 7, {1, 1}},
    {4, 40, 24, 14, 14, {1, 1}},  {3, 160, 20, 5, 6, {1, 1}},   {2, 20, 170, 11, 12, {1, 1}}, {1, 300, 310, 6, 7, {1, 1}}, /* several chains */
    {3, 7, 5, 1, 1, {1, 1}},      {5, 96, 24, 1, 1, {1, 1}},    {17, 24, 200, 1, 1, {1, 1}},  {5, 33, 65, 2, 2, {1, 1}},
    {3, 16, 80, 1, 3, {1, 1}},    {2, 16, 16, 1, 700, {1, 1}},  {2, 16, 33, 600, 1, {1, 1}},  {2, 64, 48, 56, 13, {1, 1}},
    {2, 32, 64, 14, 14, {2, 2}},  {2, 48, 40, 45, 23, {2, 2}},  {3, 20, 36, 8, 9, {2, 2}},    {1, 17, 50, 33, 30, {1, 2}},
    {2, 18, 30, 31, 17, {2, 1}},  {1, 16, 16, 64, 50, {3, 2}},  {3, 24, 24, 2, 2, {2, 2}},    {2, 16, 20, 300, 3, {5, 5}}, /* pieces without a pixel */
    {2, 16, 12, 40, 70, {9, 2}},  {3, 40, 900, 7, 7, {1, 1}},   {2, 32, 1700, 9, 9, {1, 1}},  {2, 160, 32, 20, 64, {1, 1}}, /* groups of blocks */
    {2, 128, 128, 14, 14, {1, 1}}, {1, 250, 205, 15, 13, {1, 1}}, {3, 400, 384, 7, 7, {1, 1}}, /* by halves: odd pixels, channels that fill no block, blocks left over */
    {1, 128, 130, 28, 28, {1, 1}}, {1, 608, 140, 12, 11, {1, 1}}, {1, 140, 640, 11, 12, {1, 1}}, {1, 256, 144, 28, 28, {2, 2}}, /* several spans, several steps */
};
/* Those at the end, forward and back: an odd number of blocks to be read goes by chains. */
static const bool by_halves[][2] = {{true, true}, {true, false}, {false, true}, {true, false}, {true, false}, {false, true}, {true, false}};
#define BY_HALVES GAP_COUNTOF(by_halves)

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
};

static gap_source source_x(const pw_case *c, int kind) {
    gap_source s = kind >= 1 && kind <= 4 ? pw_norm_x(c) : pw_source_x(c);
    if (kind == 2) s.pro.act = GAP_ACT_HARDSWISH;
    if (kind == 3) s.pro.residual = c->rx, s.pro.residual_scale = c->vx[2], s.pro.residual_shift = c->vx[3], s.pro.act = GAP_ACT_LEAKY_RELU, s.pro.act_arg = 0.1f;
    if (kind == 4) s.pro.gate = c->vx[7], s.pro.act = GAP_ACT_SILU;
    if (kind == 5) s.pro.act = GAP_ACT_RELU;
    return s;
}

static gap_source source_dy(const pw_case *c, int kind) {
    gap_source s = kind ? pw_norm_dy(c) : pw_source_dy(c);
    if (kind == 2) s.pro.residual = c->ry;
    return s;
}

static gap_sink sink_y(const pw_case *c, int kind, bool add) {
    gap_sink s = kind == 1 ? pw_sums_y(c) : pw_sink_y(c);
    s.add = add;
    if (kind == 2) s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_SUMS, .sums = c->out_sums};
    if (kind == 3) s.epi = (gap_epilogue){.kind = GAP_EPILOGUE_APPLY, .scale = c->vy[5], .shift = c->vy[6], .residual = c->ry, .act = GAP_ACT_HARDSWISH};
    return s;
}

static gap_sink sink_dx(const pw_case *c, int kind, bool add) {
    gap_sink s = kind ? pw_mask_dx(c) : pw_sink_dx(c);
    s.add = add;
    if (kind == 2) s.epi.act = GAP_ACT_HARDSWISH;
    if (kind == 3) s.epi.act = GAP_ACT_RELU, s.epi.out = c->ox, s.epi.z = NULL, s.epi.mean = NULL;
    if (kind == 4) s.epi.act = GAP_ACT_LEAKY_RELU, s.epi.act_arg = 0.2f, s.epi.out = c->ox, s.epi.z2 = c->zx, s.epi.mean2 = c->vx[5], s.epi.sums2 = c->in_sums2;
    if (kind == 5) s.epi.act = GAP_ACT_SILU, s.epi.scale = s.epi.shift = NULL;
    return s;
}

static void run(pw_case *c, const fusion *f) {
    const gap_source x = source_x(c, f->pro_x), dy = source_dy(c, f->pro_dy);
    const gap_sink y = sink_y(c, f->epi_y, f->add), dx = sink_dx(c, f->epi_dx, f->add);
    if (f->add) {
        harness_fill(c->y, c->n_y, 21), harness_fill(c->dx, c->n_x, 22);
        if (c->ctx.training) harness_fill(c->dw, c->n_w, 23);
    }
    CHECK_OK(gap_pointwise_run(&c->plan, &c->ctx, c->derived, &x, &y, f->bias, c->slots));
    if (c->ctx.training) CHECK_OK(gap_pointwise_back(&c->plan, &c->ctx, c->derived_back, &x, &dy, &dx, c->dw, f->add, c->slots));
}

static void check_same(const pw_case *a, const pw_case *b, const char *what, int k) {
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

/* One pixel: y, and its share of dx and dw. */
static void define_pixel(truth *t, const pw_case *b, const pw_shape *s, int64_t n, int64_t i, int64_t j) {
    const gap_desc *in = &b->op->in_desc[0], *out = &b->op->out_desc[0];
    for (int64_t oc = 0; oc < s->oc; oc++) {
        const int64_t to = at_image(out, n, oc, i, j);
        double sum = (double)b->b[oc];
        for (int64_t c = 0; c < s->c; c++) {
            const int64_t xi = at_image(in, n, c, i * s->s[0], j * s->s[1]), wi = oc * s->c + c;
            sum += (double)b->x[xi] * (double)b->w[wi];
            t->dx[xi] += (double)b->dy[to] * (double)b->w[wi];
            t->dw[wi] += (double)b->dy[to] * (double)b->x[xi];
        }
        t->y[to] = sum;
    }
}

static void define(truth *t, const pw_case *b, const pw_shape *s) {
    const gap_desc *out = &b->op->out_desc[0];
    CHECK_OK(gap_alloc(&t->y, b->n_y, 8));
    CHECK_OK(gap_alloc(&t->dx, b->n_x, 8));
    CHECK_OK(gap_alloc(&t->dw, b->n_w, 8));
    for (int64_t n = 0; n < b->ctx.n; n++)
        for (int64_t i = 0; i < out->dim[1]; i++)
            for (int64_t j = 0; j < out->dim[2]; j++) define_pixel(t, b, s, n, i, j);
}

static void free_truth(truth *t) { gap_free(t->y), gap_free(t->dx), gap_free(t->dw); }

static void one_against_definition(const pw_shape *s, const char *set, int k) {
    char name[64];
    pw_case c;
    truth t;
    pw_make(&c, s, kernels_of(set), s->n, true, 0);
    run(&c, &plain);
    define(&t, &c, s);
    snprintf(name, sizeof name, "%s shape %d", set ? set : "best", k);
    CHECK(op_near(name, c.y, t.y, c.n_y, 2e-6)); /* padding lanes are 0 in both */
    CHECK(op_near(name, c.dw, t.dw, c.n_w, 2e-6));
    CHECK(op_near(name, c.dx, t.dx, c.n_x, 2e-6));
    free_truth(&t);
    pw_free(&c);
}

static void test_pointwise_definition(void) {
    for (int i = 0; i < GAP_COUNTOF(set_ids); i++)
        for (int k = 0; gap_kernels_available(set_ids[i]) && k < GAP_COUNTOF(shapes); k++) one_against_definition(&shapes[k], set_names[i], k);
    pw_strassen = false; /* as with precision "precise" */
    for (int k = GAP_COUNTOF(shapes) - BY_HALVES; k < GAP_COUNTOF(shapes); k++) one_against_definition(&shapes[k], NULL, k);
    pw_strassen = true;
}

static void test_pointwise_by_halves_where_it_pays(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        pw_case c;
        pw_make(&c, &shapes[k], kernels_of(NULL), shapes[k].n, true, 0);
        const int last = k - (GAP_COUNTOF(shapes) - BY_HALVES);
        CHECK(c.plan.fast_ahead == (last >= 0 && by_halves[last][0]) && c.plan.fast_back == (last >= 0 && by_halves[last][1]));
        pw_free(&c);
        pw_strassen = false;
        pw_make(&c, &shapes[k], kernels_of(NULL), shapes[k].n, true, 0);
        CHECK(!c.plan.fast_ahead && !c.plan.fast_back);
        pw_free(&c);
        pw_strassen = true;
    }
}

static int64_t draw(uint32_t *state, int64_t lo, int64_t hi) { return lo + (int64_t)(harness_u32(state) % (uint32_t)(hi - lo + 1)); }

static pw_shape random_shape(uint32_t *state) {
    const int64_t side = draw(state, 0, 2) ? 40 : 4;
    pw_shape s = {.n = draw(state, 1, 5), .c = draw(state, 1, 80), .oc = draw(state, 1, 80), .h = draw(state, 1, side), .w = draw(state, 1, side)};
    for (int k = 0; k < 2; k++) s.s[k] = draw(state, 0, 1) ? 1 : draw(state, 1, 3);
    if (draw(state, 0, 3) == 0) s.c = draw(state, 1, 330);
    if (draw(state, 0, 3) == 0) s.oc = draw(state, 1, 330);
    return s;
}

/* Whatever comes: the definition, and one set's bits against another's, with something fused. */
static void test_pointwise_random_shapes(void) {
    uint32_t state = 2026;
    for (int k = 0; k < 150; k++) {
        const pw_shape s = random_shape(&state);
        const int before = harness_broken;
        one_against_definition(&s, NULL, k);
        if (gap_kernels_available(GAP_SET_AVX2)) {
            pw_case a, b;
            pw_make(&a, &s, kernels_of(NULL), s.n, true, 0), pw_make(&b, &s, kernels_of("avx2"), s.n, true, 0);
            run(&a, &fusions[k % GAP_COUNTOF(fusions)]), run(&b, &fusions[k % GAP_COUNTOF(fusions)]);
            check_same(&a, &b, "random", k);
            pw_free(&a), pw_free(&b);
        }
        if (harness_broken != before)
            printf("  n %d, %d to %d channels, %dx%d, stride %d %d\n", (int)s.n, (int)s.c, (int)s.oc, (int)s.h, (int)s.w, (int)s.s[0], (int)s.s[1]);
    }
}

/* ---- fused against one thing after another ---- */

/* A plain copy of what a source means. */
static float *meaning(const pw_case *c, const gap_source *s, size_t n) {
    float *to = pw_blank(n);
    for (int64_t p = 0; p < c->ctx.n * s->blocks; p++) {
        const gap_prologue pro = gap_source_at(s, p / s->blocks, p % s->blocks);
        c->ctx.kernels->stream->map(s->plane / 16, s->x + p * s->plane, &pro, to + p * s->plane, false);
    }
    return to;
}

static void finish_all(const pw_case *c, const gap_sink *s, int64_t h, int64_t w) {
    for (int64_t p = 0; p < c->ctx.n * s->blocks; p++) {
        const gap_stream_finish f = {.y = s->y + p * s->plane, .pixels = h * w, .piece = gap_piece_rows(h, w) * w, .epi = gap_sink_at(s, p / s->blocks, p % s->blocks, 0, 0)};
        c->ctx.kernels->stream->finish(&f);
    }
}

static void run_apart(pw_case *c, const pw_shape *s, const fusion *f) {
    const gap_source x = source_x(c, f->pro_x), dy = source_dy(c, f->pro_dy);
    float *x_plain = meaning(c, &x, c->n_x), *dy_plain = meaning(c, &dy, c->n_y);
    gap_source xs = pw_source_x(c), dys = pw_source_dy(c);
    const gap_sink y = sink_y(c, f->epi_y, f->add), dx = sink_dx(c, f->epi_dx, f->add);
    gap_sink yp = y, dxp = dx;
    xs.x = x_plain, dys.x = dy_plain;
    yp.epi.kind = dxp.epi.kind = GAP_EPILOGUE_NONE;
    if (f->add) harness_fill(c->y, c->n_y, 21), harness_fill(c->dx, c->n_x, 22), harness_fill(c->dw, c->n_w, 23);
    CHECK_OK(gap_pointwise_run(&c->plan, &c->ctx, c->derived, &xs, &yp, f->bias, c->slots));
    CHECK_OK(gap_pointwise_back(&c->plan, &c->ctx, c->derived_back, &xs, &dys, &dxp, c->dw, f->add, c->slots));
    finish_all(c, &y, c->plan.out_h, c->plan.out_w);
    finish_all(c, &dx, s->h, s->w);
    gap_free(x_plain), gap_free(dy_plain);
}

static void test_pointwise_fused_is_one_thing_after_another(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++)
        for (int f = 0; f < GAP_COUNTOF(fusions); f++) {
            pw_case a, b;
            pw_make(&a, &shapes[k], kernels_of(NULL), shapes[k].n, true, 0), pw_make(&b, &shapes[k], kernels_of(NULL), shapes[k].n, true, 0);
            run(&a, &fusions[f]), run_apart(&b, &shapes[k], &fusions[f]);
            check_same(&a, &b, "apart", k);
            pw_free(&a), pw_free(&b);
        }
}

/* ---- the same bits ---- */

static void test_pointwise_same_bits_in_every_kernel_set(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++)
        for (int f = 0; f < 4; f++) {
            pw_case ref, b;
            pw_make(&ref, &shapes[k], kernels_of("ref"), shapes[k].n, true, 0);
            run(&ref, &fusions[f]);
            for (int i = 0; i < GAP_COUNTOF(set_ids) - 1; i++) {
                if (!gap_kernels_available(set_ids[i])) continue;
                pw_make(&b, &shapes[k], kernels_of(set_names[i]), shapes[k].n, true, 0);
                run(&b, &fusions[f]);
                check_same(&ref, &b, set_names[i], k);
                pw_free(&b);
            }
            pw_free(&ref);
        }
}

/* Threads decide how work is cut, and whether backward is one sweep. */
static void test_pointwise_same_bits_at_any_thread_count(void) {
    const int before = gap_threads_get(), counts[] = {2, 3, 7, 64};
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        pw_case one, b;
        CHECK_OK(gap_threads_set(1));
        pw_make(&one, &shapes[k], kernels_of(NULL), shapes[k].n, true, 0);
        run(&one, &fusions[k % 4]);
        pw_make(&b, &shapes[k], kernels_of(NULL), shapes[k].n, true, 0);
        for (int t = 0; t < GAP_COUNTOF(counts); t++) { /* also more threads than the plan was made for */
            CHECK_OK(gap_threads_set(counts[t]));
            run(&b, &fusions[k % 4]);
            check_same(&one, &b, "threads", k);
        }
        pw_free(&one), pw_free(&b);
    }
    CHECK_OK(gap_threads_set(before));
}

/* A sample's output and its sums depend on no other sample, on its place, or on the plan's capacity. */
static void test_pointwise_forward_does_not_depend_on_the_batch(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        pw_case many, one;
        pw_make(&many, &shapes[k], kernels_of(NULL), shapes[k].n + 3, false, 0), pw_make(&one, &shapes[k], kernels_of(NULL), 1, false, 0);
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
        pw_free(&many), pw_free(&one);
    }
}

/* A short last batch: the gradients of its samples alone; dx has the bits of the full batch. */
static void test_pointwise_short_batch_gradients(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        const pw_shape s = shapes[k];
        pw_case full, part;
        truth t;
        pw_make(&full, &s, kernels_of(NULL), s.n + 4, true, 0), pw_make(&part, &s, kernels_of(NULL), s.n + 4, true, 0);
        part.ctx.n = s.n;
        run(&full, &plain), run(&part, &plain);
        define(&t, &part, &s);
        CHECK(op_near("dw of a short batch", part.dw, t.dw, part.n_w, 2e-6));
        CHECK(op_same("dx of a short batch", part.dx, full.dx, (size_t)(s.n * part.in_blocks * part.in_plane)));
        free_truth(&t);
        pw_free(&full), pw_free(&part);
    }
}

/* Frozen weights, no input gradient: nothing else is written, the rest has the same bits. */
static void test_pointwise_only_what_is_wanted(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        pw_case all, c;
        pw_make(&all, &shapes[k], kernels_of(NULL), shapes[k].n, true, 0), pw_make(&c, &shapes[k], kernels_of(NULL), shapes[k].n, true, 0);
        run(&all, &fusions[0]);
        const gap_source x = source_x(&c, 1), dy = source_dy(&c, 1), none = {.blocks = c.in_blocks};
        const gap_sink dx = sink_dx(&c, 1, false);
        float *untouched = pw_blank(c.n_x > c.n_w ? c.n_x : c.n_w);
        CHECK_OK(gap_pointwise_back(&c.plan, &c.ctx, c.derived_back, &none, &dy, &dx, NULL, false, c.slots));
        CHECK(op_same("dx alone", all.dx, c.dx, c.n_x) && op_same("its sums", all.in_sums, c.in_sums, c.n_in_sums));
        CHECK(memcmp(c.dw, untouched, c.n_w * 4) == 0);
        memset(c.dx, 0xFF, c.n_x * 4);
        CHECK_OK(gap_pointwise_back(&c.plan, &c.ctx, c.derived_back, &x, &dy, NULL, c.dw, false, c.slots));
        CHECK(op_same("dw alone", all.dw, c.dw, c.n_w));
        CHECK(memcmp(c.dx, untouched, c.n_x * 4) == 0);
        CHECK_OK(gap_pointwise_back(&c.plan, &c.ctx, c.derived_back, &x, &dy, NULL, NULL, false, c.slots));
        gap_free(untouched);
        pw_free(&all), pw_free(&c);
    }
}

static void test_pointwise_adds_where_asked(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        const pw_shape *s = &shapes[k];
        fusion f = plain;
        pw_case c;
        truth t;
        float *was;
        pw_make(&c, s, kernels_of(NULL), s->n, true, 0);
        f.add = true, f.bias = false;
        memset(c.b, 0, (size_t)s->oc * 4);
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
        pw_free(&c);
    }
}

static void test_pointwise_fits_only_pointwise(void) {
    static const struct { int64_t c, k, p, g; bool pixels, fits; } cases[] = {
        {32, 1, 0, 1, false, true}, {17, 1, 0, 1, false, true}, {32, 1, 1, 1, false, false}, {32, 3, 0, 1, false, false}, {32, 1, 0, 2, false, false}, {3, 1, 0, 1, true, false},
    };
    for (int k = 0; k < GAP_COUNTOF(cases); k++) {
        gap_oplist list;
        gap_oplist_init(&list, true);
        gap_desc in = gap_desc_image(cases[k].c, 8, 8);
        if (cases[k].pixels) in.layout = GAP_NHWC, in.cb = 0;
        const int64_t size = cases[k].k, pad = cases[k].p;
        const gap_conv_attr attr = {.out_channels = 32, .kernel = {size, size}, .padding = {pad, pad}, .stride = {1, 1}, .dilation = {1, 1}, .groups = cases[k].g};
        int value, out;
        CHECK_OK(gap_oplist_value(&list, &in, &value));
        CHECK_OK(gap_emit_conv(&list, (gap_origin){"conv", 0}, value, &attr, 0, -1, &out));
        CHECK(gap_pointwise_fits(&list.op[0]) == cases[k].fits);
        gap_oplist_free(&list);
    }
}

int main(void) {
    RUN(test_pointwise_definition);
    RUN(test_pointwise_by_halves_where_it_pays);
    RUN(test_pointwise_random_shapes);
    RUN(test_pointwise_fused_is_one_thing_after_another);
    RUN(test_pointwise_same_bits_in_every_kernel_set);
    RUN(test_pointwise_same_bits_at_any_thread_count);
    RUN(test_pointwise_forward_does_not_depend_on_the_batch);
    RUN(test_pointwise_short_batch_gradients);
    RUN(test_pointwise_only_what_is_wanted);
    RUN(test_pointwise_adds_where_asked);
    RUN(test_pointwise_fits_only_pointwise);
    return harness_end();
}

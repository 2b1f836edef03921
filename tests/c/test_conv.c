/* Convolution against the definition in double, and against itself: kernel sets, thread counts, batch sizes. */
#include "op_harness.h"

typedef struct {
    int64_t n, c, h, w, oc, k[2], s[2], p[2], d[2], g;
    bool nhwc, bias;
} shape;

static const shape shapes[] = {
    {2, 16, 8, 8, 16, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 1, false, true},
    {3, 32, 9, 7, 48, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 1, false, false},
    {2, 20, 11, 13, 37, {3, 3}, {2, 2}, {1, 1}, {1, 1}, 1, false, true},   /* channels off the block */
    {9, 64, 4, 4, 80, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 1, false, false},    /* several images per unit */
    {5, 40, 1, 1, 24, {1, 1}, {1, 1}, {0, 0}, {1, 1}, 1, false, true},     /* a pixel per image */
    {4, 24, 2, 2, 40, {3, 3}, {2, 2}, {1, 1}, {1, 1}, 1, false, true},     /* one output pixel */
    {2, 48, 10, 6, 33, {1, 1}, {1, 1}, {0, 0}, {1, 1}, 1, false, true},    /* flat 1x1 */
    {2, 32, 9, 9, 32, {1, 1}, {2, 2}, {0, 0}, {1, 1}, 1, false, false},    /* phases without taps */
    {2, 17, 12, 10, 19, {5, 3}, {2, 1}, {2, 0}, {1, 2}, 1, false, true},
    {1, 16, 14, 14, 16, {3, 3}, {2, 2}, {2, 2}, {2, 2}, 1, false, true},
    {1, 16, 15, 15, 20, {3, 3}, {3, 2}, {1, 0}, {1, 3}, 1, false, true},
    {2, 16, 6, 6, 16, {7, 7}, {1, 1}, {3, 3}, {1, 1}, 1, false, true},
    {2, 16, 5, 5, 16, {2, 2}, {2, 2}, {0, 0}, {1, 1}, 1, false, true},     /* input pixels that nothing reads */
    {1, 16, 3, 3, 16, {3, 3}, {1, 1}, {4, 4}, {1, 1}, 1, false, true},     /* more padding than kernel */
    {2, 8, 7, 7, 12, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 4, false, true},      /* groups inside a block */
    {2, 64, 6, 6, 96, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 2, false, true},     /* groups of whole blocks */
    {2, 60, 6, 5, 36, {3, 3}, {2, 2}, {1, 1}, {1, 1}, 3, false, true},     /* groups across block edges */
    {3, 24, 9, 20, 24, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 3, false, true},    /* groups of 8, of 4: the kernels' own */
    {2, 48, 11, 17, 48, {3, 3}, {2, 2}, {1, 1}, {1, 1}, 6, false, true},
    {3, 36, 8, 33, 36, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 9, false, false},
    {2, 32, 12, 10, 32, {3, 3}, {2, 2}, {1, 1}, {1, 1}, 8, false, true},
    {2, 24, 9, 8, 24, {5, 3}, {3, 2}, {0, 3}, {2, 1}, 3, false, true},
    {2, 16, 5, 3, 16, {1, 3}, {2, 1}, {0, 0}, {1, 1}, 4, false, true},     /* rows that nothing reads; one output column */
    {2, 16, 3, 2, 16, {3, 3}, {1, 2}, {1, 1}, {1, 1}, 2, false, true},
    {2, 32, 6, 6, 64, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 32, false, true},    /* two outputs per channel */
    {3, 32, 9, 8, 32, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 32, false, true},    /* depthwise */
    {2, 40, 13, 9, 40, {3, 3}, {2, 2}, {1, 1}, {1, 1}, 40, false, false},
    {2, 24, 10, 11, 24, {5, 5}, {2, 2}, {2, 2}, {1, 1}, 24, false, true},
    {1, 16, 12, 12, 16, {3, 3}, {1, 1}, {2, 2}, {2, 2}, 16, false, true},
    {2, 16, 8, 8, 16, {1, 1}, {1, 1}, {0, 0}, {1, 1}, 16, false, true},
    {2, 3, 12, 10, 20, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 1, true, true},     /* images */
    {3, 1, 14, 14, 32, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 1, true, true},
    {1, 3, 23, 21, 16, {7, 7}, {2, 2}, {3, 3}, {1, 1}, 1, true, false},
    {2, 3, 9, 9, 16, {3, 3}, {2, 2}, {1, 1}, {2, 2}, 1, true, true},
    {2, 3, 8, 8, 8, {1, 1}, {1, 1}, {0, 0}, {1, 1}, 1, true, true},
    {2, 4, 8, 8, 8, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 2, true, true},
    {2, 3, 6, 6, 3, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 1, false, true},       /* few channels, blocked */
    {1, 64, 40, 72, 16, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 1, false, true},   /* several bands of rows */
    {1, 512, 40, 40, 16, {1, 1}, {1, 1}, {0, 0}, {1, 1}, 1, false, true},  /* several bands of columns */
    {2, 256, 2, 2, 512, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 1, false, true},   /* gradients too large for chunks */
    {2, 160, 5, 4, 150, {3, 3}, {2, 2}, {1, 1}, {1, 1}, 1, false, true},   /* and cut across blocks */
};

static void make(op_bench *b, const shape *s, const char *set, int64_t capacity, bool training) {
    const gap_kernels *kernels = NULL;
    CHECK_OK(gap_kernels_find(&kernels, set));
    memset(b, 0, sizeof *b);
    gap_oplist_init(&b->list, training);
    gap_desc in = gap_desc_image(s->c, s->h, s->w);
    if (s->nhwc) in.layout = GAP_NHWC, in.cb = 0;
    int value, out;
    CHECK_OK(gap_oplist_value(&b->list, &in, &value));
    gap_conv_attr attr = {.out_channels = s->oc, .groups = s->g};
    for (int k = 0; k < 2; k++) attr.kernel[k] = s->k[k], attr.stride[k] = s->s[k], attr.padding[k] = s->p[k], attr.dilation[k] = s->d[k];
    const gap_origin who = {"conv", 0};
    CHECK_OK(gap_emit_conv(&b->list, who, value, &attr, 0, s->bias ? 1 : -1, &out));
    const size_t n_w[2] = {(size_t)(s->oc * (s->c / s->g) * s->k[0] * s->k[1]), (size_t)s->oc};
    op_bench_make(b, kernels, capacity, training, n_w, 77);
    if (s->nhwc) b->ctx.din[0] = NULL;
}

static void run(op_bench *b) {
    CHECK_OK(b->op->def->derive(b->op, &b->ctx));
    CHECK_OK(b->op->def->forward(b->op, &b->ctx));
    if (b->ctx.training) CHECK_OK(b->op->def->backward(b->op, &b->ctx));
}

static int64_t at_image(const gap_desc *d, int64_t n, int64_t c, int64_t h, int64_t w) {
    const int64_t hw = d->dim[1] * d->dim[2], p = h * d->dim[2] + w;
    return n * gap_desc_stored(d) + (d->layout == GAP_NHWC ? p * d->dim[0] + c : (c / 16 * hw + p) * 16 + c % 16);
}

typedef struct { double *y, *dx, *dw, *db; } truth;

static void define(truth *t, const op_bench *b, const shape *s, int64_t n_images) {
    const gap_desc *in = &b->op->in_desc[0], *out = &b->op->out_desc[0];
    const int64_t icg = s->c / s->g, ocg = s->oc / s->g;
    CHECK_OK(gap_alloc(&t->y, b->n_y, 8));
    CHECK_OK(gap_alloc(&t->dx, b->n_x, 8));
    CHECK_OK(gap_alloc(&t->dw, b->n_w[0], 8));
    CHECK_OK(gap_alloc(&t->db, b->n_w[1], 8));
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t o = 0; o < s->oc; o++)
            for (int64_t i = 0; i < out->dim[1]; i++)
                for (int64_t j = 0; j < out->dim[2]; j++) {
                    const int64_t to = at_image(out, n, o, i, j);
                    const double dy = (double)b->dy[to];
                    double sum = s->bias ? (double)b->w[1][o] : 0;
                    t->db[o] += dy;
                    for (int64_t c = 0; c < icg; c++)
                        for (int64_t kh = 0; kh < s->k[0]; kh++)
                            for (int64_t kw = 0; kw < s->k[1]; kw++) {
                                const int64_t h = i * s->s[0] - s->p[0] + kh * s->d[0], w = j * s->s[1] - s->p[1] + kw * s->d[1];
                                if (h < 0 || h >= s->h || w < 0 || w >= s->w) continue;
                                const int64_t wi = ((o * icg + c) * s->k[0] + kh) * s->k[1] + kw, xi = at_image(in, n, o / ocg * icg + c, h, w);
                                sum += (double)b->x[xi] * (double)b->w[0][wi];
                                t->dx[xi] += dy * (double)b->w[0][wi];
                                t->dw[wi] += dy * (double)b->x[xi];
                            }
                    t->y[to] = sum;
                }
}

static void free_truth(truth *t) { gap_free(t->y), gap_free(t->dx), gap_free(t->dw), gap_free(t->db); }

static void one_against_definition(const shape *s, const char *set, int k, double tol) {
    char name[64];
    op_bench b;
    truth t;
    make(&b, s, set, s->n, true);
    run(&b);
    define(&t, &b, s, s->n);
    snprintf(name, sizeof name, "%s shape %d y", set ? set : "best", k);
    CHECK(op_near(name, b.y, t.y, b.n_y, tol)); /* padding lanes are 0 in both */
    snprintf(name, sizeof name, "%s shape %d dw", set ? set : "best", k);
    CHECK(op_near(name, b.dw[0], t.dw, b.n_w[0], tol));
    snprintf(name, sizeof name, "%s shape %d dx", set ? set : "best", k);
    if (!s->nhwc) CHECK(op_near(name, b.dx, t.dx, b.n_x, tol));
    snprintf(name, sizeof name, "%s shape %d db", set ? set : "best", k);
    if (s->bias) CHECK(op_near(name, b.dw[1], t.db, b.n_w[1], tol));
    free_truth(&t);
    op_bench_free(&b);
}

static void against_definition(const char *set, double tol) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) one_against_definition(&shapes[k], set, k, tol);
}

static void test_conv_definition(void) { against_definition(NULL, 2e-6); }
static void test_conv_definition_ref(void) { against_definition("ref", 2e-6); }
static void test_conv_definition_blas(void) {
    if (gap_kernels_available(GAP_SET_BLAS)) against_definition("blas", 1e-5);
}

static void check_same(const op_bench *a, const op_bench *b, const shape *s, const char *what, int k) {
    char name[64];
    snprintf(name, sizeof name, "shape %d, %s", k, what);
    CHECK(op_same(name, a->y, b->y, a->n_y));
    CHECK(op_same(name, a->dw[0], b->dw[0], a->n_w[0]));
    if (!s->nhwc) CHECK(op_same(name, a->dx, b->dx, a->n_x));
    if (s->bias) CHECK(op_same(name, a->dw[1], b->dw[1], a->n_w[1]));
}

static void test_conv_same_bits_in_every_kernel_set(void) {
    static const struct { gap_kernel_set_id id; const char *name; } sets[] = {{GAP_SET_AVX512, "avx512"}, {GAP_SET_AVX2, "avx2"}, {GAP_SET_NEON, "neon"}};
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        op_bench ref, b;
        make(&ref, &shapes[k], "ref", shapes[k].n, true);
        run(&ref);
        for (int i = 0; i < GAP_COUNTOF(sets); i++) {
            if (!gap_kernels_available(sets[i].id)) continue;
            make(&b, &shapes[k], sets[i].name, shapes[k].n, true);
            run(&b);
            check_same(&ref, &b, &shapes[k], sets[i].name, k);
            op_bench_free(&b);
        }
        op_bench_free(&ref);
    }
}

static int64_t draw(uint32_t *state, int64_t lo, int64_t hi) { return lo + (int64_t)(harness_u32(state) % (uint32_t)(hi - lo + 1)); }

static shape random_shape(uint32_t *state) {
    for (;;) {
        shape s = {.n = draw(state, 1, 4), .h = draw(state, 1, 17), .w = draw(state, 1, 17), .g = 1, .bias = draw(state, 0, 1)};
        for (int k = 0; k < 2; k++)
            s.k[k] = draw(state, 1, 5), s.s[k] = draw(state, 1, 3), s.p[k] = draw(state, 0, 3), s.d[k] = draw(state, 1, 3);
        const int64_t kind = draw(state, 0, 3);
        if (kind == 0) s.c = s.oc = s.g = draw(state, 1, 40);
        else if (kind == 1) s.g = draw(state, 2, 5), s.c = s.g * draw(state, 1, 20), s.oc = s.g * draw(state, 1, 20);
        else s.c = draw(state, 1, 70), s.oc = draw(state, 1, 70);
        if (kind == 2) s.c = draw(state, 1, 5), s.nhwc = true;
        if (s.h + 2 * s.p[0] > s.d[0] * (s.k[0] - 1) && s.w + 2 * s.p[1] > s.d[1] * (s.k[1] - 1)) return s;
    }
}

/* Whatever comes: the definition, and one set's bits against another's. */
static void test_conv_random_shapes(void) {
    uint32_t state = 2026;
    for (int k = 0; k < 150; k++) {
        const shape s = random_shape(&state);
        const int before = harness_broken;
        one_against_definition(&s, NULL, k, 2e-6);
        if (k % 5 == 0 && gap_kernels_available(GAP_SET_BLAS)) one_against_definition(&s, "blas", k, 1e-5);
        if (gap_kernels_available(GAP_SET_AVX2)) {
            op_bench a, b;
            make(&a, &s, NULL, s.n, true), make(&b, &s, "avx2", s.n, true);
            run(&a), run(&b);
            check_same(&a, &b, &s, "random", k);
            op_bench_free(&a), op_bench_free(&b);
        }
        if (harness_broken != before)
            printf("  n %d, %dx%dx%d -> %d, kernel %dx%d, stride %d %d, padding %d %d, dilation %d %d, groups %d%s\n", (int)s.n, (int)s.c, (int)s.h,
                   (int)s.w, (int)s.oc, (int)s.k[0], (int)s.k[1], (int)s.s[0], (int)s.s[1], (int)s.p[0], (int)s.p[1], (int)s.d[0], (int)s.d[1],
                   (int)s.g, s.nhwc ? ", image" : "");
    }
}

static void test_conv_same_bits_at_any_thread_count(void) {
    const int before = gap_threads_get();
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        op_bench one, b;
        CHECK_OK(gap_threads_set(1));
        make(&one, &shapes[k], NULL, shapes[k].n, true);
        run(&one);
        make(&b, &shapes[k], NULL, shapes[k].n, true);
        for (int t = 2; t <= 7; t += t == 3 ? 4 : 1) { /* also more threads than the plan was made for */
            CHECK_OK(gap_threads_set(t));
            run(&b);
            check_same(&one, &b, &shapes[k], "threads", k);
        }
        op_bench_free(&one), op_bench_free(&b);
    }
    CHECK_OK(gap_threads_set(before));
}

/* A sample's output depends on no other sample, on its place, or on the plan's capacity. */
static void test_conv_forward_does_not_depend_on_the_batch(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        const shape *s = &shapes[k];
        op_bench many, one;
        make(&many, s, NULL, s->n + 3, false);
        run(&many);
        make(&one, s, NULL, 1, false);
        const size_t x = one.n_x, y = one.n_y;
        for (int64_t n = 0; n < s->n + 3; n++) {
            one.ctx.in[0] = many.x + (size_t)n * x;
            run(&one);
            CHECK(op_same("batch", many.y + (size_t)n * y, one.y, y));
        }
        many.ctx.n = 1; /* a short batch in a larger plan */
        many.ctx.in[0] = many.x + x;
        CHECK_OK(many.op->def->forward(many.op, &many.ctx));
        one.ctx.in[0] = many.x + x;
        run(&one);
        CHECK(op_same("short batch", many.y, one.y, y));
        op_bench_free(&many), op_bench_free(&one);
    }
}

static void test_conv_adds_where_asked(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        const shape *s = &shapes[k];
        op_bench b;
        truth t;
        make(&b, s, NULL, s->n, true);
        memset(b.dx, 0, b.n_x * 4);
        op_fill_image(b.dx, s->n, &b.op->in_desc[0], 5);
        harness_fill(b.dw[0], b.n_w[0], 6), harness_fill(b.dw[1], b.n_w[1], 7);
        float *dx, *dw, *db;
        CHECK_OK(gap_alloc(&dx, b.n_x, 4));
        CHECK_OK(gap_alloc(&dw, b.n_w[0], 4));
        CHECK_OK(gap_alloc(&db, b.n_w[1], 4));
        memcpy(dx, b.dx, b.n_x * 4), memcpy(dw, b.dw[0], b.n_w[0] * 4), memcpy(db, b.dw[1], b.n_w[1] * 4);
        b.ctx.din_add[0] = b.ctx.dweight_add = true;
        run(&b);
        define(&t, &b, s, s->n);
        for (size_t i = 0; i < b.n_x; i++) t.dx[i] += (double)dx[i];
        for (size_t i = 0; i < b.n_w[0]; i++) t.dw[i] += (double)dw[i];
        for (size_t i = 0; i < b.n_w[1]; i++) t.db[i] += (double)db[i];
        if (!s->nhwc) CHECK(op_near("added dx", b.dx, t.dx, b.n_x, 2e-6));
        CHECK(op_near("added dw", b.dw[0], t.dw, b.n_w[0], 2e-6));
        if (s->bias) CHECK(op_near("added db", b.dw[1], t.db, b.n_w[1], 2e-6));
        free_truth(&t);
        gap_free(dx), gap_free(dw), gap_free(db);
        op_bench_free(&b);
    }
}

/* Frozen weights: nothing is written, the rest is as before. */
static void test_conv_frozen(void) {
    op_bench b, all;
    make(&all, &shapes[1], NULL, 3, true);
    run(&all);
    make(&b, &shapes[1], NULL, 3, true);
    b.ctx.dweight[0] = b.ctx.dweight[1] = NULL;
    run(&b);
    CHECK(op_same("dx", all.dx, b.dx, b.n_x));
    b.ctx.din[0] = NULL, b.ctx.dweight[0] = b.dw[0];
    run(&b);
    CHECK(op_same("dw", all.dw[0], b.dw[0], b.n_w[0]));
    op_bench_free(&b), op_bench_free(&all);
}

/* ---- the kernels alone: what fusion will hand them ---- */

static double act_of(gap_act act, double arg, double x) {
    const double ramp = fmin(fmax(x + 3, 0), 6) / 6;
    switch (act) {
    case GAP_ACT_RELU: return fmax(x, 0);
    case GAP_ACT_RELU6: return fmin(fmax(x, 0), 6);
    case GAP_ACT_LEAKY_RELU: return x > 0 ? x : x * arg;
    case GAP_ACT_TANH: return tanh(x);
    case GAP_ACT_SIGMOID: return 1 / (1 + exp(-x));
    case GAP_ACT_SILU: return x / (1 + exp(-x));
    case GAP_ACT_HARDSWISH: return x * ramp;
    case GAP_ACT_HARDSIGMOID: return ramp;
    default: return x;
    }
}

static void test_conv_pack_applies_the_prologue_inside_only(void) {
    enum { H = 5, W = 6, ROWS = 9, COLS = 11 };
    float x[H * W * 16], residual[H * W * 16], channel[3][16], first[ROWS * COLS * 16], dst[ROWS * COLS * 16];
    harness_fill(x, H * W * 16, 1), harness_fill(residual, H * W * 16, 2), harness_fill(channel[0], 16, 3), harness_fill(channel[1], 16, 4), harness_fill(channel[2], 16, 5);
    for (int act = GAP_ACT_NONE; act <= GAP_ACT_HARDSIGMOID; act++) {
        bool have_first = false;
        for (int set = 0; set < GAP_SET_COUNT; set++) {
            const gap_kernels *k = NULL;
            if (!gap_kernels_available((gap_kernel_set_id)set)) continue;
            CHECK_OK(gap_kernels_find(&k, gap_kernel_set_name((gap_kernel_set_id)set)));
            memset(dst, 0xFF, sizeof dst);
            const gap_stream_load p = {.x = x, .h = H, .w = W, .lanes = 16, .dst = dst, .dst_row = COLS * 16, .rows = ROWS, .cols = COLS, .row0 = -2, .col0 = -3,
                                     .pro = {.scale = channel[0], .shift = channel[1], .residual = residual, .gate = channel[2], .act = (gap_act)act, .act_arg = 0.1f}};
            k->stream->load(&p);
            double ref[ROWS * COLS * 16];
            for (int i = 0; i < ROWS * COLS * 16; i++) {
                const int h = i / 16 / COLS - 2, w = i / 16 % COLS - 3, c = i % 16, at = (h * W + w) * 16 + c;
                const bool inside = h >= 0 && h < H && w >= 0 && w < W;
                ref[i] = inside ? act_of((gap_act)act, 0.1, (double)x[at] * (double)channel[0][c] + (double)channel[1][c] + (double)residual[at]) * (double)channel[2][c] : 0;
                if (!inside) CHECK(dst[i] == 0.0f && !signbit(dst[i]));
            }
            CHECK(op_near("prologue", dst, ref, ROWS * COLS * 16, 1e-6));
            if (!have_first) memcpy(first, dst, sizeof first), have_first = true;
            CHECK(op_same("prologue", first, dst, ROWS * COLS * 16));
        }
    }
}

static void test_conv_refuses(void) {
    gap_oplist list;
    gap_oplist_init(&list, true);
    const gap_desc image = gap_desc_image(6, 4, 4), vector = gap_desc_vector(6);
    int a, v, out;
    CHECK_OK(gap_oplist_value(&list, &image, &a));
    CHECK_OK(gap_oplist_value(&list, &vector, &v));
    gap_conv_attr attr = {.out_channels = 8, .kernel = {3, 3}, .stride = {1, 1}, .dilation = {1, 1}, .groups = 1};
    const gap_origin who = {"conv", 0};
    CHECK_FAILS(gap_emit_conv(&list, who, v, &attr, 0, -1, &out), GAP_ERR_SHAPE);
    attr.groups = 4;
    CHECK_FAILS(gap_emit_conv(&list, who, a, &attr, 0, -1, &out), GAP_ERR_SHAPE);
    attr.groups = 1, attr.kernel[0] = 7;
    CHECK_FAILS(gap_emit_conv(&list, who, a, &attr, 0, -1, &out), GAP_ERR_SHAPE);
    CHECK(list.n_ops == 0);
    gap_oplist_free(&list);
}

int main(void) {
    RUN(test_conv_definition);
    RUN(test_conv_definition_ref);
    RUN(test_conv_definition_blas);
    RUN(test_conv_same_bits_in_every_kernel_set);
    RUN(test_conv_random_shapes);
    RUN(test_conv_same_bits_at_any_thread_count);
    RUN(test_conv_forward_does_not_depend_on_the_batch);
    RUN(test_conv_adds_where_asked);
    RUN(test_conv_frozen);
    RUN(test_conv_pack_applies_the_prologue_inside_only);
    RUN(test_conv_refuses);
    return harness_end();
}

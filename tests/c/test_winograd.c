/* Winograd's convolutions against the definition in double, and against themselves: kernel sets, thread counts, batches, fusion. */
#include "kernels/stream.h"
#include "op_harness.h"
#include "ops/conv_winograd.h"
#include "ops/scratch.h"

typedef struct { int64_t n, c, h, w, oc, p[2]; } shape;

static const shape shapes[] = {
    {2, 16, 8, 8, 16, {1, 1}},   {3, 32, 9, 7, 48, {1, 1}},    {2, 20, 11, 13, 37, {1, 1}}, {5, 64, 4, 4, 80, {1, 1}},
    {1, 17, 5, 23, 30, {0, 0}},  {4, 40, 6, 6, 16, {2, 2}},    {2, 16, 3, 3, 33, {0, 2}},   {3, 16, 1, 2, 16, {1, 1}},
    {1, 32, 40, 40, 32, {1, 1}}, {2, 16, 30, 18, 16, {1, 0}},  {1, 64, 7, 410, 16, {1, 1}}, {5, 144, 4, 5, 136, {1, 1}},
    {3, 200, 5, 4, 190, {1, 2}}, {1, 16, 260, 5, 16, {1, 1}},
    {5, 48, 14, 14, 40, {1, 1}}, {9, 32, 7, 7, 64, {1, 1}},    {3, 20, 6, 9, 33, {1, 1}},  {2, 16, 61, 130, 16, {0, 1}},
};

typedef struct {
    gap_oplist list;
    gap_op *op;
    gap_op_ctx ctx;
    gap_wino f, b; /* forward, gradient of the input */
    float *x, *y, *dy, *dx, *w, *bias, *dw;
    size_t n_x, n_y, n_w;
    void *uf, *ub, *work;
    gap_source x_in, dy_in;
    gap_sink y_out, dx_out;
} bench;

static void make(bench *b, const shape *s, const char *set, int m, int64_t n, int64_t capacity) {
    const gap_kernels *kernels = NULL;
    const gap_desc in = gap_desc_image(s->c, s->h, s->w);
    const gap_conv_attr attr = {.out_channels = s->oc, .kernel = {3, 3}, .stride = {1, 1}, .padding = {s->p[0], s->p[1]}, .dilation = {1, 1}, .groups = 1};
    const gap_origin who = {"conv", 0};
    const int slots = gap_scratch_count();
    int value, out;
    memset(b, 0, sizeof *b);
    CHECK_OK(gap_kernels_find(&kernels, set));
    gap_oplist_init(&b->list, true);
    CHECK_OK(gap_oplist_value(&b->list, &in, &value));
    CHECK_OK(gap_emit_conv(&b->list, who, value, &attr, 0, 1, &out));
    b->op = &b->list.op[0];
    gap_wino_plan(&b->f, b->op, false, m, capacity), gap_wino_plan(&b->b, b->op, true, m, capacity);
    b->n_x = (size_t)(capacity * gap_desc_stored(&b->op->in_desc[0])), b->n_y = (size_t)(capacity * gap_desc_stored(&b->op->out_desc[0]));
    b->n_w = (size_t)(s->oc * s->c * 9);
    size_t bytes = gap_wino_workspace_bytes(&b->f, slots), other = gap_wino_workspace_bytes(&b->b, slots), grad = gap_wino_grad_bytes(&b->f, slots);
    bytes = bytes > other ? bytes : other, bytes = bytes > grad ? bytes : grad;
    CHECK_OK(gap_alloc(&b->x, b->n_x, 4));
    CHECK_OK(gap_alloc(&b->dx, b->n_x, 4));
    CHECK_OK(gap_alloc(&b->y, b->n_y, 4));
    CHECK_OK(gap_alloc(&b->dy, b->n_y, 4));
    CHECK_OK(gap_alloc(&b->w, b->n_w, 4));
    CHECK_OK(gap_alloc(&b->dw, b->n_w, 4));
    CHECK_OK(gap_alloc(&b->bias, (size_t)s->oc, 4));
    CHECK_OK(gap_alloc(&b->uf, gap_wino_derived_bytes(&b->f), 1));
    CHECK_OK(gap_alloc(&b->ub, gap_wino_derived_bytes(&b->b), 1));
    CHECK_OK(gap_alloc(&b->work, bytes, 1));
    memset(b->work, 0xFF, bytes); /* NaN: nothing may be read before it is written */
    memset(b->uf, 0xFF, gap_wino_derived_bytes(&b->f)), memset(b->ub, 0xFF, gap_wino_derived_bytes(&b->b));
    memset(b->y, 0xFF, b->n_y * 4), memset(b->dx, 0xFF, b->n_x * 4), memset(b->dw, 0xFF, b->n_w * 4);
    op_fill_image(b->x, n, &b->op->in_desc[0], 11), op_fill_image(b->dy, n, &b->op->out_desc[0], 12);
    harness_fill(b->w, b->n_w, 13), harness_fill(b->bias, (size_t)s->oc, 14);
    b->ctx = (gap_op_ctx){.n = n, .capacity = capacity, .training = true, .workspace = b->work, .kernels = kernels};
    b->x_in = (gap_source){.x = b->x, .plane = b->f.in_h * b->f.in_w * 16, .blocks = b->f.in_blocks};
    b->dy_in = (gap_source){.x = b->dy, .plane = b->b.in_h * b->b.in_w * 16, .blocks = b->b.in_blocks};
    b->y_out = (gap_sink){.y = b->y, .plane = b->dy_in.plane, .blocks = b->f.out_blocks, .pieces = b->f.pieces};
    b->dx_out = (gap_sink){.y = b->dx, .plane = b->x_in.plane, .blocks = b->b.out_blocks, .pieces = b->b.pieces};
    CHECK_OK(gap_wino_derive(&b->f, b->w, b->bias, b->uf, &b->ctx));
    CHECK_OK(gap_wino_derive(&b->b, b->w, NULL, b->ub, &b->ctx));
    b->n_x = b->n_x / (size_t)capacity * (size_t)n, b->n_y = b->n_y / (size_t)capacity * (size_t)n; /* what this batch writes */
}

static void forward(bench *b) { CHECK_OK(gap_wino_run(&b->f, &b->ctx, b->uf, &b->x_in, &b->y_out, true, gap_scratch_count())); }
static void backward(bench *b) { CHECK_OK(gap_wino_run(&b->b, &b->ctx, b->ub, &b->dy_in, &b->dx_out, false, gap_scratch_count())); }
static void gradient(bench *b, bool add) { CHECK_OK(gap_wino_grad(&b->f, &b->ctx, &b->x_in, &b->dy_in, b->dw, add, gap_scratch_count())); }
static void run(bench *b) { forward(b), backward(b), gradient(b, false); }

static void drop(bench *b) {
    gap_free(b->x), gap_free(b->y), gap_free(b->dx), gap_free(b->dy), gap_free(b->w), gap_free(b->dw), gap_free(b->bias);
    gap_free(b->uf), gap_free(b->ub), gap_free(b->work);
    gap_oplist_free(&b->list);
}

/* ---- the definition ---- */

static int64_t place(const gap_desc *d, int64_t n, int64_t c, int64_t i, int64_t j) {
    return n * gap_desc_stored(d) + ((c / 16 * d->dim[1] + i) * d->dim[2] + j) * 16 + c % 16;
}

static void define(const bench *b, const shape *s, double *y, double *dx, double *dw) {
    const gap_desc *in = &b->op->in_desc[0], *out = &b->op->out_desc[0];
    memset(dx, 0, b->n_x * sizeof *dx), memset(dw, 0, b->n_w * sizeof *dw), memset(y, 0, b->n_y * sizeof *y);
    for (int64_t n = 0; n < b->ctx.n; n++)
        for (int64_t o = 0; o < s->oc; o++)
            for (int64_t i = 0; i < out->dim[1]; i++)
                for (int64_t j = 0; j < out->dim[2]; j++) {
                    const int64_t to = place(out, n, o, i, j);
                    y[to] = (double)b->bias[o];
                    for (int64_t t = 0; t < 9; t++) {
                        const int64_t r = i + t / 3 - s->p[0], q = j + t % 3 - s->p[1];
                        if (r < 0 || r >= s->h || q < 0 || q >= s->w) continue;
                        for (int64_t c = 0; c < s->c; c++) {
                            const int64_t from = place(in, n, c, r, q), w = (o * s->c + c) * 9 + t;
                            y[to] += (double)b->x[from] * (double)b->w[w];
                            dx[from] += (double)b->dy[to] * (double)b->w[w];
                            dw[w] += (double)b->dy[to] * (double)b->x[from];
                        }
                    }
                }
}

static void check_definition(const shape *s, const char *set, int m, int64_t n, int64_t capacity, int k) {
    const double tol = m == 4 ? 4e-6 : 1.2e-6;
    char name[96];
    bench b;
    double *y, *dx, *dw;
    make(&b, s, set, m, n, capacity);
    CHECK_OK(gap_alloc(&y, b.n_y, sizeof *y));
    CHECK_OK(gap_alloc(&dx, b.n_x, sizeof *dx));
    CHECK_OK(gap_alloc(&dw, b.n_w, sizeof *dw));
    run(&b), define(&b, s, y, dx, dw);
    snprintf(name, sizeof name, "%s shape %d m %d y", set ? set : "best", k, m);
    CHECK(op_near(name, b.y, y, b.n_y, tol)); /* padding lanes are 0 in both */
    snprintf(name, sizeof name, "%s shape %d m %d dx", set ? set : "best", k, m);
    CHECK(op_near(name, b.dx, dx, b.n_x, tol));
    snprintf(name, sizeof name, "%s shape %d m %d dw", set ? set : "best", k, m);
    CHECK(op_near(name, b.dw, dw, b.n_w, tol));
    gap_free(y), gap_free(dx), gap_free(dw);
    drop(&b);
}

static void test_winograd_definition(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++)
        for (int m = 2; m <= 4; m += 2) check_definition(&shapes[k], NULL, m, shapes[k].n, shapes[k].n, k);
}

/* A short batch in a larger plan: ranges of images without any. */
static void test_winograd_definition_of_a_short_batch(void) {
    for (int m = 2; m <= 4; m += 2) check_definition(&shapes[1], NULL, m, 1, 8, 1), check_definition(&shapes[3], NULL, m, 3, 70, 3);
}

/* Every size of tile in the last row and column, with whole tiles and without. */
static void test_winograd_definition_at_edges(void) {
    for (int64_t h = 5; h <= 15; h++) {
        const shape square = {3, 20, h, h, 18, {1, 1}}, oblong = {2, 16, h, 20 - h, 16, {1, 1}};
        for (int m = 2; m <= 4; m += 2) check_definition(&square, NULL, m, 3, 3, (int)h), check_definition(&oblong, NULL, m, 2, 4, (int)h);
    }
    for (int64_t h = 1; h <= 4; h++)
        for (int64_t w = 1; w <= 4; w++) {
            const shape s = {3, 16, h, w, 16, {1, 1}};
            for (int m = 2; m <= 4; m += 2) check_definition(&s, NULL, m, 3, 3, (int)(h * 10 + w));
        }
}

static int64_t draw(uint32_t *state, int64_t lo, int64_t hi) { return lo + (int64_t)(harness_u32(state) % (uint32_t)(hi - lo + 1)); }

static void same(const bench *a, const bench *b, const char *what, int k, int m) {
    char name[96];
    snprintf(name, sizeof name, "shape %d m %d, %s", k, m, what);
    CHECK(op_same(name, a->y, b->y, a->n_y));
    CHECK(op_same(name, a->dx, b->dx, a->n_x));
    CHECK(op_same(name, a->dw, b->dw, a->n_w));
}

static void test_winograd_random_shapes(void) {
    uint32_t state = 2027;
    for (int k = 0; k < 60; k++) {
        shape s = {.n = draw(&state, 1, 5), .c = draw(&state, 16, 70), .oc = draw(&state, 16, 70), .p = {draw(&state, 0, 2), draw(&state, 0, 2)}};
        s.h = draw(&state, gap_max64(1, 3 - 2 * s.p[0]), 17), s.w = draw(&state, gap_max64(1, 3 - 2 * s.p[1]), 17);
        const int before = harness_broken, m = k % 2 ? 4 : 2;
        check_definition(&s, NULL, m, s.n, s.n + (k % 3), k);
        if (gap_kernels_available(GAP_SET_AVX2)) {
            bench a, b;
            make(&a, &s, NULL, m, s.n, s.n), make(&b, &s, "avx2", m, s.n, s.n);
            run(&a), run(&b);
            same(&a, &b, "random", k, m);
            drop(&a), drop(&b);
        }
        if (harness_broken != before)
            printf("  n %d, %dx%dx%d -> %d, padding %d %d\n", (int)s.n, (int)s.c, (int)s.h, (int)s.w, (int)s.oc, (int)s.p[0], (int)s.p[1]);
    }
}

/* ---- the same bits ---- */

static void test_winograd_same_bits_in_every_kernel_set(void) {
    static const struct { gap_kernel_set_id id; const char *name; } sets[] = {{GAP_SET_AVX512, "avx512"}, {GAP_SET_AVX2, "avx2"}, {GAP_SET_NEON, "neon"}};
    for (int k = 0; k < GAP_COUNTOF(shapes); k++)
        for (int m = 2; m <= 4; m += 2) {
            bench ref, b;
            make(&ref, &shapes[k], "ref", m, shapes[k].n, shapes[k].n);
            run(&ref);
            for (int i = 0; i < GAP_COUNTOF(sets); i++) {
                if (!gap_kernels_available(sets[i].id)) continue;
                make(&b, &shapes[k], sets[i].name, m, shapes[k].n, shapes[k].n);
                run(&b);
                same(&ref, &b, sets[i].name, k, m);
                drop(&b);
            }
            drop(&ref);
        }
}

static void test_winograd_same_bits_at_any_thread_count(void) {
    static const int counts[] = {2, 3, 7};
    const int before = gap_threads_get();
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        bench one, b;
        CHECK_OK(gap_threads_set(1));
        make(&one, &shapes[k], NULL, 4, shapes[k].n, shapes[k].n);
        run(&one);
        for (int i = 0; i < GAP_COUNTOF(counts); i++) {
            CHECK_OK(gap_threads_set(counts[i]));
            make(&b, &shapes[k], NULL, 4, shapes[k].n, shapes[k].n);
            run(&b);
            same(&one, &b, "threads", k, 4);
            drop(&b);
        }
        drop(&one);
    }
    CHECK_OK(gap_threads_set(before));
}

/* An image gives the same bits alone, in any batch, at any place in it, in any plan. */
static void test_winograd_images_do_not_know_their_batch(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        const shape *s = &shapes[k];
        bench many, one;
        make(&many, s, NULL, 4, 5, 9), make(&one, s, NULL, 4, 1, 1);
        run(&many);
        for (int64_t n = 0; n < 5; n++) {
            char name[64];
            snprintf(name, sizeof name, "shape %d, image %d", k, (int)n);
            memcpy(one.x, many.x + (size_t)n * one.n_x, one.n_x * 4), memcpy(one.dy, many.dy + (size_t)n * one.n_y, one.n_y * 4);
            run(&one);
            CHECK(op_same(name, one.y, many.y + (size_t)n * one.n_y, one.n_y));
            CHECK(op_same(name, one.dx, many.dx + (size_t)n * one.n_x, one.n_x));
        }
        drop(&many), drop(&one);
    }
}

/* ---- add ---- */

static void test_winograd_adds(void) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        bench a, b;
        make(&a, &shapes[k], NULL, 4, shapes[k].n, shapes[k].n), make(&b, &shapes[k], NULL, 4, shapes[k].n, shapes[k].n);
        run(&a);
        harness_fill(b.y, b.n_y, 3), harness_fill(b.dx, b.n_x, 4), harness_fill(b.dw, b.n_w, 5);
        for (size_t i = 0; i < a.n_y; i++) a.y[i] = b.y[i] + a.y[i];
        for (size_t i = 0; i < a.n_x; i++) a.dx[i] = b.dx[i] + a.dx[i];
        for (size_t i = 0; i < a.n_w; i++) a.dw[i] = b.dw[i] + a.dw[i];
        b.y_out.add = b.dx_out.add = true;
        forward(&b), backward(&b), gradient(&b, true);
        same(&a, &b, "added", k, 4);
        drop(&a), drop(&b);
    }
}

/* ---- fusion: the same as the parts one after another ---- */

#define VECTORS 14 /* of padded channels, each of another meaning */

typedef struct { float *plane[3], *vector[VECTORS], *gate, *sums, *sums2; int64_t padded; } extras;

static void extras_make(extras *e, size_t floats, int64_t blocks, int64_t n, int64_t pieces) {
    e->padded = blocks * 16;
    for (int k = 0; k < 3; k++) {
        CHECK_OK(gap_alloc(&e->plane[k], floats, 4));
        harness_fill(e->plane[k], floats, 100 + (uint32_t)k);
    }
    for (int k = 0; k < VECTORS; k++) {
        CHECK_OK(gap_alloc(&e->vector[k], (size_t)e->padded, 4));
        harness_fill(e->vector[k], (size_t)e->padded, 200 + (uint32_t)k);
    }
    CHECK_OK(gap_alloc(&e->gate, (size_t)(n * e->padded), 4));
    harness_fill(e->gate, (size_t)(n * e->padded), 300);
    CHECK_OK(gap_alloc(&e->sums, (size_t)(n * pieces * 2 * e->padded), 4));
    CHECK_OK(gap_alloc(&e->sums2, (size_t)(n * pieces * 2 * e->padded), 4));
}
static void extras_drop(extras *e) {
    for (int k = 0; k < 3; k++) gap_free(e->plane[k]);
    for (int k = 0; k < VECTORS; k++) gap_free(e->vector[k]);
    gap_free(e->gate), gap_free(e->sums), gap_free(e->sums2);
}

#define PROLOGUES 6
static gap_prologue prologue(const extras *e, int kind) {
    gap_prologue p = {.act = GAP_ACT_NONE};
    if (kind != 5) p.scale = e->vector[0], p.shift = e->vector[1];
    if (kind == 1) p.act = GAP_ACT_RELU6;
    if (kind == 2) p.shift = NULL, p.z = e->plane[0], p.mean = e->vector[2], p.b = e->vector[3], p.c = e->vector[4];
    if (kind == 3) p.residual = e->plane[1], p.act = GAP_ACT_RELU;
    if (kind == 4) p.residual = e->plane[1], p.residual_scale = e->vector[5], p.residual_shift = e->vector[6], p.act = GAP_ACT_SILU, p.gate = e->gate;
    if (kind == 5) p.act = GAP_ACT_SIGMOID; /* padding lanes become 1/2 and must not count */
    return p;
}

/* Every plane of a source made explicit. */
static void explicit_source(const gap_kernels *kernels, const gap_source *s, int64_t n, float *to) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t b = 0; b < s->blocks; b++) {
            const gap_prologue p = gap_source_at(s, i, b);
            const int64_t at = (i * s->blocks + b) * s->plane;
            kernels->stream->map(s->plane / 16, s->x + at, &p, to + at, false);
        }
}

static void test_winograd_prologues(void) {
    static const int which[] = {1, 2, 3, 8, 10, 12, 14, 15, 16, 17};
    for (int i = 0; i < GAP_COUNTOF(which); i++)
        for (int kind = 0; kind < PROLOGUES; kind++) {
            const shape *s = &shapes[which[i]];
            bench a, b;
            extras ex, ey;
            make(&a, s, NULL, 4, s->n, s->n), make(&b, s, NULL, 4, s->n, s->n);
            extras_make(&ex, a.n_x, a.f.in_blocks, s->n, 1), extras_make(&ey, a.n_y, a.f.out_blocks, s->n, 1);
            b.x_in.pro = prologue(&ex, kind), b.dy_in.pro = prologue(&ey, kind);
            explicit_source(a.ctx.kernels, &b.x_in, s->n, a.x), explicit_source(a.ctx.kernels, &b.dy_in, s->n, a.dy);
            run(&a), run(&b);
            same(&a, &b, "prologue", which[i], kind);
            extras_drop(&ex), extras_drop(&ey);
            drop(&a), drop(&b);
        }
}

#define EPILOGUES 6
static gap_epilogue epilogue(const extras *e, int kind) {
    gap_epilogue p = {.kind = GAP_EPILOGUE_SUMS, .sums = e->sums};
    if (kind == 1) p.pivot = e->vector[0];
    if (kind == 2) p = (gap_epilogue){.kind = GAP_EPILOGUE_APPLY, .scale = e->vector[1], .shift = e->vector[2], .act = GAP_ACT_HARDSWISH};
    if (kind == 3) p = (gap_epilogue){.kind = GAP_EPILOGUE_APPLY, .scale = e->vector[1], .shift = e->vector[2], .residual = e->plane[0], .act = GAP_ACT_RELU};
    if (kind == 4)
        p = (gap_epilogue){.kind = GAP_EPILOGUE_MASK, .scale = e->vector[3], .shift = e->vector[4], .z = e->plane[0], .mean = e->vector[5],
                           .act = GAP_ACT_RELU, .sums = e->sums};
    if (kind == 5)
        p = (gap_epilogue){.kind = GAP_EPILOGUE_MASK, .out = e->plane[1], .z = e->plane[0], .mean = e->vector[5], .z2 = e->plane[2],
                           .mean2 = e->vector[6], .act = GAP_ACT_RELU, .sums = e->sums, .sums2 = e->sums2};
    return p;
}

/* The pass without epilogue, then the epilogue of whole planes; its sums go to `sums`. */
static void explicit_sink(const gap_kernels *kernels, gap_sink *s, int64_t n, int64_t h, int64_t w) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t b = 0; b < s->blocks; b++) {
            const gap_stream_finish f = {.y = s->y + (i * s->blocks + b) * s->plane, .pixels = h * w, .piece = gap_piece_rows(h, w) * w,
                                         .epi = gap_sink_at(s, i, b, 0, 0)};
            kernels->stream->finish(&f);
        }
}

static void check_epilogue(bench *a, bench *b, bool back, const shape *s, int k, int kind, bool add) {
    gap_sink *sa = back ? &a->dx_out : &a->y_out, *sb = back ? &b->dx_out : &b->y_out;
    const gap_wino *w = back ? &a->b : &a->f;
    const size_t floats = back ? a->n_x : a->n_y, n_sums = (size_t)(s->n * w->pieces * 2 * w->out_blocks * 16);
    char name[96];
    extras e, f;
    extras_make(&e, floats, w->out_blocks, s->n, w->pieces), extras_make(&f, floats, w->out_blocks, s->n, w->pieces);
    harness_fill(sa->y, floats, 9), harness_fill(sb->y, floats, 9);
    sa->epi = (gap_epilogue){.kind = GAP_EPILOGUE_NONE}, sb->epi = epilogue(&f, kind), sa->add = sb->add = add;
    if (back) backward(a), backward(b);
    else forward(a), forward(b);
    sa->epi = epilogue(&e, kind);
    explicit_sink(a->ctx.kernels, sa, s->n, w->out_h, w->out_w);
    snprintf(name, sizeof name, "shape %d, epilogue %d%s", k, kind, back ? ", backward" : "");
    CHECK(op_same(name, sa->y, sb->y, floats));
    CHECK(op_same(name, e.sums, f.sums, n_sums) && op_same(name, e.sums2, f.sums2, n_sums));
    extras_drop(&e), extras_drop(&f);
}

static void test_winograd_epilogues(void) {
    static const int which[] = {1, 2, 3, 8, 10, 12, 13, 14, 15, 16, 17};
    for (int i = 0; i < GAP_COUNTOF(which); i++)
        for (int kind = 0; kind < EPILOGUES; kind++)
            for (int back = 0; back < 2; back++) {
                const shape *s = &shapes[which[i]];
                bench a, b;
                make(&a, s, NULL, 4, s->n, s->n), make(&b, s, NULL, 4, s->n, s->n);
                check_epilogue(&a, &b, back, s, which[i], kind, kind % 2);
                drop(&a), drop(&b);
            }
}

/* ---- one tile ---- */

#define SIDE 6

/* Points that the tile lacks hold NaN before, and must after. */
static bool untouched(int m, int down, int across, const float *v) {
    for (int pos = 0; pos < (m + 2) * (m + 2); pos++)
        if (!gap_wino_has(m, down, pos / (m + 2)) || !gap_wino_has(m, across, pos % (m + 2)))
            for (int l = 0; l < 16; l++)
                if (!isnan(v[pos * 16 + l])) return false;
    return true;
}

/* a * b of the positions that a tile has; of the others `otherwise`. */
static void multiply(int m, int down, int across, const float *a, const float *b, float otherwise, float *to) {
    for (int pos = 0; pos < (m + 2) * (m + 2); pos++)
        for (int l = 0; l < 16; l++)
            to[pos * 16 + l] = gap_wino_has(m, down, pos / (m + 2)) && gap_wino_has(m, across, pos % (m + 2)) ? a[pos * 16 + l] * b[pos * 16 + l] : otherwise;
}

/* Outputs of a tile of down x across points, and the gradient of its weights, lane by lane. Inputs beyond the tile's are NaN. */
static void check_tile(const gap_winograd_kernels *k, const char *set, int m, int down, int across) {
    float x[SIDE * SIDE * 16], y[16 * 16], g[9 * 16], out[16 * 16], dg[9 * 256];
    float v[SIDE * SIDE * 16], u[SIDE * SIDE * 16], z[SIDE * SIDE * 16], p[SIDE * SIDE * 16];
    double want[16 * 16] = {0}, want_g[9 * 16] = {0};
    char name[96];
    const int rows = down - 2, cols = across - 2, pixels = 16 * 16;
    memset(x, 0xFF, sizeof x), memset(y, 0xFF, sizeof y), memset(v, 0xFF, sizeof v), memset(z, 0xFF, sizeof z), memset(out, 0, sizeof out);
    for (int i = 0; i < down; i++) harness_fill(x + i * SIDE * 16, (size_t)across * 16, 20 + (uint32_t)i);
    for (int i = 0; i < rows; i++) harness_fill(y + i * 64, (size_t)cols * 16, 30 + (uint32_t)i);
    harness_fill(g, 9 * 16, 40);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++)
            for (int t = 0; t < 9; t++)
                for (int l = 0; l < 16; l++) {
                    const double from = (double)x[((i + t / 3) * SIDE + j + t % 3) * 16 + l];
                    want[(i * 4 + j) * 16 + l] += from * (double)g[t * 16 + l], want_g[t * 16 + l] += from * (double)y[(i * 4 + j) * 16 + l];
                }
    k->input(&(gap_wino_tiles){.m = m, .points = {down, across}, .x = x, .x_row = SIDE * 16, .rows = 1, .cols = 1, .v = v, .v_pos = 16});
    k->spread(&(gap_wino_tiles){.m = m, .points = {down, across}, .x = y, .x_row = 64, .rows = 1, .cols = 1, .v = z, .v_pos = 16});
    k->weights(&(gap_wino_weights){.m = m, .w = g, .channels = 1, .u = u, .u_pos = 16});
    snprintf(name, sizeof name, "%s, m %d, %d x %d points", set, m, down, across);
    CHECK(untouched(m, down, across, v) && untouched(m, down, across, z));
    multiply(m, down, across, v, u, NAN, p);
    k->output(&(gap_wino_output){.m = m, .points = {down, across}, .p = p, .p_pos = 16, .rows = 1, .cols = 1, .y = out, .y_row = 64});
    CHECK(op_near(name, out, want, (size_t)pixels, 2e-6)); /* 0 beyond the tile */
    multiply(m, down, across, v, z, 0.0f, p);
    k->taps(&(gap_wino_taps){.m = m, .g = p, .g_pos = 16, .channels = 1, .w = dg});
    for (int t = 0; t < 9; t++) memmove(dg + t * 16, dg + t * 256, 16 * sizeof *dg);
    CHECK(op_near(name, dg, want_g, 9 * 16, 2e-6));
}

static void test_winograd_tiles_of_every_size(void) {
    static const char *const sets[] = {"ref", "avx2", "avx512", "neon"};
    static const gap_kernel_set_id ids[] = {GAP_SET_REF, GAP_SET_AVX2, GAP_SET_AVX512, GAP_SET_NEON};
    for (int i = 0; i < GAP_COUNTOF(sets); i++) {
        const gap_kernels *kernels = NULL;
        if (!gap_kernels_available(ids[i])) continue;
        CHECK_OK(gap_kernels_find(&kernels, sets[i]));
        for (int m = 2; m <= 4; m += 2)
            for (int down = 3; down <= m + 2; down++)
                for (int across = 3; across <= m + 2; across++) check_tile(kernels->winograd, sets[i], m, down, across);
    }
}

/* Which tiles take part in a position: 14 x 14 outputs leave out 92 of 576 products an image, 7 x 7 23 of 144. */
static void test_winograd_grid_counts_products(void) {
    static const int64_t cases[][3] = {{14, 4, 484}, {7, 4, 121}, {28, 4, 42 * 42}, {6, 4, 100}, {9, 4, 225}, {2, 4, 16}, {7, 2, 225}, {6, 2, 144}};
    for (int k = 0; k < GAP_COUNTOF(cases); k++) {
        const int64_t h = cases[k][0];
        const shape s = {3, 16, h, h, 16, {1, 1}};
        gap_wino_grid g;
        bench b;
        int64_t all = 0, first;
        make(&b, &s, NULL, (int)cases[k][1], 3, 3);
        gap_wino_grid_of(&g, &b.f, 3, 0, b.f.tiles_h, 0, b.f.tiles_w);
        CHECK(g.tiles == 3 * b.f.tiles_h * b.f.tiles_w);
        for (int pos = 0; pos < b.f.n_pos; pos++) all += gap_wino_grid_at(&g, pos, &first);
        CHECK(all == 3 * cases[k][2]);
        drop(&b);
    }
}

/* ---- what it is for ---- */

static bool fits(int64_t c, int64_t h, int64_t oc, int64_t kernel, int64_t stride, int64_t groups, gap_precision precision, gap_wino_tile *which) {
    gap_oplist list;
    const gap_desc in = gap_desc_image(c, h, h);
    const gap_conv_attr attr = {.out_channels = oc, .kernel = {kernel, kernel}, .stride = {stride, stride}, .padding = {kernel / 2, kernel / 2},
                                .dilation = {1, 1}, .groups = groups};
    const gap_origin who = {"conv", 0};
    int value, out;
    gap_oplist_init(&list, true);
    CHECK_OK(gap_oplist_value(&list, &in, &value));
    CHECK_OK(gap_emit_conv(&list, who, value, &attr, 0, -1, &out));
    const bool yes = gap_wino_fits(&list.op[0], precision, which);
    gap_oplist_free(&list);
    return yes;
}

static void test_winograd_fits(void) {
    gap_wino_tile which;
    CHECK(fits(64, 32, 64, 3, 1, 1, GAP_PRECISION_FAST, &which) && which == GAP_WINO_4);
    CHECK(fits(512, 7, 512, 3, 1, 1, GAP_PRECISION_FAST, &which) && which == GAP_WINO_4);
    CHECK(fits(64, 32, 64, 3, 1, 1, GAP_PRECISION_PRECISE, &which) && which == GAP_WINO_2);
    CHECK(fits(64, 6, 64, 3, 1, 1, GAP_PRECISION_FAST, &which) && which == GAP_WINO_4); /* 100 products, 144 with tiles of 2x2 */
    CHECK(fits(64, 5, 64, 3, 1, 1, GAP_PRECISION_FAST, &which) && which == GAP_WINO_4); /* 81, 121 */
    CHECK(fits(64, 3, 64, 3, 1, 1, GAP_PRECISION_PRECISE, &which) && which == GAP_WINO_2);
    CHECK(fits(64, 2, 64, 3, 1, 1, GAP_PRECISION_FAST, &which) && which == GAP_WINO_2); /* as many as with 4x4 */
    CHECK(!fits(64, 32, 64, 3, 2, 1, GAP_PRECISION_FAST, &which) && which == GAP_WINO_NONE);
    CHECK(!fits(64, 32, 64, 5, 1, 1, GAP_PRECISION_FAST, &which));
    CHECK(!fits(64, 32, 64, 3, 1, 2, GAP_PRECISION_FAST, &which));
    CHECK(!fits(64, 1, 64, 3, 1, 1, GAP_PRECISION_FAST, &which));
    CHECK(!fits(8, 32, 64, 3, 1, 1, GAP_PRECISION_FAST, &which));
}

static void test_winograd_allocates_nothing(void) {
    bench b;
    make(&b, &shapes[3], NULL, 4, shapes[3].n, shapes[3].n);
    run(&b); /* the pool's threads are there now */
    const int64_t before = gap_memory_count();
    CHECK_OK(gap_wino_derive(&b.f, b.w, b.bias, b.uf, &b.ctx));
    run(&b);
    CHECK(gap_memory_count() == before);
    drop(&b);
}

int main(void) {
    RUN(test_winograd_definition);
    RUN(test_winograd_definition_of_a_short_batch);
    RUN(test_winograd_definition_at_edges);
    RUN(test_winograd_random_shapes);
    RUN(test_winograd_same_bits_in_every_kernel_set);
    RUN(test_winograd_same_bits_at_any_thread_count);
    RUN(test_winograd_images_do_not_know_their_batch);
    RUN(test_winograd_adds);
    RUN(test_winograd_prologues);
    RUN(test_winograd_epilogues);
    RUN(test_winograd_tiles_of_every_size);
    RUN(test_winograd_grid_counts_products);
    RUN(test_winograd_fits);
    RUN(test_winograd_allocates_nothing);
    return harness_end();
}

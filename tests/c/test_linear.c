/* Linear against the definition in double, and against itself: kernel sets, thread counts, batch sizes. */
#include "op_harness.h"

typedef struct { int64_t n, f, of; bool bias; } shape;
static const shape shapes[] = {{1, 1, 1, true}, {3, 10, 7, true}, {5, 64, 10, true}, {70, 33, 40, false}, {9, 300, 129, true},
                               {17, 512, 16, true}, {2, 1024, 600, true}, {130, 784, 1000, true},
                               {1100, 20, 7, true}, {7, 70, 9, true}, {13, 150, 60, false}, {49, 17, 50, true}};

static void make(op_bench *b, const shape *s, const char *set, int64_t capacity, bool training) {
    const gap_kernels *kernels = NULL;
    CHECK_OK(gap_kernels_find(&kernels, set));
    memset(b, 0, sizeof *b);
    gap_oplist_init(&b->list, training);
    const gap_desc in = gap_desc_vector(s->f);
    const gap_origin who = {"fc", 0};
    int value, out;
    CHECK_OK(gap_oplist_value(&b->list, &in, &value));
    CHECK_OK(gap_emit_linear(&b->list, who, value, s->of, 0, s->bias ? 1 : -1, &out));
    const size_t n_w[2] = {(size_t)(s->of * s->f), (size_t)s->of};
    op_bench_make(b, kernels, capacity, training, n_w, 31);
}

static void run(op_bench *b) {
    if (b->op->def->derive) CHECK_OK(b->op->def->derive(b->op, &b->ctx));
    CHECK_OK(b->op->def->forward(b->op, &b->ctx));
    if (b->ctx.training) CHECK_OK(b->op->def->backward(b->op, &b->ctx));
}

/* add: what dx, dw, db held before is part of the answer. */
static void against_definition(const char *set, bool add, double tol) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        const shape *s = &shapes[k];
        op_bench b;
        double *y, *dx, *dw, *db;
        make(&b, s, set, s->n, true);
        CHECK_OK(gap_alloc(&y, b.n_y, 8));
        CHECK_OK(gap_alloc(&dx, b.n_x, 8));
        CHECK_OK(gap_alloc(&dw, b.n_w[0], 8));
        CHECK_OK(gap_alloc(&db, b.n_w[1], 8));
        if (add) {
            b.ctx.din_add[0] = b.ctx.dweight_add = true;
            harness_fill(b.dx, b.n_x, 1), harness_fill(b.dw[0], b.n_w[0], 2), harness_fill(b.dw[1], b.n_w[1], 3);
            for (size_t i = 0; i < b.n_x; i++) dx[i] = (double)b.dx[i];
            for (size_t i = 0; i < b.n_w[0]; i++) dw[i] = (double)b.dw[0][i];
            for (size_t i = 0; i < b.n_w[1]; i++) db[i] = (double)b.dw[1][i];
        }
        run(&b);
        for (int64_t n = 0; n < s->n; n++)
            for (int64_t o = 0; o < s->of; o++) {
                const double g = (double)b.dy[n * s->of + o];
                double sum = s->bias ? (double)b.w[1][o] : 0;
                for (int64_t f = 0; f < s->f; f++) {
                    sum += (double)b.x[n * s->f + f] * (double)b.w[0][o * s->f + f];
                    dx[n * s->f + f] += g * (double)b.w[0][o * s->f + f];
                    dw[o * s->f + f] += g * (double)b.x[n * s->f + f];
                }
                y[n * s->of + o] = sum, db[o] += g;
            }
        CHECK(op_near("y", b.y, y, b.n_y, tol));
        CHECK(op_near("dx", b.dx, dx, b.n_x, tol));
        CHECK(op_near("dw", b.dw[0], dw, b.n_w[0], tol));
        if (s->bias) CHECK(op_near("db", b.dw[1], db, b.n_w[1], s->n > 1000 ? 4 * tol : tol)); /* chains of 137 terms that cancel */
        gap_free(y), gap_free(dx), gap_free(dw), gap_free(db);
        op_bench_free(&b);
    }
}

static void test_linear_definition(void) { against_definition(NULL, false, 2e-6), against_definition("ref", false, 2e-6); }
static void test_linear_adds_where_asked(void) { against_definition(NULL, true, 2e-6); }
static void test_linear_definition_blas(void) {
    if (gap_kernels_available(GAP_SET_BLAS)) against_definition("blas", false, 1e-5), against_definition("blas", true, 1e-5);
}

static void check_same(const op_bench *a, const op_bench *b, const shape *s) {
    CHECK(op_same("y", a->y, b->y, a->n_y));
    CHECK(op_same("dx", a->dx, b->dx, a->n_x));
    CHECK(op_same("dw", a->dw[0], b->dw[0], a->n_w[0]));
    if (s->bias) CHECK(op_same("db", a->dw[1], b->dw[1], a->n_w[1]));
}

static void test_linear_same_bits_in_every_kernel_set(void) {
    static const struct { gap_kernel_set_id id; const char *name; } sets[] = {{GAP_SET_AVX512, "avx512"}, {GAP_SET_AVX2, "avx2"}, {GAP_SET_NEON, "neon"}};
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        op_bench ref, b;
        make(&ref, &shapes[k], "ref", shapes[k].n, true);
        run(&ref);
        for (int i = 0; i < GAP_COUNTOF(sets); i++) {
            if (!gap_kernels_available(sets[i].id)) continue;
            make(&b, &shapes[k], sets[i].name, shapes[k].n, true);
            run(&b);
            check_same(&ref, &b, &shapes[k]);
            op_bench_free(&b);
        }
        op_bench_free(&ref);
    }
}

static void test_linear_same_bits_at_any_thread_count(void) {
    const int before = gap_threads_get();
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        op_bench one, b;
        CHECK_OK(gap_threads_set(1));
        make(&one, &shapes[k], NULL, shapes[k].n, true);
        run(&one);
        make(&b, &shapes[k], NULL, shapes[k].n, true);
        for (int t = 2; t <= 7; t += t == 3 ? 4 : 1) {
            CHECK_OK(gap_threads_set(t));
            run(&b);
            check_same(&one, &b, &shapes[k]);
        }
        op_bench_free(&one), op_bench_free(&b);
    }
    CHECK_OK(gap_threads_set(before));
}

static void forward_alone(const char *set) {
    for (int k = 0; k < GAP_COUNTOF(shapes); k++) {
        op_bench many, one;
        make(&many, &shapes[k], set, shapes[k].n, false);
        run(&many);
        make(&one, &shapes[k], set, 1, false);
        for (int64_t n = 0; n < shapes[k].n; n++) {
            one.ctx.in[0] = many.x + n * shapes[k].f;
            run(&one);
            CHECK(op_same("batch", many.y + n * shapes[k].of, one.y, one.n_y));
        }
        op_bench_free(&many), op_bench_free(&one);
    }
}
static void test_linear_forward_does_not_depend_on_the_batch(void) {
    forward_alone(NULL);
    if (gap_kernels_available(GAP_SET_BLAS)) forward_alone("blas");
}

/* Chunks of samples that a short batch leaves empty add nothing. */
static void test_linear_short_batch(void) {
    static const shape s = {64, 37, 21, true};
    for (int64_t n = 1; n <= 9; n += 4) {
        op_bench b;
        double dw[21 * 37] = {0}, db[21] = {0};
        make(&b, &s, NULL, s.n, true);
        b.ctx.n = n;
        run(&b);
        for (int64_t i = 0; i < n; i++)
            for (int64_t o = 0; o < s.of; o++) {
                db[o] += (double)b.dy[i * s.of + o];
                for (int64_t f = 0; f < s.f; f++) dw[o * s.f + f] += (double)b.dy[i * s.of + o] * (double)b.x[i * s.f + f];
            }
        CHECK(op_near("dw", b.dw[0], dw, b.n_w[0], 1e-6));
        CHECK(op_near("db", b.dw[1], db, b.n_w[1], 1e-6));
        op_bench_free(&b);
    }
}

static void test_linear_refuses(void) {
    gap_oplist list;
    gap_oplist_init(&list, true);
    const gap_desc image = gap_desc_image(6, 4, 4);
    const gap_origin who = {"fc", 0};
    int a, out;
    CHECK_OK(gap_oplist_value(&list, &image, &a));
    CHECK_FAILS(gap_emit_linear(&list, who, a, 3, 0, -1, &out), GAP_ERR_SHAPE);
    gap_oplist_free(&list);
}

int main(void) {
    RUN(test_linear_definition);
    RUN(test_linear_adds_where_asked);
    RUN(test_linear_definition_blas);
    RUN(test_linear_same_bits_in_every_kernel_set);
    RUN(test_linear_same_bits_at_any_thread_count);
    RUN(test_linear_forward_does_not_depend_on_the_batch);
    RUN(test_linear_short_batch);
    RUN(test_linear_refuses);
    return harness_end();
}

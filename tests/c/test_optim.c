/* Each optimizer against its formulas in double, over 50 steps of gradients that depend on the weights. */
#include "kernels/kernels.h"
#include "optim/optimizer.h"

#include "harness.h"

#define N 37
#define STEPS 50
#define MAX_SLOTS GAP_OPTIM_MAX_SLOTS

typedef struct { double w[N], slot[MAX_SLOTS][N]; } state;
typedef void exact_fn(const double *h, int64_t step, double g, double *w, double *s0, double *s1, double *s2);

static void exact_sgd(const double *h, int64_t step, double g, double *w, double *b, double *s1, double *s2) {
    (void)s1, (void)s2;
    g += h[3] * *w;
    if (h[1] != 0) {
        *b = step == 1 ? g : h[1] * *b + (1 - h[2]) * g;
        g = h[4] != 0 ? g + h[1] * *b : *b;
    }
    *w -= h[0] * g;
}

static void exact_adam_any(const double *h, int64_t t, double g, double *w, double *m, double *v, double *most) {
    *m = h[1] * *m + (1 - h[1]) * g;
    *v = h[2] * *v + (1 - h[2]) * g * g;
    *most = fmax(*most, *v);
    *w -= h[0] / (1 - pow(h[1], (double)t)) * *m / (sqrt(h[5] != 0 ? *most : *v) / sqrt(1 - pow(h[2], (double)t)) + h[3]);
}
static void exact_adam(const double *h, int64_t t, double g, double *w, double *m, double *v, double *most) {
    exact_adam_any(h, t, g + h[4] * *w, w, m, v, most);
}
static void exact_adamw(const double *h, int64_t t, double g, double *w, double *m, double *v, double *most) {
    *w *= 1 - h[0] * h[4];
    exact_adam_any(h, t, g, w, m, v, most);
}

static void exact_rmsprop(const double *h, int64_t step, double g, double *w, double *v, double *b, double *a) {
    (void)step;
    g += h[3] * *w;
    *v = h[1] * *v + (1 - h[1]) * g * g;
    *a = h[1] * *a + (1 - h[1]) * g;
    double d = sqrt(h[5] != 0 ? *v - *a * *a : *v) + h[2];
    *b = h[4] * *b + g / d;
    *w -= h[0] * (h[4] > 0 ? *b : g / d);
}

typedef struct { const char *optimizer; exact_fn *exact; double hyper[8]; } test_case;

static const test_case cases[] = {
    {"SGD", exact_sgd, {0.1, 0, 0, 0, 0}},         {"SGD", exact_sgd, {0.05, 0.9, 0, 1e-2, 0}},
    {"SGD", exact_sgd, {0.05, 0.9, 0, 1e-2, 1}},   {"SGD", exact_sgd, {0.05, 0.8, 0.3, 0, 0}},
    {"Adam", exact_adam, {1e-2, 0.9, 0.999, 1e-8, 0, 0}}, {"Adam", exact_adam, {1e-2, 0.8, 0.99, 1e-6, 1e-2, 1}},
    {"Adam", exact_adam, {1e-2, 0, 0.99, 1e-6, 0, 0}},
    {"AdamW", exact_adamw, {1e-2, 0.9, 0.999, 1e-8, 1e-1, 0}}, {"AdamW", exact_adamw, {1e-2, 0.3, 0.95, 1e-4, 1e-2, 1}},
    {"RMSprop", exact_rmsprop, {1e-2, 0.99, 1e-8, 0, 0, 0}}, {"RMSprop", exact_rmsprop, {1e-2, 0.9, 1e-6, 1e-2, 0.9, 0}},
    {"RMSprop", exact_rmsprop, {1e-2, 0.9, 1e-6, 0, 0.5, 1}},
};

static const gap_kernels *set_of(const char *name) {
    const gap_kernels *kernels = NULL;
    CHECK_OK(gap_kernels_find(&kernels, name));
    return kernels;
}

/* One step of a case on n weights from `at` on, in the plan's way. */
static void step_of(const test_case *c, const gap_kernels *kernels, int64_t t, size_t at, size_t n, float *w, const float *g,
                    float slot[MAX_SLOTS][N], float *ema) {
    gap_optim_range r = {.n = n, .weight = w + at, .gradient = g + at, .ema = ema ? ema + at : NULL, .ema_move = 0.125f};
    for (int s = 0; s < MAX_SLOTS; s++) r.slot[s] = slot[s] + at;
    gap_optimizer_find(c->optimizer)->update(kernels->optim, c->hyper, t, &r);
}

/* A gradient that pulls to 0.3 and shakes; the same for both. */
static double pull(double w, int i, int t) { return w - 0.3 + 0.5 * sin(0.7 * t + 1.3 * i); }

static void begin(state *e, float *w, float slot[MAX_SLOTS][N]) {
    memset(e, 0, sizeof *e);
    memset(slot, 0, sizeof(float) * MAX_SLOTS * N);
    harness_fill(w, N, 12);
    for (int i = 0; i < N; i++) e->w[i] = (double)w[i];
}

static void test_optim_fifty_steps_follow_the_formulas(void) {
    for (int k = 0; k < GAP_COUNTOF(cases); k++) {
        const test_case *c = &cases[k];
        state e;
        float w[N], g[N], slot[MAX_SLOTS][N];
        CHECK(gap_optimizer_find(c->optimizer) != NULL);
        begin(&e, w, slot);
        for (int t = 1; t <= STEPS; t++) {
            for (int i = 0; i < N; i++) {
                g[i] = (float)pull(e.w[i], i, t);
                c->exact(c->hyper, t, (double)g[i], &e.w[i], &e.slot[0][i], &e.slot[1][i], &e.slot[2][i]);
            }
            step_of(c, set_of(NULL), t, 0, N, w, g, slot, NULL);
        }
        for (int i = 0; i < N; i++) {
            CHECK_NEAR((double)w[i], e.w[i], 1e-5);
            if (fabs((double)w[i] - e.w[i]) > 1e-5) printf("  case %d (%s), weight %d\n", k, c->optimizer, i);
        }
    }
}

typedef struct { float w[N], slot[MAX_SLOTS][N], ema[N]; } held;

static void held_begin(held *h) {
    memset(h, 0, sizeof *h);
    harness_fill(h->w, N, 12), memcpy(h->ema, h->w, sizeof h->w);
}

/* Elementwise: a range cut anywhere, at any alignment, gives the same bits; the average too. */
static void test_optim_any_cut_gives_the_same_bits(void) {
    for (int k = 0; k < GAP_COUNTOF(cases); k++) {
        for (size_t cut = 0; cut <= N; cut += 5) {
            held a, b;
            float g[N];
            held_begin(&a), held_begin(&b);
            for (int t = 1; t <= 3; t++) {
                harness_fill(g, N, (uint32_t)t);
                step_of(&cases[k], set_of(NULL), t, 0, N, a.w, g, a.slot, a.ema);
                step_of(&cases[k], set_of(NULL), t, 0, cut, b.w, g, b.slot, b.ema);
                step_of(&cases[k], set_of(NULL), t, cut, N - cut, b.w, g, b.slot, b.ema);
            }
            CHECK(memcmp(&a, &b, sizeof a) == 0);
        }
    }
}

static const struct { gap_kernel_set_id id; const char *name; } sets[] = {{GAP_SET_AVX512, "avx512"}, {GAP_SET_AVX2, "avx2"}, {GAP_SET_NEON, "neon"}};

static void test_optim_same_bits_in_every_kernel_set(void) {
    for (int i = 0; i < GAP_COUNTOF(sets); i++) {
        if (!gap_kernels_available(sets[i].id)) continue;
        for (int k = 0; k < GAP_COUNTOF(cases); k++) {
            held a, b;
            float g[N];
            held_begin(&a), held_begin(&b);
            for (int t = 1; t <= 5; t++) {
                harness_fill(g, N, (uint32_t)t);
                step_of(&cases[k], set_of("ref"), t, 0, N, a.w, g, a.slot, a.ema);
                step_of(&cases[k], set_of(sets[i].name), t, 0, N, b.w, g, b.slot, b.ema);
            }
            CHECK(memcmp(&a, &b, sizeof a) == 0);
        }
    }
}

/* The average follows the weight as it is after the step, and nothing but what the step was given is touched. */
static void test_optim_average_follows_the_new_weight(void) {
    for (int k = 0; k < GAP_COUNTOF(cases); k++) {
        held h, before;
        float g[N];
        held_begin(&h), harness_fill(g, N, 3), before = h;
        step_of(&cases[k], set_of(NULL), 1, 3, N - 7, h.w, g, h.slot, h.ema);
        for (int i = 0; i < N; i++) {
            const bool inside = i >= 3 && i < N - 4;
            const float want = before.ema[i] + 0.125f * (h.w[i] - before.ema[i]);
            CHECK(memcmp(&h.ema[i], inside ? &want : &before.ema[i], 4) == 0);
            CHECK((memcmp(&h.w[i], &before.w[i], 4) != 0) == inside);
        }
        float alone[N];
        memcpy(alone, before.ema, sizeof alone);
        set_of(NULL)->optim->average(N - 7, h.w + 3, alone + 3, 0.125f);
        CHECK(memcmp(alone, h.ema, sizeof alone) == 0);
    }
}

static void check_nonfinite(const gap_optim_kernels *kernels) {
    static const float bad[] = {INFINITY, -INFINITY, NAN, -NAN}, good[] = {3.40282347e38f, -3.40282347e38f, 0.0f, -0.0f, 1e-40f};
    float x[N];
    double sum;
    for (size_t n = 0; n <= N; n++)
        for (size_t at = 0; at < N; at++) {
            for (int i = 0; i < N; i++) x[i] = good[i % GAP_COUNTOF(good)];
            CHECK(!kernels->nonfinite(n, x));
            x[at] = bad[at % GAP_COUNTOF(bad)];
            CHECK(kernels->nonfinite(n, x) == (at < n) && kernels->nonfinite_squares(n, x, &sum) == (at < n));
        }
}

static void test_optim_sees_what_is_not_finite(void) {
    check_nonfinite(set_of("ref")->optim);
    for (int i = 0; i < GAP_COUNTOF(sets); i++)
        if (gap_kernels_available(sets[i].id)) check_nonfinite(set_of(sets[i].name)->optim);
}

static void test_optim_squares_and_scale_are_the_same_in_every_kernel_set(void) {
    float x[N], y[N], z[N];
    double exact = 0, want, sum;
    harness_fill(x, N, 5);
    for (int i = 0; i < N; i++) exact += (double)x[i] * (double)x[i];
    CHECK(!set_of("ref")->optim->nonfinite_squares(N, x, &want));
    CHECK_NEAR(want, exact, 1e-14);
    memcpy(y, x, sizeof y), set_of("ref")->optim->scale(N - 2, y, 0.3f);
    CHECK(memcmp(y + N - 2, x + N - 2, 8) == 0 && y[0] >= 0.3f * x[0] && y[0] <= 0.3f * x[0]);
    for (int i = 0; i < GAP_COUNTOF(sets); i++) {
        if (!gap_kernels_available(sets[i].id)) continue;
        memcpy(z, x, sizeof z), set_of(sets[i].name)->optim->scale(N - 2, z, 0.3f);
        CHECK(!set_of(sets[i].name)->optim->nonfinite_squares(N, x, &sum));
        CHECK(memcmp(y, z, sizeof y) == 0 && memcmp(&sum, &want, sizeof sum) == 0);
    }
}

static void test_optim_rows_are_whole(void) {
    for (int k = 0; k < gap_optimizer_count; k++) {
        const gap_optimizer_def *def = gap_optimizer_table[k];
        gap_value v[GAP_PARAM_MAX];
        CHECK(strcmp(def->params[0].name, "lr") == 0 && def->n_params <= GAP_PARAM_MAX && def->n_slots <= GAP_OPTIM_MAX_SLOTS);
        for (int s = 0; s < def->n_slots; s++) CHECK(def->slot_names[s] != NULL);
        gap_config_defaults(def->params, def->n_params, v);
        CHECK_OK(gap_config_check(def->name, def->params, def->n_params, v));
        v[0].f[0] = -1.0;
        CHECK_FAILS(gap_config_check(def->name, def->params, def->n_params, v), GAP_ERR_VALUE);
    }
}

static void test_optim_sgd_refuses_what_torch_refuses(void) {
    const gap_optimizer_def *sgd = gap_optimizer_find("SGD");
    CHECK_OK(sgd->check((double[]){0.1, 0.9, 0, 0, 1}));
    CHECK_OK(sgd->check((double[]){0.1, 0, 0.3, 0, 0}));
    CHECK_FAILS(sgd->check((double[]){0.1, 0, 0, 0, 1}), GAP_ERR_VALUE);
    CHECK_FAILS(sgd->check((double[]){0.1, 0.9, 0.1, 0, 1}), GAP_ERR_VALUE);
}

int main(void) {
    RUN(test_optim_fifty_steps_follow_the_formulas);
    RUN(test_optim_any_cut_gives_the_same_bits);
    RUN(test_optim_same_bits_in_every_kernel_set);
    RUN(test_optim_average_follows_the_new_weight);
    RUN(test_optim_sees_what_is_not_finite);
    RUN(test_optim_squares_and_scale_are_the_same_in_every_kernel_set);
    RUN(test_optim_rows_are_whole);
    RUN(test_optim_sgd_refuses_what_torch_refuses);
    return harness_end();
}

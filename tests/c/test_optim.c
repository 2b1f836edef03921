/* Each optimizer against its formulas in double, over 50 steps of gradients that depend on the weights. */
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
        const gap_optimizer_def *def = gap_optimizer_find(c->optimizer);
        state e;
        float w[N], g[N], slot[MAX_SLOTS][N], *slots[MAX_SLOTS] = {slot[0], slot[1], slot[2], slot[3]};
        CHECK(def != NULL);
        if (def == NULL) continue;
        begin(&e, w, slot);
        for (int t = 1; t <= STEPS; t++) {
            for (int i = 0; i < N; i++) {
                g[i] = (float)pull(e.w[i], i, t);
                c->exact(c->hyper, t, (double)g[i], &e.w[i], &e.slot[0][i], &e.slot[1][i], &e.slot[2][i]);
            }
            def->update(c->hyper, t, N, w, g, slots);
        }
        for (int i = 0; i < N; i++) {
            CHECK_NEAR((double)w[i], e.w[i], 1e-5);
            if (fabs((double)w[i] - e.w[i]) > 1e-5) printf("  case %d (%s), weight %d\n", k, c->optimizer, i);
        }
    }
}

/* Elementwise: a range cut anywhere, at any alignment, gives the same bits. */
static void test_optim_any_cut_gives_the_same_bits(void) {
    for (int k = 0; k < GAP_COUNTOF(cases); k++) {
        const gap_optimizer_def *def = gap_optimizer_find(cases[k].optimizer);
        for (size_t cut = 0; cut <= N; cut += 5) {
            float w[2][N], g[N], slot[2][MAX_SLOTS][N];
            memset(slot, 0, sizeof slot);
            harness_fill(w[0], N, 12), memcpy(w[1], w[0], sizeof w[0]);
            for (int t = 1; t <= 3; t++) {
                harness_fill(g, N, (uint32_t)t);
                float *whole[MAX_SLOTS], *low[MAX_SLOTS], *high[MAX_SLOTS];
                for (int s = 0; s < MAX_SLOTS; s++) whole[s] = slot[0][s], low[s] = slot[1][s], high[s] = slot[1][s] + cut;
                def->update(cases[k].hyper, t, N, w[0], g, whole);
                def->update(cases[k].hyper, t, cut, w[1], g, low);
                def->update(cases[k].hyper, t, N - cut, w[1] + cut, g + cut, high);
            }
            CHECK(memcmp(w[0], w[1], sizeof w[0]) == 0 && memcmp(slot[0], slot[1], sizeof slot[0]) == 0);
        }
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
    RUN(test_optim_rows_are_whole);
    RUN(test_optim_sgd_refuses_what_torch_refuses);
    return harness_end();
}

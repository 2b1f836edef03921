#include "kernels/math.h"

#include "core/cpu.h"
#include "harness.h"
#include "kernels/kernels.h"

/* Distance from `got` to the exact value, in units of the last place of the exact value. */
static double ulps(float got, double exact) {
    int e;
    frexp(exact, &e);
    return fabs((double)got - exact) / ldexp(1.0, e - 24);
}

typedef float scalar_fn(float);
typedef double exact_fn(double);

static double exact_sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
static double exact_softplus(double x) { return (x > 0 ? x : 0) + log1p(exp(-fabs(x))); }

/* Largest error over a fine grid of bit patterns of both signs with lo <= |x| <= hi. */
static double worst(scalar_fn *f, exact_fn *g, float lo, float hi, bool negative) {
    double most = 0;
    for (uint32_t b = gap_float_bits(lo); b <= gap_float_bits(hi); b += 1009) {
        for (int sign = 0; sign <= (negative ? 1 : 0); sign++) {
            float x = sign ? -gap_bits_float(b) : gap_bits_float(b);
            double exact = g((double)x), u;
            if (fabs(exact) < 1.1754944e-38 || fabs(exact) > 3.4e38) continue;
            u = ulps(f(x), exact);
            if (u > most) most = u;
        }
    }
    return most;
}

static void test_math_errors_stay_within_what_the_header_says(void) {
    CHECK(worst(gap_expf, exp, 1e-30f, 88.7f, true) <= 1.01);
    CHECK(worst(gap_logf, log, 1.1754944e-38f, 3.4e38f, false) <= 1.01);
    CHECK(worst(gap_tanhf, tanh, 1e-30f, 20.0f, true) <= 2.0);
    CHECK(worst(gap_sigmoidf, exact_sigmoid, 1e-30f, 87.0f, true) <= 3.0);
    CHECK(worst(gap_softplusf, exact_softplus, 1e-30f, 87.0f, true) <= 2.0);
}

static void test_math_limits(void) {
    CHECK(gap_expf(0.0f) == 1.0f && gap_expf(-INFINITY) == 0.0f && gap_expf(-1e30f) == 0.0f);
    CHECK(isinf(gap_expf(INFINITY)) && isinf(gap_expf(89.0f)) && isfinite(gap_expf(88.72283f)) && isnan(gap_expf(NAN)));
    CHECK(gap_logf(1.0f) == 0.0f && isinf(gap_logf(0.0f)) && gap_logf(0.0f) < 0 && isinf(gap_logf(INFINITY)));
    CHECK(isnan(gap_logf(-1.0f)) && isnan(gap_logf(NAN)) && isnan(gap_logf(-INFINITY)));
    CHECK(gap_tanhf(100.0f) == 1.0f && gap_tanhf(-INFINITY) == -1.0f && gap_tanhf(0.0f) == 0.0f && isnan(gap_tanhf(NAN)));
    CHECK(gap_sigmoidf(0.0f) == 0.5f && gap_sigmoidf(INFINITY) == 1.0f && gap_sigmoidf(-INFINITY) == 0.0f && isnan(gap_sigmoidf(NAN)));
    CHECK(gap_softplusf(100.0f) == 100.0f && gap_softplusf(-INFINITY) == 0.0f && isinf(gap_softplusf(INFINITY)) && isnan(gap_softplusf(NAN)));
}

#define N 100003
static float given[N], got[N];

/* All kinds of values: moderate ones, every exponent, and the special ones. */
static void fill_inputs(void) {
    uint32_t seed = 7;
    for (int k = 0; k < N; k++) {
        uint32_t b = harness_u32(&seed) << 8 ^ harness_u32(&seed);
        given[k] = k % 2 ? 12.0f * harness_uniform(&seed) : gap_bits_float(b);
        if (given[k] != given[k] || fabsf(given[k]) < 1.17549435e-38f) given[k] = 0.0f;
    }
    const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 88.7228317f, 88.7228394f, -87.3365402f, -87.33655f, 0.625f, 3.0f, -3.0f, 6.0f};
    memcpy(given, special, sizeof special);
}

/* NaN is NaN whatever its sign. */
static bool same(float a, float b) { return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b); }

/* The 16-lane forms, reached through the activation kernels, against the scalar ones. */
static void check_act_equals_scalar(const gap_kernels *k, gap_act act, scalar_fn *f) {
    int bad = 0;
    k->act->forward(act, 0.0f, N, given, got);
    for (int i = 0; i < N; i++) bad += !same(got[i], f(given[i]));
    CHECK(bad == 0);
}

static void test_math_lanes_equal_scalar_in_every_set(void) {
    fill_inputs();
    const char *const names[] = {"ref", "avx2", "avx512", "neon"};
    for (int s = 0; s < 4; s++) {
        const gap_kernels *k = NULL;
        if (gap_kernels_find(&k, names[s]) != GAP_OK) continue;
        check_act_equals_scalar(k, GAP_ACT_TANH, gap_tanhf);       /* exp inside */
        check_act_equals_scalar(k, GAP_ACT_SIGMOID, gap_sigmoidf);
    }
}

/* What no kernel reaches yet, in the reference vocabulary; the other sets keep its bits lane by lane. The sanitizers take
 * minutes to compile its inlined lanes, and would find nothing in arithmetic. */
#ifndef __SANITIZE_ADDRESS__
#define CHECK_VOCABULARY 1
static void lanes_log(const float *in, float *out);
static void lanes_softplus(const float *in, float *out);
static void lanes_exp(const float *in, float *out);

static void check_lanes_equal_scalar(void (*lanes)(const float *, float *), scalar_fn *f) {
    int bad = 0;
    for (int k = 0; k + 16 <= N; k += 16) lanes(given + k, got + k);
    for (int k = 0; k + 16 <= N; k++) bad += k < N / 16 * 16 && !same(got[k], f(given[k]));
    CHECK(bad == 0);
}

static void test_math_lanes_equal_scalar_in_the_vocabulary(void) {
    fill_inputs();
    check_lanes_equal_scalar(lanes_exp, gap_expf);
    check_lanes_equal_scalar(lanes_log, gap_logf);
    check_lanes_equal_scalar(lanes_softplus, gap_softplusf);
}
#endif

int main(void) {
    RUN(test_math_errors_stay_within_what_the_header_says);
    RUN(test_math_limits);
    RUN(test_math_lanes_equal_scalar_in_every_set);
#ifdef CHECK_VOCABULARY
    RUN(test_math_lanes_equal_scalar_in_the_vocabulary);
#endif
    return harness_end();
}

#ifdef CHECK_VOCABULARY
#include "kernels/isa_ref.h"
#include "kernels/math.inc"

static void lanes_exp(const float *in, float *out) { vf_storeu(out, vf_exp(vf_loadu(in))); }
static void lanes_log(const float *in, float *out) { vf_storeu(out, vf_log(vf_loadu(in))); }
static void lanes_softplus(const float *in, float *out) { vf_storeu(out, vf_softplus(vf_loadu(in))); }
#endif

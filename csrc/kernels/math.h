/* math.h — our own exp, log, tanh, sigmoid, softplus in fp32: the same bits with every libm, compiler and machine.
 *
 * The forms of math.inc do the same operations lane by lane and give the same bits. Every fused multiply-add is written
 * out. Largest errors, against the exact value, for results that are not denormal: exp 1, log 1, tanh 2, sigmoid 3,
 * softplus 2 units in the last place. Results below FLT_MIN are 0 in exp; denormal arguments of log count as 0.
 * NaN gives NaN; exp and log have their limits at 0, infinity and below 0 (log: NaN).
 */
#ifndef GAP_KERNELS_MATH_H
#define GAP_KERNELS_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Constants that the two forms share: ORDER MATH in math.inc. */
#define GAP_EXP_MAGIC 12582912.0f       /* 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits */
#define GAP_EXP_LOG2E 1.44269504f
#define GAP_EXP_LN2_HIGH 0.693359375f   /* 10 bits: n * high is exact */
#define GAP_EXP_LN2_LOW (-2.12194440e-4f)
#define GAP_EXP_TOP 88.7228317f         /* largest x with a finite exp */
#define GAP_EXP_BOTTOM (-87.3365402f)   /* smallest x with exp(x) >= FLT_MIN */
/* exp(r) = 1 + r + r^2 (E0 + E1 r + …), |r| <= ln2 / 2 (Cephes) */
#define GAP_EXP_E0 5.0000001201e-1f
#define GAP_EXP_E1 1.6666665459e-1f
#define GAP_EXP_E2 4.1665795894e-2f
#define GAP_EXP_E3 8.3334519073e-3f
#define GAP_EXP_E4 1.3981999507e-3f
#define GAP_EXP_E5 1.9875691500e-4f
/* log(1 + f) = f - f^2/2 + f^3 (L0 + L1 f + …), sqrt(1/2) <= 1 + f < sqrt(2) (Cephes) */
#define GAP_LOG_SPLIT 0x3f3504f3        /* bits of sqrt(1/2) */
#define GAP_LOG_L0 3.3333331174e-1f
#define GAP_LOG_L1 (-2.4999993993e-1f)
#define GAP_LOG_L2 2.0000714765e-1f
#define GAP_LOG_L3 (-1.6668057665e-1f)
#define GAP_LOG_L4 1.4249322787e-1f
#define GAP_LOG_L5 (-1.2420140846e-1f)
#define GAP_LOG_L6 1.1676998740e-1f
#define GAP_LOG_L7 (-1.1514610310e-1f)
#define GAP_LOG_L8 7.0376836292e-2f
/* tanh(x) = x + x z (T0 + T1 z + …), z = x^2, |x| < 0.625 (Cephes) */
#define GAP_TANH_SMALL 0.625f
#define GAP_TANH_T0 (-3.33332819422e-1f)
#define GAP_TANH_T1 1.33314422036e-1f
#define GAP_TANH_T2 (-5.37397155531e-2f)
#define GAP_TANH_T3 2.06390887954e-2f
#define GAP_TANH_T4 (-5.70498872745e-3f)

static inline uint32_t gap_float_bits(float x) { uint32_t b; memcpy(&b, &x, sizeof b); return b; }
static inline float gap_bits_float(uint32_t b) { float x; memcpy(&x, &b, sizeof x); return x; }

static inline float gap_expf(float x) {
    float t = fmaf(x, GAP_EXP_LOG2E, GAP_EXP_MAGIC), n = t - GAP_EXP_MAGIC;
    float r = fmaf(n, -GAP_EXP_LN2_LOW, fmaf(n, -GAP_EXP_LN2_HIGH, x));
    float p = fmaf(GAP_EXP_E5, r, GAP_EXP_E4);
    p = fmaf(p, r, GAP_EXP_E3);
    p = fmaf(p, r, GAP_EXP_E2);
    p = fmaf(p, r, GAP_EXP_E1);
    p = fmaf(p, r, GAP_EXP_E0);
    p = fmaf(p, r * r, r) + 1.0f;
    float y = gap_bits_float(gap_float_bits(p) + (gap_float_bits(t) << 23)); /* p * 2^n; in range p < 1 where n = 128 */
    if (x > GAP_EXP_TOP) y = INFINITY;
    if (x < GAP_EXP_BOTTOM) y = 0.0f;
    return x != x ? x : y;
}

static inline float gap_logf(float x) {
    uint32_t k = gap_float_bits(x) - GAP_LOG_SPLIT;
    float e = (float)((int32_t)k >> 23), f = gap_bits_float((k & 0x7fffff) + GAP_LOG_SPLIT) - 1.0f, z = f * f;
    float p = fmaf(GAP_LOG_L8, f, GAP_LOG_L7);
    p = fmaf(p, f, GAP_LOG_L6);
    p = fmaf(p, f, GAP_LOG_L5);
    p = fmaf(p, f, GAP_LOG_L4);
    p = fmaf(p, f, GAP_LOG_L3);
    p = fmaf(p, f, GAP_LOG_L2);
    p = fmaf(p, f, GAP_LOG_L1);
    p = fmaf(p, f, GAP_LOG_L0);
    p = fmaf(f * z, p, e * GAP_EXP_LN2_LOW);
    p = fmaf(-0.5f, z, p);
    float y = fmaf(e, GAP_EXP_LN2_HIGH, f + p);
    if (x < 1.17549435e-38f) y = x < 0.0f ? NAN : -INFINITY;
    return x < INFINITY ? y : x; /* infinity and NaN give themselves */
}

static inline float gap_tanhf(float x) {
    float z = x * x, p = fmaf(GAP_TANH_T4, z, GAP_TANH_T3), a = fabsf(x);
    p = fmaf(p, z, GAP_TANH_T2);
    p = fmaf(p, z, GAP_TANH_T1);
    p = fmaf(p, z, GAP_TANH_T0);
    float small = fmaf(p * z, x, x);
    float large = 1.0f - 2.0f / (gap_expf(a + a) + 1.0f);
    return a < GAP_TANH_SMALL ? small : x < 0.0f ? -large : large;
}

static inline float gap_sigmoidf(float x) { return 1.0f / (1.0f + gap_expf(-x)); }

/* log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)); the rounding of 1 + t is put right to first order. */
static inline float gap_softplusf(float x) {
    float t = gap_expf(-fabsf(x)), u = 1.0f + t;
    float l = gap_logf(u) + (t - (u - 1.0f)) / u;
    return (0.0f > x ? 0.0f : x) + l;
}

#endif

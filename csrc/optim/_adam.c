#include "optim/_adam.h"

#include <math.h>

/* base^n by squaring: libm's pow differs between machines in the last bit, and weights must not. */
static double power(double base, int64_t n) {
    double result = 1.0;
    for (; n > 0; n >>= 1) {
        if (n & 1) result *= base;
        base *= base;
    }
    return result;
}

/* What a step needs, worked out in double and rounded once, as torch does with Python's numbers. */
typedef struct {
    float shrink, decay;         /* weight *= shrink (decoupled), gradient += decay * weight (coupled) */
    float lerp, beta2, rest2;    /* 1 - beta1, beta2, 1 - beta2 */
    float step_size, root, eps;  /* lr / (1 - beta1^t), sqrt(1 - beta2^t) */
} adam_step;

static adam_step step_of(const double *hyper, bool decoupled, int64_t step) {
    double lr = hyper[GAP_ADAM_LR], beta1 = hyper[GAP_ADAM_BETA1], beta2 = hyper[GAP_ADAM_BETA2], decay = hyper[GAP_ADAM_DECAY];
    adam_step a;
    a.shrink = decoupled ? (float)(1.0 - lr * decay) : 1.0f;
    a.decay = decoupled ? 0.0f : (float)decay;
    a.lerp = (float)(1.0 - beta1);
    a.beta2 = (float)beta2;
    a.rest2 = (float)(1.0 - beta2);
    a.step_size = (float)(lr / (1.0 - power(beta1, step)));
    a.root = (float)sqrt(1.0 - power(beta2, step));
    a.eps = (float)hyper[GAP_ADAM_EPS];
    return a;
}

/* torch's lerp: from the nearer end, so that a weight of 1 gives the gradient exactly. */
static inline float lerp(float from, float to, float t) {
    return t < 0.5f ? from + t * (to - from) : to - (to - from) * (1.0f - t);
}

static void update_plain(const adam_step *a, size_t n, float *w, const float *gradient, float *m, float *v) {
    const adam_step s = *a;
    for (size_t i = 0; i < n; i++) {
        float weight = w[i] * s.shrink;
        float g = gradient[i] + s.decay * weight;
        m[i] = lerp(m[i], g, s.lerp);
        v[i] = v[i] * s.beta2 + s.rest2 * (g * g);
        w[i] = weight - s.step_size * (m[i] / (sqrtf(v[i]) / s.root + s.eps));
    }
}

static void update_amsgrad(const adam_step *a, size_t n, float *w, const float *gradient, float *m, float *v, float *most) {
    const adam_step s = *a;
    for (size_t i = 0; i < n; i++) {
        float weight = w[i] * s.shrink;
        float g = gradient[i] + s.decay * weight;
        m[i] = lerp(m[i], g, s.lerp);
        v[i] = v[i] * s.beta2 + s.rest2 * (g * g);
        most[i] = v[i] > most[i] ? v[i] : most[i];
        w[i] = weight - s.step_size * (m[i] / (sqrtf(most[i]) / s.root + s.eps));
    }
}

void gap_adam_update(const double *hyper, bool decoupled, int64_t step, size_t n, float *weight, const float *gradient,
                     float *const *slot) {
    adam_step s = step_of(hyper, decoupled, step);
    if (hyper[GAP_ADAM_AMSGRAD] != 0) update_amsgrad(&s, n, weight, gradient, slot[0], slot[1], slot[2]);
    else update_plain(&s, n, weight, gradient, slot[0], slot[1]);
}

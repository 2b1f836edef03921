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

/* Worked out in double and rounded once, as torch does with Python's numbers. */
void gap_adam_update(const gap_optim_kernels *kernels, const double *hyper, bool decoupled, int64_t step, const gap_optim_range *r) {
    const double lr = hyper[GAP_ADAM_LR], beta1 = hyper[GAP_ADAM_BETA1], beta2 = hyper[GAP_ADAM_BETA2], decay = hyper[GAP_ADAM_DECAY];
    const gap_optim_adam c = {
        .shrink = decoupled ? (float)(1.0 - lr * decay) : 1.0f, .decay = decoupled ? 0.0f : (float)decay,
        .rest1 = (float)(1.0 - beta1), .beta2 = (float)beta2, .rest2 = (float)(1.0 - beta2),
        .step_size = (float)(lr / (1.0 - power(beta1, step))), .root = (float)sqrt(1.0 - power(beta2, step)),
        .eps = (float)hyper[GAP_ADAM_EPS], .amsgrad = hyper[GAP_ADAM_AMSGRAD] != 0,
    };
    kernels->adam(r, &c);
}

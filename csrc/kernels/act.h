/* act.h — activations, their gradients and softmax's exponentials, elementwise: any cut of a range gives the same bits. */
#ifndef GAP_KERNELS_ACT_H
#define GAP_KERNELS_ACT_H

#include <stddef.h>

#include "kernels/fuse.h"

typedef struct {
    /* y[i] = act(x[i]), i < n. y may be x. Zero goes to zero but for sigmoid and hardsigmoid (0.5). */
    void (*forward)(gap_act act, float arg, size_t n, const float *x, float *y);
    /* dx[i] = dy[i] * act'(i), or added to dx[i]. s: y where gap_act_from_output, else x. dx may be dy. */
    void (*backward)(gap_act act, float arg, size_t n, const float *s, const float *dy, float *dx, bool add);
    /* y[i] = exp(x[i] - from), i < n. y may be x. gap_expf's bits. */
    void (*exp_from)(size_t n, float from, const float *x, float *y);
} gap_act_kernels;

/* The gradient can be had from the output, so that the input need not be kept. */
static inline bool gap_act_from_output(gap_act act) {
    return act == GAP_ACT_RELU || act == GAP_ACT_RELU6 || act == GAP_ACT_LEAKY_RELU || act == GAP_ACT_TANH || act == GAP_ACT_SIGMOID;
}

#endif

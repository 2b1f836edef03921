/* fuse.h — what a compute kernel may do while it loads its input and stores its output.
 *
 * Every compute op takes both from the first day; fusion (graph/) fills them in, and the identity is the zero value.
 */
#ifndef GAP_KERNELS_FUSE_H
#define GAP_KERNELS_FUSE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    GAP_ACT_NONE = 0, GAP_ACT_RELU, GAP_ACT_RELU6, GAP_ACT_LEAKY_RELU, GAP_ACT_TANH, GAP_ACT_SIGMOID, GAP_ACT_SILU,
    GAP_ACT_HARDSWISH, GAP_ACT_HARDSIGMOID
} gap_act;

/* On load, in this order: x*scale[c]+shift[c] (one fma), + residual, act, * gate[n][c]. NULL: left out. Halo pixels are 0 after it. */
typedef struct {
    const float *scale, *shift;   /* (C padded to the block) */
    const float *residual;        /* same layout as the input */
    const float *gate;            /* (N, C padded) */
    gap_act act;
    float act_arg;                /* negative_slope of LeakyReLU */
} gap_prologue;

/* On store: + bias, then add to what is there (accumulate), then per-channel sums of the stored values into the chunk's partials. */
typedef struct {
    const float *bias;            /* (OC padded) or NULL */
    bool accumulate;              /* y += instead of y = */
    float *sum, *sumsq;           /* (OC padded) partial sums of this chunk, or NULL; shifted by `pivot` */
    const float *pivot;
} gap_epilogue;

#endif

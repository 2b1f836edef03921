/* norm.h — per-channel sums and affine maps of BatchNorm and GroupNorm, on one block: `pixels` vectors of 16 channels.
 *
 * Order of every sum: a piece is up to GAP_NORM_PIECE consecutive vectors; within a piece vector i goes to fp32 chain
 * i mod 2 (one fma or addition per vector, in rising order); chain 0 + chain 1 is one fp32 addition; pieces are added in
 * double in rising order to what s and q hold. Lanes are channels, so there is no sum across lanes.
 */
#ifndef GAP_KERNELS_NORM_H
#define GAP_KERNELS_NORM_H

#include <stdbool.h>
#include <stddef.h>

#define GAP_NORM_PIECE 256

typedef struct {
    /* s[l] += sum of d, q[l] += sum of d^2, with d = x - pivot. */
    void (*moments)(size_t pixels, const float *x, const float *pivot, double *s, double *q);
    /* s[l] += sum of dy, q[l] += sum of dy * (x - mean). */
    void (*moments_backward)(size_t pixels, const float *dy, const float *x, const float *mean, double *s, double *q);
    /* y = x * scale + shift, one fma. y may be x. */
    void (*affine)(size_t pixels, const float *x, const float *scale, const float *shift, float *y);
    /* dx = dy * a + ((x - mean) * b + c), two fmas, or that added to dx. dx may be dy. */
    void (*affine_backward)(size_t pixels, const float *dy, const float *x, const float *mean, const float *a, const float *b,
                            const float *c, float *dx, bool add);
} gap_norm_kernels;

#endif

/* fuse.h — what a compute kernel may do while it loads its input and after it stored its output.
 *
 * Every compute op takes both; fusion (graph/) fills them in, and the identity is the zero value. All pointers are those of
 * one plane: (h, w, 16) tensors of one image and channel block, and vectors (16) of that block's channels.
 */
#ifndef GAP_KERNELS_FUSE_H
#define GAP_KERNELS_FUSE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    GAP_ACT_NONE = 0, GAP_ACT_RELU, GAP_ACT_RELU6, GAP_ACT_LEAKY_RELU, GAP_ACT_TANH, GAP_ACT_SIGMOID, GAP_ACT_SILU,
    GAP_ACT_HARDSWISH, GAP_ACT_HARDSIGMOID
} gap_act;

/* What a stored value x means to its reader, in this order; NULL parts are left out, but z comes with scale, mean, b and c:
 *   u = fma(x, scale, shift)                                    BatchNorm's forward
 *   u = fma(x, scale, fma(z - mean, b, c))       where z        BatchNorm's backward: x is the gradient behind it
 *   u = u + residual, or u + fma(residual, residual_scale, residual_shift)
 *   v = act(u) * gate
 * Halo pixels are 0 after it. */
typedef struct {
    const float *scale, *shift;
    const float *z, *mean, *b, *c;                             /* z: a plane */
    const float *residual, *residual_scale, *residual_shift;   /* residual: a plane */
    const float *gate;
    gap_act act;
    float act_arg;                                             /* negative_slope of LeakyReLU */
} gap_prologue;

typedef enum { GAP_EPILOGUE_NONE = 0, GAP_EPILOGUE_SUMS, GAP_EPILOGUE_APPLY, GAP_EPILOGUE_MASK, GAP_EPILOGUE_GATE } gap_epilogue_kind;

/* What happens to stored values y while they are still in the cache:
 *   SUMS   of a piece of n pixels, with d = y - its first pixel and S the sum of d: n * (first - pivot) + S, the sum about the
 *          pivot (NULL: 0); and the sum of d^2 - S^2 / n, the squares about the piece's own mean. What is far from 0, or from
 *          the pivot, loses no digits so.
 *   APPLY  y = act(fma(y, scale, shift) + residual)
 *   MASK   y is the gradient behind act; y = y * act'(u), where act(u) is `out` when that is given (an act of
 *          gap_act_from_output), else u = fma(z, scale, shift)
 *          (scale NULL: u = z); then sums of y and of y * (z - mean), and, where z2, of y * (z2 - mean2)
 *   GATE   y is the gradient behind a gate per channel on `out`; sums (one kind) of y * out, then y = y * gate
 * Sums of a plane are cut into pieces of whole rows (gap_piece_rows, by the plane's shape alone): within a piece pixel p
 * goes to fp32 chain p mod 4, added as (0+1) + (2+3). Who reads them adds pieces in double, in order. */
typedef struct {
    gap_epilogue_kind kind;
    const float *pivot;
    const float *scale, *shift, *residual;
    gap_act act;
    float act_arg;
    const float *out, *z, *mean, *z2, *mean2;
    const float *gate;           /* of this image */
    float *sums, *sums2;         /* piece q: 16 sums at sums + q*sums_piece, the second kind sums_second behind; NULL: none */
    int64_t sums_piece, sums_second;
} gap_epilogue;

#endif

/* norm.h — BatchNorm as three ops in training, and what they hand each other.
 *
 *   moments  x -> sums            (n, pieces, 2, padded): per piece of a plane, the sum about the running mean, and of squares
 *                                 about the piece's own mean
 *   norm     sums -> table        rows of GAP_NORM_*: mean, 1/std, scale, shift; moves the running statistics
 *   affine   x, table -> y        y = act(x*scale + shift [+ residual])
 * and backward, through values whose gradients have shapes of their own:
 *   affine   g = dy * act'  ->  gradient of table: sums of g and g*(x - mean), laid out as sums are
 *   norm     -> dgamma, dbeta; gradient of sums: rows of GAP_COEF_*
 *   moments  dx += (x - mean)*b + c
 * so that dx = g*scale + ((x - mean)*b + c). Fusion hands `moments` to the convolution that makes x, which then reads its
 * own gradient that way on load: `lazy` ops leave g where dx would stand.
 * With M values per channel, S1 = sum g, S2 = sum g (x - mean):  b = -scale/std^2 S2/M,  c = -scale S1/M,
 * dgamma = S2/std, dbeta = S1. Padding channels hold zeros everywhere.
 */
#ifndef GAP_OPS_NORM_H
#define GAP_OPS_NORM_H

#include "ops/ops.h"
#include "ops/source.h"

enum { GAP_NORM_MEAN, GAP_NORM_INVSTD, GAP_NORM_SCALE, GAP_NORM_SHIFT, GAP_NORM_ROWS };
enum { GAP_COEF_MEAN, GAP_COEF_SCALE, GAP_COEF_B, GAP_COEF_C, GAP_COEF_ZERO, GAP_COEF_ROWS };

/* Places of a norm's weights in op->weight. */
enum { GAP_NORM_GAMMA, GAP_NORM_BETA, GAP_NORM_RUNNING_MEAN, GAP_NORM_RUNNING_VAR, GAP_NORM_WEIGHTS };

/* Inputs of affine; residual and its table may be absent. */
enum { GAP_AFFINE_X, GAP_AFFINE_TABLE, GAP_AFFINE_RESIDUAL, GAP_AFFINE_RESIDUAL_TABLE };

typedef struct {
    gap_act act;
    float act_arg;
    bool lazy, residual_lazy; /* the producer of x (of the residual) reads its gradient through GAP_COEF rows */
    bool masked;              /* dy comes as g, and the tables' gradients are made: by the convolution that wrote it last (ops.h, join) */
} gap_affine_attr;

/* Weight k of an op, at channel c; `absent` where the layer has none. */
static inline float gap_norm_weight(const gap_op *op, const gap_op_ctx *ctx, int k, int64_t c, float absent) {
    return op->weight[k] >= 0 ? ctx->weight[k][c] : absent;
}

/* Fills channel c of a table. scale = gamma / sqrt(var + eps) and shift = beta - mean * scale: double, rounded once each; the
 * shift is made from the rounded scale, so that x = mean gives beta. */
void gap_norm_table_set(float *table, int64_t padded, int64_t c, double mean, double var, double eps, float gamma, float beta);

/* The table of fixed statistics: gamma, beta, running mean and variance at op->weight[first + GAP_NORM_*]. table: (rows, padded). */
void gap_norm_table_fixed(const gap_op *op, const gap_op_ctx *ctx, int first, int64_t channels, int64_t padded, double eps, float *table);

/* The sums that a convolution makes in place of `moments` (n, pieces, 2, padded), and the shape of their gradient. */
gap_desc gap_norm_sums_desc(const gap_desc *x);
gap_desc gap_norm_coef_desc(const gap_desc *x);

#endif

/* norm.h — what norm_stats.c and affine.c agree on.
 *
 * A normalisation's table: fp32 rows (GAP_NORM_ROWS, channels padded). In training it is the per-batch value between the
 * two ops; where statistics are fixed it is affine's derived memory. Padding channels hold zeros: y = 0*0 + 0 there.
 */
#ifndef GAP_OPS_NORM_H
#define GAP_OPS_NORM_H

#include "ops/ops.h"
#include "ops/plane.h"

enum { GAP_NORM_MEAN, GAP_NORM_INVSTD, GAP_NORM_SCALE, GAP_NORM_SHIFT, GAP_NORM_ROWS };

/* Places of a norm's weights in op->weight. */
enum { GAP_NORM_GAMMA, GAP_NORM_BETA, GAP_NORM_RUNNING_MEAN, GAP_NORM_RUNNING_VAR, GAP_NORM_WEIGHTS };

typedef struct {
    gap_norm_attr norm;
    int chunks; /* private: ranges of images that the sums are cut into */
} gap_norm_state;

extern const gap_op_def gap_op_norm_stats;    /* in: x; out: table */
extern const gap_op_def gap_op_affine;        /* in: x, table; weights gamma, beta */
extern const gap_op_def gap_op_affine_fixed;  /* in: x; weights gamma, beta, running_mean, running_var */

static inline float gap_norm_weight(const gap_op *op, const gap_op_ctx *ctx, int which, int64_t c, float absent) {
    return op->weight[which] >= 0 ? ctx->weight[which][c] : absent;
}

/* Fills channel c of a table. scale = gamma / sqrt(var + eps) and shift = beta - mean * scale: double, rounded once each; the
 * shift is made from the rounded scale, so that x = mean gives beta. */
void gap_norm_table_set(float *table, int64_t padded, int64_t c, double mean, double var, double eps, float gamma, float beta);

#endif

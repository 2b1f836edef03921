/* ops.h — the vocabulary that layers lower to: one emit function per op file.
 *
 * Common arguments: `list`, the layer's name and fixed id, value numbers in and out, entries of the store (-1: absent).
 * Shapes are those of one sample. Every function gives GAP_ERR_SHAPE with a message that says what was expected.
 */
#ifndef GAP_OPS_OPS_H
#define GAP_OPS_OPS_H

#include "kernels/fuse.h"
#include "kernels/stream.h"
#include "ops/op.h"

#define GAP_PIXEL_CHANNELS GAP_BYTE_LANES /* images of more channels fill a block well enough */

/* Who emits: put before every message and kept in the op. */
typedef struct { const char *name; int id; } gap_origin;

/* ops/input.c: value 0 (GAP_NHWC uint8, or GAP_PLAIN (C,H,W) fp32) -> fp32 image: (x - mean[c]) * (1 / std[c]) for fp32 input
 * x in its own scale; uint8 is scaled by 1/255 first: one fma x*a[c] + b[c], a = 1/(255*std), b = -mean/std, computed in
 * double and rounded once. n_mean 0: identity (uint8: x/255). A vector input (ndim 1, fp32) passes as it is. */
typedef struct { int n; float a[GAP_MAX_DIM * 4], b[GAP_MAX_DIM * 4]; } gap_input_attr;
GAP_MUST_USE gap_status gap_emit_input(gap_oplist *list, int in, const gap_input_attr *attr, int *out);
void gap_input_of_byte(const gap_input_attr *attr, int64_t channel, float *scale, float *shift); /* the fma of a channel's bytes */

/* ops/conv.c: (C,H,W) -> (OC,OH,OW). weight: OIHW (OC, C/groups, KH, KW); bias (OC) or -1. Depthwise and grouped included. */
typedef struct {
    bool apply;                   /* in[1] is a table (norm.h): the input is act(in[0]*scale + shift) */
    gap_act act;                  /* of apply, and of join */
    float act_arg;
    bool sums;                    /* out[1]: sums of out[0] about weight[GAP_CONV_NORM + running mean]; its gradient: coefficients,
                                   * through which out[0]'s own gradient is read */
    int gate;                     /* > 0: in[gate] (C, 1, 1) scales the input's channels */
    int join;                     /* > 0: in[0] is what an affine made of in[join..]: x, its table[, residual, its table] (norm.h). Its gradient
                                   * is complete with this op's, which masks it by act and makes the tables' */
    bool join_out;                /* the mask from in[0]; else from x*scale + shift */
    bool fixed;                   /* evaluation: y = out_act(conv*scale + shift [+ in[residual]]), statistics at weight[GAP_CONV_NORM] */
    int residual;                 /* > 0: there is one */
    gap_act out_act;
    float out_act_arg;
    double eps;
    bool bytes;                   /* in[0] is the caller's uint8 (H, W, C): the input is fma(in[0], byte_scale, byte_shift) */
    float byte_scale[GAP_PIXEL_CHANNELS], byte_shift[GAP_PIXEL_CHANNELS];
} gap_conv_fuse;                  /* what fusion put into a convolution; zero: nothing */
#define GAP_CONV_NORM 2           /* weights: kernel, bias, then BatchNorm's four */
typedef struct {
    int64_t out_channels, kernel[2], stride[2], padding[2], dilation[2], groups;
    gap_conv_fuse fuse;
    int plan[16]; /* private: choices made by prepare */
} gap_conv_attr;
GAP_MUST_USE gap_status gap_emit_conv(gap_oplist *list, gap_origin who, int in, const gap_conv_attr *attr, int weight, int bias, int *out);

/* ops/linear.c: (F) -> (OF). weight (OF, F), bias (OF) or -1. */
GAP_MUST_USE gap_status gap_emit_linear(gap_oplist *list, gap_origin who, int in, int64_t out_features, int weight, int bias, int *out);

/* BatchNorm (norm.h): in training `moments`, `norm` and `affine` (one value per channel in the batch is GAP_ERR_SHAPE, when the
 * plan is made if capacity*H*W is 1; the biased variance normalises, the unbiased one goes to the running value, moved by
 * `momentum`); in evaluation, or where `frozen` (evaluation statistics; gamma and beta may still learn), `affine_fixed`. */
typedef struct { double momentum, eps; bool frozen; } gap_norm_attr;
GAP_MUST_USE gap_status gap_emit_batch_norm(gap_oplist *list, gap_origin who, int in, const gap_norm_attr *attr, int gamma,
                                            int beta, int running_mean, int running_var, int *out);
/* ops/group_norm.c: statistics per sample and group; gamma, beta (C) or -1. */
GAP_MUST_USE gap_status gap_emit_group_norm(gap_oplist *list, gap_origin who, int in, int64_t groups, double eps, int gamma, int beta, int *out);

/* ops/act.c: elementwise on any shape. */
GAP_MUST_USE gap_status gap_emit_act(gap_oplist *list, gap_origin who, int in, gap_act act, float arg, int *out);
/* ops/add.c: a + b of equal shapes. */
GAP_MUST_USE gap_status gap_emit_add(gap_oplist *list, gap_origin who, int a, int b, int *out);
/* ops/mul.c: a * b of equal shapes, or b = (C,1,1): a gate per channel. */
GAP_MUST_USE gap_status gap_emit_mul(gap_oplist *list, gap_origin who, int a, int b, int *out);
/* ops/concat.c: along the channels (images), or the only axis (vectors). 2..GAP_OP_MAX_IN inputs. */
GAP_MUST_USE gap_status gap_emit_concat(gap_oplist *list, gap_origin who, const int *in, int n_in, int *out);

typedef struct { int64_t kernel[2], stride[2], padding[2], dilation[2]; bool ceil_mode, count_include_pad; } gap_pool_attr;
/* ops/max_pool.c, ops/avg_pool.c: torch's MaxPool2d (ties: first in row order; NaN wins) and AvgPool2d. */
GAP_MUST_USE gap_status gap_emit_max_pool(gap_oplist *list, gap_origin who, int in, const gap_pool_attr *attr, int *out);
GAP_MUST_USE gap_status gap_emit_avg_pool(gap_oplist *list, gap_origin who, int in, const gap_pool_attr *attr, int *out);
/* ops/global_avg_pool.c: (C,H,W) -> (C,1,1). */
GAP_MUST_USE gap_status gap_emit_global_avg_pool(gap_oplist *list, gap_origin who, int in, int *out);
/* ops/flatten.c: (C,H,W) -> plain (C*H*W) in torch's order; a vector passes. Also the copy that makes any output plain:
 * `to_plain` keeps the dims (C,H,W) with layout GAP_PLAIN. */
GAP_MUST_USE gap_status gap_emit_flatten(gap_oplist *list, gap_origin who, int in, int *out);
GAP_MUST_USE gap_status gap_emit_to_plain(gap_oplist *list, gap_origin who, int in, int *out);
/* ops/dropout.c: inverted dropout; draws: counter (epoch, sample id, layer id, element/4), logical element order (C,H,W). The
 * caller emits it only in training with p > 0. */
GAP_MUST_USE gap_status gap_emit_dropout(gap_oplist *list, gap_origin who, int in, double p, int *out);

/* The ops that fusion's patterns name (graph/fuse.c). */
extern const gap_op_def gap_op_conv, gap_op_moments, gap_op_norm, gap_op_affine, gap_op_affine_fixed, gap_op_add, gap_op_input;
bool gap_conv_reads_pixels(const gap_op *op); /* its input may be (H, W, C): one group, nothing fused in front */
bool gap_op_is_gate(const gap_op *op); /* a mul whose in[1] is (C, 1, 1) and in[0] is not */
bool gap_op_is_act(const gap_op *op, gap_act *act, float *arg);
bool gap_op_is_max_pool(const gap_op *op);
bool gap_op_is_concat(const gap_op *op);
bool gap_concat_make_slice(gap_op *concat, int k);         /* its input k is to stand in its output; false: not in whole blocks */
int64_t gap_concat_slice(const gap_op *op, int k);         /* floats into a sample at which input k stands; -1: it does not, or no concat */

#endif

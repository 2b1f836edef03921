/* conv_depthwise.h — depthwise convolution: groups == in channels == out channels, blocked images. Used by ops/conv.c.
 *
 * Planes (image, block of 16 channels) are independent. Each is walked once, some rows at a time: what they need is loaded
 * through the prologue into a ring of padded rows, they are computed, and when a piece (gap_piece_rows) is complete the
 * epilogue is applied while that is in the cache. Nothing but inputs and outputs travels through memory. Forward with stride 2
 * needs no ring where the kernels can read the input straight on (kernels/depthwise.h, sweep), and backward of the usual shapes
 * between BatchNorm and an activation is one call a plane (sweep_back): the same chains, the same bits.
 *
 * Order of summation (a function of shape only): an output is one chain from bias or 0 over (kh, kw); an input gradient one
 * chain from 0 over the taps that reach it, (kh, kw) falling; where a sink adds, the chain begins with what is there.
 * A weight gradient: for each step (in_step rows of the *input* plane) one chain per tap over the input pixels in row order, steps
 * and images added in order within a chunk of images (gap_reduce_chunks), chunks added in order. Zeros of padding are terms of
 * these chains.
 */
#ifndef GAP_OPS_CONV_DEPTHWISE_H
#define GAP_OPS_CONV_DEPTHWISE_H

#include "ops/ops.h"
#include "ops/source.h"

/* Rows of pixels as they stand in the scratch: row q of the plane in place q mod rows, its column c at c - first. */
typedef struct {
    int64_t rows, cols, first;        /* cols: with the padding, column `first` being the first */
    int64_t from, inside;             /* first column that the plane has, and how many: only these are loaded */
} gap_depthwise_ring;

/* A phase of an axis in backward: the input places that are `phase` modulo the stride, and the taps that reach them, from the
 * last one (`kernel`) down by kernel_step. Place phase + k*stride meets output places first + k, first + k + step, …: n of them. */
typedef struct { int64_t n, kernel, kernel_step, first, step; } gap_depthwise_phase;
#define GAP_DEPTHWISE_PHASES 4        /* of an axis that a plan keeps; larger strides find them anew */

typedef struct {
    int64_t c, blocks, in_h, in_w, out_h, out_w, taps;
    int64_t kernel[2], stride[2], pad[2], dilation[2];
    int64_t in_piece, out_piece;      /* rows of a piece of sums */
    int64_t in_step, out_step;        /* rows that are computed at a time (in_step: what the first cache holds) */
    int64_t groups;                   /* backward: units across the blocks of a chunk */
    int64_t bands;                    /* forward: units of a plane, whole pieces each */
    bool sweeps;                      /* forward: of a shape that kernels may read straight on, without the ring */
    int chunks;                       /* of images, for the weight gradient */
    gap_depthwise_ring in, dout;      /* forward's input, backward's output gradient */
    gap_depthwise_phase phase[2][GAP_DEPTHWISE_PHASES];
} gap_depthwise;

bool gap_depthwise_fits(const gap_op *op);
/* From shapes alone; the capacity decides how the work is cut and, as everywhere, the chunks of the weight gradient. */
void gap_depthwise_plan(gap_depthwise *d, const gap_op *op, int64_t capacity);
size_t gap_depthwise_derived_bytes(const gap_depthwise *d);
/* For `slots` chunks at work at once (ops/scratch.h). */
size_t gap_depthwise_workspace_bytes(const gap_depthwise *d, bool training, int slots);
/* Packs weight (C, 1, KH, KW) and bias (C; NULL: none) for both directions. */
GAP_MUST_USE gap_status gap_depthwise_derive(const gap_depthwise *d, const float *weight, const float *bias, void *derived);
GAP_MUST_USE gap_status gap_depthwise_run(const gap_depthwise *d, const gap_op_ctx *ctx, const void *derived, const gap_source *in,
                                          const gap_sink *out, bool has_bias, int slots);
/* One sweep: input gradient into din (NULL: not wanted), weight gradient into dw (C, 1, KH, KW; NULL: frozen), which is
 * overwritten or, with dw_add, added to. x is read only where dw is wanted. din must not overlap x or dy. */
GAP_MUST_USE gap_status gap_depthwise_back(const gap_depthwise *d, const gap_op_ctx *ctx, const void *derived, const gap_source *x,
                                           const gap_source *dy, const gap_sink *din, float *dw, bool dw_add, int slots);

#endif

/* conv_plan.h — the direct convolution (conv_pass.c, conv_pack.c, conv_run.c, conv_grad.c): passes over padded planes.
 *
 * Forward and the gradient of the input are the same thing, a *pass*: output pixel (i, j) of a phase is a sum over taps of
 * input pixel (i*in_step + offset). Forward has one phase and in_step = stride. Backward has stride*stride phases, one for
 * each place of an output pixel within a stride, with in_step 1 and only the taps that reach it: no work on inserted zeros.
 * Weights are packed per pass, [out block][phase][in block][tap][in channel][16], zero where channels are not connected, so that
 * groups need no code of their own beyond the range of input blocks that an output block reads. Groups of 4 or 8 channels, of
 * which a block holds several, would multiply mostly zeros: under a kernel 3 wide they have kernels of their own, and weights
 * [out block][phase][tap][channel of the group][16], taps of a row by growing offset.
 *
 * Order of summation (a function of shape only): forward and input gradient: chains over (input block, kh, kw, channel), each
 * of as many input blocks as make at most about CONV_CHAIN terms, added in order; over (kh, kw, channel) for NHWC input. In
 * groups of 4 or 8 (`group`): one chain over (kh, channel of the group, tap of that row by growing offset).
 * Weight gradient: a chain over the pixels of a segment (about CONV_SEGMENT pixels: rows of an image, or whole small
 * images), segments added in order within a chunk of images, chunks added in order.
 */
#ifndef GAP_OPS_CONV_PLAN_H
#define GAP_OPS_CONV_PLAN_H

#include "ops/ops.h"
#include "ops/scratch.h"
#include "ops/source.h"

#define CONV_SEGMENT 128            /* pixels of a chain of the weight gradient: what stays in the first cache */
#define CONV_CHAIN 144              /* terms of a chain: short enough to be accurate, long enough that closing it is cheap */
#define CONV_SCRATCH ((size_t)384 << 10) /* padded input of one piece of work: what stays in the second */
#define CONV_UNITS 32               /* pieces of work to aim at, for any number of threads */

/* How one tap of the kernel lies in a packed weight array: base + in_block*block + channel*16 + lane. */
typedef struct { int64_t base, block; } conv_place;

typedef struct {
    bool backward;
    /* shape */
    int64_t in_c, in_h, in_w, in_blocks, lanes;   /* lanes: floats of an input pixel: 16, or C for NHWC */
    int64_t out_c, out_h, out_w, out_blocks;
    int64_t kernel[2], pad[2], dilation[2], stride[2], groups;
    int64_t in_step[2], out_step[2];              /* pixels between neighbours of a phase */
    int64_t count[2];                             /* rows and columns of phase 0, the fullest */
    int64_t first[2], last[2];                    /* smallest and largest tap offset */
    /* packed weights, in floats */
    int64_t taps;                                 /* kh*kw */
    int64_t entries;                              /* entries of the offset list: taps, or kh where a row of NHWC is one run */
    int64_t group;                                /* 4, 8: of groups of so many channels only what connects is computed; else 0 */
    int64_t run;                                  /* channels of an entry: 16, `group`, kw*C, or C */
    int64_t range;                                /* input blocks that an output block reads */
    int64_t w_oc;                                 /* floats of one output block */
    /* work */
    bool direct;                                  /* read the input where it lies */
    bool flat;                                    /* a 1x1 kernel at stride 1: the plane is one row (in_h, out_h and count[0] are 1) */
    int64_t piece;                                /* pixels of a piece of the output's plane (source.h): bands are whole pieces */
    int64_t cols;                                 /* columns of the padded plane (direct: of the input) */
    int64_t origin[2];                            /* input row and column of its first pixel, relative to the band */
    int64_t images, band_rows, band_cols;         /* of one unit */
    int64_t n_row_bands, n_col_bands, n_oc_parts;
    size_t scratch_bytes;                         /* of one unit */
} conv_pass;

/* Sections of op->derived, in bytes from its start. 0 bytes where a pass does not exist. */
typedef struct { size_t off, place, w, bias, total; } conv_derived;

/* ---- conv_pass.c ---- */
/* Input blocks of a chain, for so many terms in a block. */
int64_t gap_conv_chain(int64_t terms);
/* Fills the pass of this op; capacity only decides how work is cut, never a sum. packed: the input is not read where it
 * lies, for it goes through a prologue. */
void gap_conv_pass(conv_pass *p, const gap_op *op, bool backward, int64_t capacity, bool packed);
/* First input block that output block `o` reads. */
int64_t gap_conv_lo(const conv_pass *p, int64_t o);
/* Offset along an axis of kernel index k in `phase`; false where it does not reach that phase. */
bool gap_conv_tap(const conv_pass *p, int axis, int64_t phase, int64_t k, int64_t *offset);
/* Where the sections of a pass lie; `start`: bytes already used. */
conv_derived gap_conv_sections(const conv_pass *p, size_t start);

/* ---- conv_pack.c ---- */
/* Writes a pass's sections from the masters; bias NULL: zeros. */
gap_status gap_conv_derive(const conv_pass *p, const conv_derived *d, unsigned char *derived, const float *weight,
                           const float *bias);
/* Writes `off` and `place` alone, which stand in front of `w`: what the weight gradient reads. */
void gap_conv_derive_lists(const conv_pass *p, const conv_derived *d, unsigned char *derived);
/* dw (OIHW) = or += the sum of n_parts packed arrays of `part` floats (forward's order), in order; they are overwritten. */
gap_status gap_conv_unpack(const conv_pass *p, const conv_place *place, float *dw, bool add, float *parts, int n_parts,
                           int64_t part);

/* ---- conv_run.c ---- */
gap_status gap_conv_run(const conv_pass *p, const gap_op_ctx *ctx, const conv_derived *d, const gap_source *in, const gap_sink *out,
                        bool has_bias, int slots);
/* Loads image n, block b of a source: rows [row0, row0 + rows) of `cols` columns from col0 on, into dst. */
void gap_conv_load(const gap_stream_kernels *k, const gap_source *s, int64_t h, int64_t w, int64_t lanes, int64_t n, int64_t b,
                   int64_t row0, int64_t rows, int64_t col0, int64_t cols, float *dst);
/* A picture's values from `at` on, to be fetched: image i, or row, begins `step` values behind the one before. */
gap_conv_ahead gap_conv_picture_ahead(const gap_source *x, int64_t at, int64_t step);

/* ---- conv_grad.c ---- */
/* Workspace of the weight and bias gradients. */
size_t gap_conv_grad_bytes(const conv_pass *forward, int64_t capacity, bool dy_packed, int slots);
gap_status gap_conv_grad(const conv_pass *forward, const gap_op_ctx *ctx, const conv_derived *d, const gap_source *x, const gap_source *dy, int slots);
int gap_conv_grad_chunks(const conv_pass *forward, int64_t capacity);

/* Bias gradient alone; in gap_conv_bias_bytes of workspace. */
size_t gap_conv_bias_bytes(const conv_pass *forward, int64_t capacity, int slots);
gap_status gap_conv_bias(const conv_pass *forward, const gap_op_ctx *ctx, const gap_source *dy, int slots);

/* ---- conv_blas.c ---- */
size_t gap_conv_blas_bytes(const conv_pass *forward, int64_t capacity, bool training, int slots);
gap_status gap_conv_blas_forward(const conv_pass *forward, const gap_op_ctx *ctx, bool has_bias, int slots);
gap_status gap_conv_blas_backward(const conv_pass *forward, const gap_op_ctx *ctx, int slots);
/* Fills a pass that was not cut into units nor flattened: shapes only. */
void gap_conv_shape(conv_pass *p, const gap_op *op);

#endif

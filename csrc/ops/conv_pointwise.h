/* conv_pointwise.h — 1x1 convolutions without padding and groups, any stride, blocked images: products of matrices. Used by
 * ops/conv.c.
 *
 * With a stride the input's pixels that count are gathered while they are loaded, so that all three passes run over flat rows
 * of pixels of the output's plane; the input gradient is scattered among zeros.
 * Backward is one sweep where that pays: a unit loads a piece of the output's gradient once and gives both the input's gradient
 * (finished while it is in the cache) and its share of the weights'.
 *
 * Order of summation (a function of shape only; capacity enters the chunks): an output, or an input gradient, is a sum of
 * chains of POINTWISE_CHAIN blocks of channels, added in order to bias, 0 or what is there; by Strassen's method groups of
 * blocks are added so, in steps as conv_strassen.h has them, over spans of the goal's pieces. A weight gradient: a chain over the
 * output pixels of a segment, segments added in order within a chunk of images, chunks added in order. Segments: whole images
 * as long as they make at most POINTWISE_SEGMENT pixels; else equal parts, about as long, of a piece of the input's plane
 * (source.h); by Strassen's method the spans of such pieces, halved, and its sums are combined behind the last chunk. Chunks: as gap_reduce_chunks, but none shorter than a segment.
 */
#ifndef GAP_OPS_CONV_POINTWISE_H
#define GAP_OPS_CONV_POINTWISE_H

#include "kernels/conv.h"
#include "ops/ops.h"
#include "ops/source.h"

#define POINTWISE_CHAIN 9     /* blocks: 144 terms, short enough to be accurate, long enough that closing a chain is cheap */
#define POINTWISE_SEGMENT 128 /* pixels: what stays in the first cache */

typedef struct {
    int64_t in_c, out_c, in_blocks, out_blocks;
    int64_t in_h, in_w, out_h, out_w, stride[2];
    int64_t in_piece, out_piece;  /* rows */
    int64_t images;               /* of a segment of whole images */
    int64_t segment;              /* pixels of an image's part of a segment */
    int64_t tile, group;          /* of the output's gradient in scratch: pixels of an image, blocks */
    int64_t wide;                 /* blocks of a product that share one reading of its input */
    bool fast_ahead, fast_back, fast_grad; /* by Strassen's method: forward, and the gradients of input and weights */
    int chunks;
} gap_pointwise;

bool gap_pointwise_fits(const gap_op *op);
/* From shapes alone; the capacity decides the chunks of the weight gradient and how work is cut. strassen: allowed. */
void gap_pointwise_plan(gap_pointwise *p, const gap_op *op, int64_t capacity, bool strassen);
size_t gap_pointwise_derived_bytes(const gap_pointwise *p);
size_t gap_pointwise_derived_back_bytes(const gap_pointwise *p);
/* For `slots` chunks at work at once (ops/scratch.h). */
size_t gap_pointwise_workspace_bytes(const gap_pointwise *p, bool training, int slots);
/* Packs weight (OC, C, 1, 1) and bias (OC; NULL: zeros) for forward; weight for the input gradient. */
GAP_MUST_USE gap_status gap_pointwise_derive(const gap_pointwise *p, const float *weight, const float *bias, void *derived);
GAP_MUST_USE gap_status gap_pointwise_derive_back(const gap_pointwise *p, const float *weight, void *derived_back);
GAP_MUST_USE gap_status gap_pointwise_run(const gap_pointwise *p, const gap_op_ctx *ctx, const void *derived, const gap_source *in,
                                          const gap_sink *out, bool has_bias, int slots);
/* Input gradient into dx (NULL: not wanted), weight gradient into dw (OC, C, 1, 1; NULL: frozen), which is overwritten or, with
 * dw_add, added to. x is read only where dw is wanted. dx must not overlap x or dy. */
GAP_MUST_USE gap_status gap_pointwise_back(const gap_pointwise *p, const gap_op_ctx *ctx, const void *derived_back, const gap_source *x,
                                           const gap_source *dy, const gap_sink *dx, float *dw, bool dw_add, int slots);

/* ---- between conv_pointwise.c and conv_pointwise_grad.c ---- */

/* A tensor seen from the output's plane: its pixel (i, j) is the tensor's (i*stride[0], j*stride[1]). */
typedef struct {
    const gap_source *s;
    int64_t w, grid_w, stride[2];     /* columns of the tensor's plane, and of the output's */
} gap_pointwise_side;

/* Pixels as kernels read them: pixel k of image i, block b at `at + i*image + b*block + k*16`. */
typedef struct { const float *at; int64_t image, block; } gap_pointwise_view;

typedef struct { int64_t n0, n1, b0, b1, p0, p1; } gap_pointwise_box; /* images, blocks, pixels of the output's plane */

gap_pointwise_side gap_pointwise_input(const gap_pointwise *p, const gap_source *x);
gap_pointwise_side gap_pointwise_output(const gap_pointwise *p, const gap_source *dy);
bool gap_pointwise_in_place(const gap_pointwise_side *side);
/* Floats of scratch for pixels*blocks vectors of a side. */
int64_t gap_pointwise_scratch(int64_t w, int64_t vectors);
/* What the box means, where it lies or in the scratch. */
gap_pointwise_view gap_pointwise_load(const gap_stream_kernels *k, const gap_pointwise_side *side, const gap_pointwise_box *box, float *scratch);

/* The box of a side, to be fetched before it is loaded; strided, or of no pixels: nothing. */
gap_conv_ahead gap_pointwise_ahead(const gap_pointwise_side *side, const gap_pointwise_box *box);

/* Where a product goes: pixel (i, j) of the output's plane is the sink's pixel (i*stride[0], j*stride[1]). */
typedef struct {
    const gap_sink *s;
    int64_t h, w, grid_h, grid_w, stride[2], piece; /* the sink's plane; the output's; rows of the sink's pieces */
    bool half;                    /* the last block has 8 channels at most */
    bool fast;                    /* four blocks at once by Strassen's method, blocks that are left over by plain chains */
    int64_t span;                 /* pixels that go so at once; else a piece's */
} gap_pointwise_goal;

gap_pointwise_goal gap_pointwise_forward(const gap_pointwise *p, const gap_sink *out);
gap_pointwise_goal gap_pointwise_backward(const gap_pointwise *p, const gap_sink *dx);
/* Pieces of the goal's plane, and the pixels [*p0, *p1) of the output's plane that go to one of them. */
int64_t gap_pointwise_bands(const gap_pointwise_goal *g);
void gap_pointwise_band(const gap_pointwise_goal *g, int64_t band, int64_t *p0, int64_t *p1);

/* A product: images, blocks and pixels of `box` of the goal, from `blocks` blocks of `a`, the first of which is `from` of all
 * in_blocks. w: all packed weights; last: channels of the last block of a. first, final: the box's first and last contribution, around which the
 * goal's other pixels are cleared (before the band's first pixel) and its pieces are finished (behind the band's last one). */
typedef struct {
    gap_pointwise_view a;
    int64_t from, blocks, in_blocks, last, band;
    const float *w, *bias;        /* bias: of the goal's first block; NULL: none */
    gap_conv_ahead ahead;
    bool first, final;
    float *sums;                  /* scratch where they are already (gap_pointwise_sums), of a goal that is fast */
} gap_pointwise_product;
/* Goal blocks that one product takes from block b on: 4 where it goes by Strassen's method, else `wide`, or what is left. */
int64_t gap_pointwise_step(const gap_pointwise_goal *g, int64_t b, int64_t end, int64_t wide);
/* Part k of `parts` of the goal's blocks, cut where such steps begin. */
int64_t gap_pointwise_cut(const gap_pointwise_goal *g, int64_t k, int64_t parts);
/* Input blocks that go together into a fast goal; and floats of scratch for their sums. */
int64_t gap_pointwise_sums_floats(const gap_pointwise_goal *g, int64_t blocks, int64_t images, int64_t pixels);
void gap_pointwise_sums(const gap_kernels *k, const gap_pointwise_goal *g, const gap_pointwise_box *box, const gap_pointwise_product *m);
void gap_pointwise_multiply(const gap_kernels *k, const gap_pointwise_goal *g, const gap_pointwise_box *box, const gap_pointwise_product *m);

/* One product over everything: the forward pass, or the input gradient alone. */
GAP_MUST_USE gap_status gap_pointwise_all(const gap_op_ctx *ctx, const gap_pointwise_side *in, const gap_pointwise_goal *goal, int64_t in_c,
                                          const float *w, const float *bias, int slots);
size_t gap_pointwise_grad_bytes(const gap_pointwise *p, int slots);

#endif

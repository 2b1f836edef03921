/* depthwise.h — depthwise convolution on one block of 16 channels: lanes are channels, rows are found by pointer.
 *
 * A caller keeps padded rows of 16-channel pixels somewhere in the cache and hands over a list of pointers to them, so that
 * rows can stand in a ring and all rows of padding can be one row of zeros. Strides and offsets are in floats.
 * Order, whatever the tiles and the instruction set: an output is one chain of fused multiply-adds over its taps in the
 * order of (i, j); a weight gradient is one chain over (row, pixel) in order, begun at 0 and then added to what stands.
 * No function allocates, fails or starts threads. Pointers need 4-byte alignment.
 */
#ifndef GAP_KERNELS_DEPTHWISE_H
#define GAP_KERNELS_DEPTHWISE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/fuse.h"

/* The taps of a pass: output pixel (k, p) meets, for i < taps_h, j < taps_w,
 *   tap(k, p, i, j) = row[k*row_step + i*row_tap][first + p*px + j*col_tap + lane]. */
typedef struct {
    const float *const *row;
    int64_t row_step, row_tap, first, px, col_tap;
    int taps_h, taps_w;
} gap_depthwise_taps;

/* What the caller touches next: for its pixel number i (over all rows) a kernel asks for lines [i*per_pixel, (i+1)*per_pixel)
 * of 16 floats of each stream, so that memory works while it computes. */
#define GAP_DEPTHWISE_STREAMS 6
typedef struct {
    const float *at[GAP_DEPTHWISE_STREAMS];
    int64_t per_pixel[GAP_DEPTHWISE_STREAMS];
    int n;
} gap_depthwise_ahead;

/* y[k*y_row + p*y_px + lane] = start + chain over (i, j) of tap(k, p, i, j) * w[(i*taps_w + j)*16 + lane]; the chain begins
 * with the start: y where `keep`, else the bias, else 0 (bias NULL). taps_h or taps_w may be 0. */
typedef struct {
    gap_depthwise_taps taps;
    gap_depthwise_ahead ahead;
    const float *w, *bias;
    float *y;
    int64_t y_row, y_px, rows, pixels;
    bool keep;
} gap_depthwise_rows;

/* How rows are finished while they stand in registers, instead of by a pass over them. The rows of a piece come in order. */
typedef struct {
    const gap_epilogue *epi;      /* NONE, SUMS (of this piece) or APPLY */
    float *state;                 /* (9, 16), 64-byte aligned: SUMS between the calls of a piece */
    int64_t pixel, piece;         /* the first pixel of this call within the piece, and how many that has */
    bool stream;                  /* y is more than caches hold: write past them */
} gap_depthwise_finish;

/* Forward of a plane with stride 2, a square kernel of 3 or 5 taps, padding kernel/2 and no dilation: output rows [row, row + rows)
 * as `rows` and `rows_finished` make them, of x read through its prologue, each row once and in order. The calls of a unit come in
 * order, the first with `begins`; what output rows have in common stays in `work` between them. */
typedef struct {
    const float *x, *w, *bias;    /* (in_h, in_w, 16), (taps, 16), (16) or NULL */
    const gap_prologue *pro;
    float *y;                     /* (out_h, out_w, 16), whatever `row` is */
    int64_t in_h, in_w, out_w, row, rows;
    int kernel;
    bool begins;
    float *work;                  /* gap_depthwise_sweep_floats */
} gap_depthwise_sweep;

#define GAP_DEPTHWISE_SWEEP_ROWS 3  /* output rows at work, at most: 5 taps, two rows apart */
#define GAP_DEPTHWISE_SWEEP_DONE 28 /* pixels, about, that are finished at a time */
/* A row of zeros, the rows of outputs at work, and those that are complete. */
static inline int64_t gap_depthwise_sweep_floats(int64_t in_w, int64_t out_w) {
    return (in_w + GAP_DEPTHWISE_SWEEP_ROWS * out_w + (out_w < GAP_DEPTHWISE_SWEEP_DONE ? GAP_DEPTHWISE_SWEEP_DONE : out_w)) * 16;
}

/* Both gradients of a phase of input pixels in one reading; taps are those of the output's gradient d, one at least; px is 16:
 *   dx[k*x_row + p*x_px + lane] = start + chain as above (keep, else 0)                       dx NULL: not wanted
 *   dw[(i*taps_w + j)*16 + lane] += chain over (k, p) of x[k*x_row + p*x_px + lane] * tap(k, p, i, j) */
typedef struct {
    gap_depthwise_taps taps;
    gap_depthwise_ahead ahead;
    const float *w, *x;
    float *dx, *dw;
    int64_t x_row, x_px, rows, pixels;
    bool keep;
} gap_depthwise_grad;

/* Both gradients of a plane with everything around them, for a square kernel with padding kernel/2 and no dilation: d is dy read
 * through its prologue, x is act(u) with u = fma(z, scale, shift), and dx as `grad` says it, finished by `epi`: MASK with that z and
 * affine (kernels/fuse.h), its pieces being of `piece` rows. dw += the chains of each step of `step` rows, in order; steps begin
 * with a piece. Of the calls of a unit, which share `work`, the first says `begins` and the last `ends`. */
typedef struct {
    const float *x, *dy, *w;      /* x: z, (in_h, in_w, 16); dy: (out_h, out_w, 16); w: (taps, 16) */
    const gap_prologue *pro;      /* of dy */
    const gap_epilogue *epi;      /* of dx; sums: those of piece 0 */
    float *dx, *dw;               /* dw: (taps, 16) as w */
    int64_t in_h, in_w, out_h, out_w, step, piece;
    int kernel, stride;
    bool stream;                  /* dx is more than caches hold, and aligned to 64 bytes: write past them */
    bool begins, ends;
    float *work;                  /* gap_depthwise_back_floats */
} gap_depthwise_sweep_back;

/* Rows of d that are formed before a row of phase 0 is computed; one more is formed beside it. */
#define GAP_DEPTHWISE_BACK_LEAD(kernel, stride) ((stride) == 1 ? 2 : (kernel) / 2)
/* A row of zeros, and four of d; a column of zeros on either side. Then chains of weights between rows of a phase. */
static inline int64_t gap_depthwise_back_floats(int64_t out_w) { return (5 * (out_w + 2) + 30) * 16; }

typedef struct {
    void (*rows)(const gap_depthwise_rows *r);
    /* rows, and what kernels/fuse.h says of the epilogue. False where this set has no form for these taps, this width or this
     * epilogue: nothing is done then, and the parts one after another give the same bits. */
    bool (*rows_finished)(const gap_depthwise_rows *r, const gap_depthwise_finish *f);
    /* False where this set has no form for this width, this prologue or this epilogue; nothing is done then, in any call of the unit. */
    bool (*sweep)(const gap_depthwise_sweep *s, const gap_depthwise_finish *f);
    void (*grad)(const gap_depthwise_grad *g);
    /* Weights stand phase by phase: with stride 2 rows and columns even even, even odd, odd even, odd odd; within a phase from the
     * last tap down. False where this set has no form for this kernel, this stride, this prologue or this activation; nothing is
     * done then, in any call of the unit, and the parts one after another give the same bits. */
    bool (*sweep_back)(const gap_depthwise_sweep_back *b);
    /* sum[t*16 + lane] += parts[k*part + t*16 + lane] for k < n in order; t < taps. */
    void (*add)(float *sum, const float *parts, int64_t part, int n, int64_t taps);
} gap_depthwise_kernels;

#endif

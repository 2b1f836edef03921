/* conv.h — the convolution family: small products on padded planes of 16-channel vectors. Portable contract:
 *
 * Lanes are output channels. Every output element is a sum of chains of fused
 * multiply-adds in the order given below, so that no tile size and no instruction set changes a bit. A chain begins at 0
 * and is then added to what stands: one long chain over all channels would lose accuracy as channels grow (measured at 512
 * channels, 3x3: 7e-7 rms against 1.7e-7), chains of about 128 terms do not.
 * No function allocates, fails or starts threads. Strides and offsets are in floats. Pointers need 4-byte alignment.
 */
#ifndef GAP_KERNELS_CONV_H
#define GAP_KERNELS_CONV_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/fuse.h"

/* Whether of so many channels the last block has 8 at most. */
static inline bool gap_conv_half(int64_t channels) { return (channels - 1) % 16 < 8; }

/* What a sum of chains begins with: 0, bias[channel], or what y holds. */
typedef enum { GAP_CONV_ZERO, GAP_CONV_BIAS, GAP_CONV_KEEP } gap_conv_start;

/* What will be wanted next, fetched on the way, which changes no result: vectors at[] + k*block + i*img + p*16, where p counts the
 * pixels at work of image i, row after row, and k < blocks. */
typedef struct { const float *at[2]; int64_t img, block; int blocks; } gap_conv_ahead;

/* Many rows of output pixels:
 *   y[b][r][p][lane] = start + one chain for each group of `chain` input blocks (the last may be smaller), in order; a chain
 *                      runs over (input block i, tap t, channel k), in this order of nesting, of
 *                      a[i*a_block + off[t] + r*a_row + p*a_px + k] * w[b*w_oc + i*w_block + t*w_tap + k*16 + lane]
 * with k < kc (kc_last in the last input block). taps or blocks may be 0. */
typedef struct {
    const float *a;
    int64_t a_px, a_row, a_block;
    const int64_t *off;
    int taps, blocks, kc, kc_last;
    int chain;                    /* >= 1: input blocks of one chain */
    const float *w;
    int64_t w_tap, w_block, w_oc;
    float *y;
    int64_t y_px, y_row, y_oc;
    int64_t pixels, rows;
    int oc_blocks;
    bool half;                    /* of the last output block lanes 8..15 are 0 in w, bias and what y holds, and so in y: padding */
    gap_conv_start start;
    const float *bias;            /* (oc_blocks * 16), for GAP_CONV_BIAS */
    gap_conv_ahead ahead;         /* with a_px 16 and one tap: block k of it beside input block k, rows being images; with a_px 3 or 6,
                                     pictures: at[0] + img*r + 16*p; else unused */
} gap_conv_rows;

/* A weight gradient's tile: for k < m, output block b
 *   dw[k*dw_k + b*dw_oc + lane] += sum over (image i, row r, pixel p) in this order of
 *                                  a[i*a_img + r*a_row + p*a_px + k] * d[b*d_oc + i*d_img + r*d_row + p*d_px + lane]
 * The sum is one chain that begins at 0; it is then added to what dw holds. */
typedef struct {
    const float *a;
    int64_t a_px, a_row, a_img;
    const float *d;
    int64_t d_px, d_row, d_img, d_oc;
    int64_t pixels, rows, images;
    int m, oc_blocks;
    bool half;                    /* of the last output block lanes 8..15 of d are 0: padding, whose sums are 0 */
    float *dw;
    int64_t dw_k, dw_oc;
    gap_conv_ahead ahead[3];      /* shared out over the tiles */
} gap_conv_cols;

/* Groups of 4 or 8 channels, of which a vector holds several: a lane meets the input channels of its own group alone, which
 * begin at lane g(lane) = lane / group * group. Many rows of output pixels of one block:
 *   y[r][p][lane] = start + one chain over (kernel row h, channel k, tap t), in this order of nesting, of
 *                   a[off[h*taps] + r*a_row + (p*step + t)*16 + g(lane) + k] * w[((h*taps + t)*group + k)*16 + lane]
 * taps: 1, 2 or 3 neighbouring pixels (with kernel_rows 0, whatever); step: 1, or 2 with 3 taps. */
typedef struct {
    const float *a;
    int64_t a_row;
    const int64_t *off;
    int kernel_rows, taps, step, group;
    const float *w;
    float *y;
    int64_t y_px, y_row;
    int64_t pixels, rows;
    gap_conv_start start;
    const float *bias;            /* (16), for GAP_CONV_BIAS */
} gap_conv_group_rows;

/* The weight gradient of one kernel row of 3 taps, of one block: for t < 3, k < group
 *   dw[(t*group + k)*16 + lane] += sum over (image i, row r, pixel p) in this order of
 *                                  a[i*a_img + r*a_row + (p*step + t)*16 + g(lane) + k] * d[i*d_img + r*d_row + p*16 + lane]
 * The sum is one chain that begins at 0; it is then added to what dw holds. pixels >= 1. */
typedef struct {
    const float *a;
    int64_t a_row, a_img;
    const float *d;
    int64_t d_row, d_img;
    int64_t pixels, rows, images;
    int step, group;
    float *dw;
} gap_conv_group_cols;

typedef struct {
    void (*rows)(const gap_conv_rows *r);
    void (*cols)(const gap_conv_cols *c);
    void (*group_rows)(const gap_conv_group_rows *r);
    void (*group_cols)(const gap_conv_group_cols *c);
    /* For products of halves (ops/conv_strassen.h), over `pixels` vectors: s0 = a2 + a3, s1 = s0 - a0, s2 = a0 - a2, s3 = a1 - s1. */
    void (*halves)(int64_t pixels, const float *const a[4], float *const s[4]);
    /* t0 = b1 - b0, t1 = b3 - t0, t2 = b3 - b1, t3 = b2 - t1. */
    void (*differences)(int64_t pixels, const float *const b[4], float *const t[4]);
    /* y = start + t, or start + (t + x); x may be NULL, bias is (16). */
    void (*join)(int64_t pixels, float *y, gap_conv_start start, const float *bias, const float *t, const float *x);
    /* out[lane] += sum over pixels of x[p*16 + lane]: four chains (p mod 4), added as (0+1) + (2+3). */
    void (*channel_sum)(float out[16], const float *x, int64_t pixels);
    int wide; /* output blocks of `rows` that share one reading of the input; callers keep that many panels in cache */
} gap_conv_kernels;

#endif

/* conv_strassen.h — a product of matrices as seven products of halves instead of eight (Strassen 1969, in Winograd's form of
 * fifteen additions). Used by ops/conv_pointwise.c where precision allows it; an eighth of the multiplications is saved, and
 * the additions cost one to three per cent of it (bench_pointwise).
 *
 * What is halved, so that nothing has to be moved: an image's pixels at hand (the upper half of an odd number begins with the
 * last pixel of the lower, and leaves that out of its results), input blocks into even and odd ones, output blocks by fours
 * into two and two. Two output blocks are what the kernel's tile holds, and a half of the input is a stride.
 *
 * With A the pixels (lower, upper) by the input blocks (even, odd), B the weights, C the results, in this order:
 *   t   = A11 B11
 *   C11 = start + A12 B21           C11 += t
 *   t  += S2 (B22 - T1)
 *   x   = S1 T1
 *   C12 = start + S4 B22            C12 += t + x
 *   t  += S3 (B22 - B12)
 *   C21 = start + A22 (B21 - (B22 - T1))
 *   C22 = start + (t + x)           C21 += t
 * with S1 = A21 + A22, S2 = S1 - A11, S3 = A11 - A21, S4 = A12 - S2, T1 = B12 - B11. Each product is one chain of fused
 * multiply-adds from 0, over at most STRASSEN_BLOCKS / 2 blocks.
 *
 * Its error: a result is no longer near to its own terms alone, but to the largest of those at hand, as with Winograd's
 * tiles: at 128 to 2048 channels 6e-7 to 1e-6 of the largest element, 4.6e-7 rms, where plain chains have 3e-7 and 1.6e-7
 * (test_pointwise.c bounds it).
 */
#ifndef GAP_OPS_CONV_STRASSEN_H
#define GAP_OPS_CONV_STRASSEN_H

#include "kernels/conv.h"
#include "kernels/kernels.h"

#define STRASSEN_BLOCKS 18 /* of the input, at most, that one step takes: halves of 9 blocks are one chain */
#define STRASSEN_WIDE 4    /* output blocks of a step */

/* Whether a product of that size is faster so. */
bool gap_strassen_pays(int64_t in_blocks, int64_t out_blocks, int64_t pixels);
/* Input blocks of a step: even; the last step of a product may have fewer. */
int64_t gap_strassen_group(int64_t in_blocks);

/* Weights of four output blocks with in_blocks input blocks, in floats; and those of input blocks 2*pair and 2*pair + 1 of them,
 * of which tiles has (2 in, 4 out, 256). */
int64_t gap_strassen_weights(int64_t in_blocks);
void gap_strassen_pack(int64_t in_blocks, int64_t pair, const float *tiles, float *to);

/* One step of a product: input blocks [first, first + r->blocks) of in_blocks with four output blocks of which r->w are the
 * packed weights. r as for the kernel, rows being images, blocks even, start as it is for these blocks. */
typedef struct {
    const gap_conv_kernels *k;
    int64_t first, in_blocks;
    float *scratch;
} gap_strassen;

/* Floats of scratch for a step. */
int64_t gap_strassen_scratch(int64_t blocks, int64_t images, int64_t pixels);
/* The sums of the input, once for all output blocks, into the scratch: r->a, a_row, a_block, pixels, rows and blocks count. */
void gap_strassen_sums(const gap_strassen *s, const gap_conv_rows *r);
void gap_strassen_rows(const gap_strassen *s, const gap_conv_rows *r);

/* ---- weight gradients: two blocks of the input, transposed, by four of the output's gradient, over an even number of pixels ----
 *
 * A is (even, odd block) by (lower, upper pixels), B (lower, upper) by (two, two blocks), and the seven products stay apart while
 * they are summed over images; the sums are combined once, at the end:
 *   P1 = A11 B11, P2 = A12 B21, P3 = S4 B22, P4 = A22 (B21 - (B22 - T1)), P5 = S1 T1, P6 = S2 (B22 - T1), P7 = S3 (B22 - B12)
 *   C11 = P1 + P2   C12 = ((P1 + P6) + P5) + P3   C21 = ((P1 + P6) + P7) + P4   C22 = ((P1 + P6) + P7) + P5 */

#define STRASSEN_PARTS (7 * 512) /* floats of partial sums: (product, 2 out, 16 in, 16 out) */

/* Of two blocks at x, `block` apart: (S1..S4, half, 16). Of four at d: (T1, B22 - T1, B22 - B12, B21 - (B22 - T1); 2, half, 16). */
void gap_strassen_input_sums(const gap_conv_kernels *k, const float *x, int64_t block, int64_t pixels, float *sums);
void gap_strassen_gradient_sums(const gap_conv_kernels *k, const float *d, int64_t block, int64_t pixels, float *sums);

typedef struct {
    const float *x, *x_sums, *d, *d_sums;
    int64_t x_block, d_block, pixels;
    float *parts;
    gap_conv_ahead next_x, behind; /* two blocks each that will be wanted next and behind the products, or none */
    gap_conv_ahead next_d;    /* `blocks` of the output's gradient, of which these products fetch those from half block d_from on */
    int64_t d_from;
} gap_strassen_grad;
void gap_strassen_add(const gap_conv_kernels *k, const gap_strassen_grad *g);
/* to: (2 in, 4 out, 16 in, 16 out). */
void gap_strassen_combine(const float *parts, float *to);

#endif

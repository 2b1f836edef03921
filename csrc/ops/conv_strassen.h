/* conv_strassen.h — a product of matrices as seven products of halves instead of eight (Strassen 1969, in Winograd's form of
 * fifteen additions). Used by ops/conv_pointwise.c where precision allows it; an eighth of the multiplications is saved, and
 * the additions cost one to three per cent of it (bench_pointwise).
 *
 * What is halved, so that nothing has to be moved: an image's pixels at hand (the upper half of an odd number begins with the
 * last pixel of the lower, and leaves that out of its results), input blocks into even and odd ones, output blocks by fours into two and two.
 * Two output blocks are what the kernel's tile holds, and a half of the input is a stride.
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
 * tiles: about 3e-7 of the largest element were measured (test_pointwise.c bounds it), where plain chains have 1e-7.
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

/* Weights of four output blocks with `in_blocks` input blocks, in floats. Unpacked: (4 out, in, 256). */
int64_t gap_strassen_weights(int64_t in_blocks);
/* The tile of output block `out` (0..3) and input block `in` is left at to + gap_strassen_slot(...) first; then pack makes the
 * seven matrices where they stand. */
int64_t gap_strassen_slot(int64_t in_blocks, int64_t in, int64_t out);
void gap_strassen_pack(int64_t in_blocks, float *to);

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

#endif

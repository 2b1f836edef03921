/* image.h — kernels on uint8 pictures: the two passes of a separable resampling, and mirroring.
 *
 * Fixed point, as Pillow does it: coefficients are whole numbers of 2^-GAP_IMAGE_BITS, a sum is begun at one half, shifted
 * down and clipped to 0..255. Integer sums have no order, so every set gives the same bits. dst and src never overlap.
 */
#ifndef GAP_KERNELS_IMAGE_H
#define GAP_KERNELS_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define GAP_IMAGE_BITS 22 /* 8 bits of pixel and 2 for filters that overshoot are left in an int32 */
#define GAP_IMAGE_ROWS 16 /* rows of one horizontal strip: the lanes */

/* For each of n output positions: pixels first[i] .. first[i] + count[i], count[i] >= 1, weighted by k[i * width ..]. */
typedef struct {
    int64_t n;
    int64_t width;        /* largest count: row length of k */
    const int32_t *first; /* (n) */
    const int32_t *count; /* (n) */
    const int32_t *k;     /* (n, width) */
} gap_taps;

/* Bytes of scratch that a horizontal strip needs, aligned to GAP_ALIGN. */
static inline size_t gap_image_strip_bytes(int64_t w, int64_t out_w, int64_t c) {
    return ((size_t)(w * c) + (size_t)(out_w * c) + 32) * GAP_IMAGE_ROWS;
}

typedef struct {
    /* dst (rows, taps->n, c) <- src (rows, w, c); 1 <= rows <= GAP_IMAGE_ROWS; strides in bytes. */
    void (*resample_rows)(uint8_t *dst, size_t dst_stride, const uint8_t *src, size_t src_stride, int rows, int64_t w, int64_t c,
                          const gap_taps *taps, uint8_t *strip);
    /* dst (n) <- sum over the `count` rows of src (count, n), whose first is src, weighted by k. */
    void (*resample_column)(uint8_t *dst, const uint8_t *src, size_t src_stride, size_t n, const int32_t *k, int32_t count);
    /* dst (w, c) <- src (w, c) with its pixels in reverse order; c 1 or 3. */
    void (*mirror_row)(uint8_t *dst, const uint8_t *src, int64_t w, int64_t c);
} gap_image_kernels;

#endif

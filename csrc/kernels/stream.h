/* stream.h — passes over planes of 16-channel vectors: load through a prologue, finish with an epilogue (kernels/fuse.h).
 * No function allocates, fails or starts threads. Any cut into whole pieces gives the same bits. */
#ifndef GAP_KERNELS_STREAM_H
#define GAP_KERNELS_STREAM_H

#include "kernels/fuse.h"

/* Fills a padded plane: dst row r, column q (rows x cols pixels of `lanes` floats, rows dst_row apart) is the pixel
 * (row0 + r, col0 + q) of x (h, w, lanes) after the prologue, or exact 0 where that lies outside. With lanes != 16 the
 * prologue must be the identity; but `bytes` (NULL, or in place of x: (h, w, lanes), at most GAP_BYTE_LANES of them) become
 * fma(value, scale, shift), the prologue's vectors having `lanes` numbers then. */
#define GAP_BYTE_LANES 8
typedef struct {
    const float *x;
    const uint8_t *bytes;
    int64_t h, w, lanes;
    float *dst;
    int64_t dst_row, rows, cols, row0, col0;
    gap_prologue pro;
} gap_stream_load;

/* Pixels [0, pixels) of y, from the first of a piece on; `piece` pixels each, the last may be shorter. The epilogue's planes
 * and sums begin there too. from: read in place of y (MASK only; NULL: y). */
typedef struct {
    float *y;
    const float *from;
    int64_t pixels, piece;
    gap_epilogue epi;
} gap_stream_finish;

typedef struct {
    void (*load)(const gap_stream_load *l);
    void (*map)(int64_t pixels, const float *x, const gap_prologue *pro, float *y, bool add); /* y = or += v; y may be x */
    void (*finish)(const gap_stream_finish *f);
} gap_stream_kernels;

#endif

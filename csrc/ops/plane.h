/* plane.h — planes of channel-blocked images: sample s, block b is (H, W, cb) at ((s * blocks) + b) * plane. */
#ifndef GAP_OPS_PLANE_H
#define GAP_OPS_PLANE_H

#include <stdint.h>

#include "core/tensor.h"

static inline int64_t gap_plane_pixels(const gap_desc *d) { return d->dim[1] * d->dim[2]; }
static inline int64_t gap_plane_floats(const gap_desc *d) { return gap_plane_pixels(d) * d->cb; }
/* Floats from a tensor's begin to plane u, planes being counted over all samples. */
static inline int64_t gap_plane_at(const gap_desc *d, int64_t u) { return u * gap_plane_floats(d) + (d->skip ? u / gap_desc_blocks(d) * d->skip : 0); }
/* Channels as stored, padding included. */
static inline int64_t gap_padded_channels(const gap_desc *d) { return gap_desc_blocks(d) * d->cb; }
/* Channels that only pad the last block; 0 for other layouts. */
static inline int64_t gap_pad_channels(const gap_desc *d) {
    return d->layout == GAP_BLOCKED ? gap_desc_blocks(d) * d->cb - d->dim[0] : 0;
}
/* Sets the padding channels of one sample (blocked) to exact zeros. */
static inline void gap_pad_clear(const gap_desc *d, float *sample) {
    int64_t pad = gap_pad_channels(d), plane = gap_plane_floats(d);
    if (pad == 0) return;
    float *last = sample + (gap_desc_blocks(d) - 1) * plane; /* (H, W, cb) */
    for (int64_t p = 0; p < plane; p += d->cb)
        for (int64_t l = d->cb - pad; l < d->cb; l++) last[p + l] = 0.0f;
}

#endif

/* source.h — tensors as ops read and write them under fusion: what stands in memory, and what it means (kernels/fuse.h).
 *
 * A source or sink speaks of a whole tensor (n, blocks, h, w, 16) and vectors over its padded channels; gap_source_at and
 * gap_sink_at give the plane of one image and block. A sink's sums lie as (n, pieces, 2, padded), so that any op may make
 * them and any cut into whole pieces gives the same bits.
 */
#ifndef GAP_OPS_SOURCE_H
#define GAP_OPS_SOURCE_H

#include "core/shape.h"
#include "kernels/fuse.h"
#include "ops/plane.h"

/* Rows of a piece of a plane's sums: about 256 pixels, whole rows, a multiple of 4 rows where the plane is cut at all. */
static inline int64_t gap_piece_rows(int64_t h, int64_t w) {
    const int64_t rows = gap_ceil_div(gap_ceil_div(256, w), 4) * 4;
    return rows < h ? rows : h;
}
static inline int64_t gap_pieces(int64_t h, int64_t w) { return gap_ceil_div(h, gap_piece_rows(h, w)); }

typedef struct {
    const float *x;                   /* (n, blocks, h, w, 16); or pixels (n, h, w, c), then nothing else is set */
    const uint8_t *bytes;             /* NULL, or in place of x: pixels (n, h, w, c); then scale and shift are set, (c) */
    int64_t plane, blocks, skip;      /* floats of a plane; blocks of an image; floats between images (core/tensor.h) */
    gap_prologue pro;                 /* planes: of image 0, block 0, and as x lies; vectors: over padded channels; gate: (n, padded) */
} gap_source;

typedef struct {
    float *y;                         /* (n, blocks, h, w, 16) */
    bool add;                         /* adds to what is there, before the epilogue */
    int64_t plane, blocks, pieces, skip;
    gap_epilogue epi;                 /* as in a source, but planes stand alone; sums: (n, pieces, 2, padded); gate: (n, padded) */
} gap_sink;

/* Floats from one image to the next. */
static inline int64_t gap_source_image(const gap_source *s) { return s->blocks * s->plane + s->skip; }
static inline int64_t gap_sink_image(const gap_sink *s) { return s->blocks * s->plane + s->skip; }

static inline const float *gap_shift_(const float *p, int64_t by) { return p ? p + by : NULL; }

static inline gap_prologue gap_source_at(const gap_source *s, int64_t n, int64_t block) {
    const int64_t at = n * gap_source_image(s) + block * s->plane, c = block * 16;
    gap_prologue p = s->pro;
    p.scale = gap_shift_(p.scale, c), p.shift = gap_shift_(p.shift, c), p.mean = gap_shift_(p.mean, c);
    p.b = gap_shift_(p.b, c), p.c = gap_shift_(p.c, c);
    p.z = gap_shift_(p.z, at), p.residual = gap_shift_(p.residual, at);
    p.residual_scale = gap_shift_(p.residual_scale, c), p.residual_shift = gap_shift_(p.residual_shift, c);
    p.gate = gap_shift_(p.gate, n * s->blocks * 16 + c);
    return p;
}
/* Nothing is done on loading: the tensor may be read where it lies. */
static inline bool gap_source_plain(const gap_source *s) {
    const gap_prologue *p = &s->pro;
    return !p->scale && !p->z && !p->residual && !p->gate && p->act == GAP_ACT_NONE;
}

/* The epilogue of pixels from `pixel` on (the first of piece `piece`) in block `block` of image n. */
static inline gap_epilogue gap_sink_at(const gap_sink *s, int64_t n, int64_t block, int64_t piece, int64_t pixel) {
    const int64_t at = (n * s->blocks + block) * s->plane + pixel * 16, c = block * 16, padded = s->blocks * 16;
    gap_epilogue e = s->epi;
    e.pivot = gap_shift_(e.pivot, c), e.scale = gap_shift_(e.scale, c), e.shift = gap_shift_(e.shift, c);
    e.mean = gap_shift_(e.mean, c), e.mean2 = gap_shift_(e.mean2, c);
    e.residual = gap_shift_(e.residual, at), e.out = gap_shift_(e.out, at), e.z = gap_shift_(e.z, at), e.z2 = gap_shift_(e.z2, at);
    e.gate = gap_shift_(e.gate, n * padded + c);
    e.sums_piece = 2 * padded, e.sums_second = padded;
    const int64_t sums = (n * s->pieces + piece) * 2 * padded + c;
    if (e.sums) e.sums += sums;
    if (e.sums2) e.sums2 += sums;
    return e;
}

#endif

/* pipeline.h — a list of augment ops over a batch of pictures, a chunk per picture.
 *
 * The draws of op k for sample `id` are those at (seed, GAP_STREAM_AUGMENT; epoch, id, op's id): they depend on nothing else,
 * not on threads, order, batch or the other ops. A pipeline may be run from several threads at once; it keeps the buffers of
 * finished calls, so that the steady state allocates nothing.
 */
#ifndef GAP_AUGMENT_PIPELINE_H
#define GAP_AUGMENT_PIPELINE_H

#include "augment/augment.h"

#define GAP_PIPELINE_MAX_OPS 64

typedef struct gap_pipeline gap_pipeline;

typedef struct {
    const gap_augment_def *def;
    uint32_t id;                          /* fixed number in the stored recipe: the op coordinate of its draws */
    gap_value cfg[GAP_PARAM_MAX];
} gap_pipeline_op;

/* Gives a pipeline over a copy of ops[0..n). Checks configs, that ids differ, and that an op marked `last` is the last. */
GAP_MUST_USE gap_status gap_pipeline_new(gap_pipeline **out, const gap_pipeline_op *ops, int n);
void gap_pipeline_free(gap_pipeline *p);

int gap_pipeline_count(const gap_pipeline *p);
const gap_pipeline_op *gap_pipeline_op_at(const gap_pipeline *p, int k);
bool gap_pipeline_random(const gap_pipeline *p);              /* has an op that draws */

/* Size for a picture (h, w, c); *fixed: the same for every picture that passes. */
GAP_MUST_USE gap_status gap_pipeline_shape(const gap_pipeline *p, int64_t h, int64_t w, int64_t c, int64_t *oh, int64_t *ow,
                                           bool *fixed);
/* What every op draws for a sample of that size: out[0..count). Ops without randomness: zeros. */
GAP_MUST_USE gap_status gap_pipeline_sample(const gap_pipeline *p, uint64_t seed, int64_t epoch, int64_t id, int64_t h, int64_t w,
                                            int64_t c, gap_aug_params *out);

/* One call's work: n pictures (borrowed, not written), each of the same channels, to out (n, oh, ow, c). */
typedef struct {
    int64_t n;
    const gap_image *images;              /* (n) */
    const int64_t *ids;                   /* (n) manifest indices, 0 <= id < 2^32 */
    uint64_t seed;
    int64_t epoch;                        /* 0 <= epoch < 2^32 */
} gap_pipeline_batch;

/* The size that all outputs share, or GAP_ERR_SHAPE naming the first sample that differs. n >= 1. */
GAP_MUST_USE gap_status gap_pipeline_batch_shape(const gap_pipeline *p, const gap_pipeline_batch *b, int64_t *oh, int64_t *ow);
/* out (n, oh, ow, c) uint8, of the size that batch_shape gives. An error names the sample with the smallest index. */
GAP_MUST_USE gap_status gap_pipeline_run(gap_pipeline *p, const gap_pipeline_batch *b, uint8_t *out);

/* Factors of y = x * a[c] + b[c], x a byte: Normalize's, or 1 / 255 and 0 where there is none. */
void gap_pipeline_affine(const gap_pipeline *p, int64_t c, float *a, float *b);
/* y (n, c, h, w) float32 <- x (n, h, w, c) uint8, as the network's first layer does it: fma(x, a, b). */
GAP_MUST_USE gap_status gap_pipeline_to_float(const gap_pipeline *p, int64_t n, int64_t h, int64_t w, int64_t c, const uint8_t *x,
                                              float *y);

#endif

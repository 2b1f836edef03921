/* tensor.h — what one value of a network is: type, layout, shape of one sample.
 *
 * The batch is never part of the shape: sample n lies at base + n * gap_desc_bytes(). Layouts:
 *   GAP_PLAIN    row-major dim[0..ndim); logits are (K), a flattened image is (C*H*W)
 *   GAP_BLOCKED  dim = C, H, W; stored (ceil(C/cb), H, W, cb), the channels that pad the last block are exact zeros
 *   GAP_NHWC     dim = C, H, W; stored (H, W, C): images as they come in
 */
#ifndef GAP_CORE_TENSOR_H
#define GAP_CORE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

#define GAP_MAX_DIM 4

typedef enum { GAP_F32, GAP_U8, GAP_I32, GAP_BF16 } gap_dtype;
typedef enum { GAP_PLAIN, GAP_BLOCKED, GAP_NHWC } gap_layout;

typedef struct {
    gap_dtype dtype;
    gap_layout layout;
    int ndim;
    int64_t dim[GAP_MAX_DIM];
    int64_t cb;      /* block width of GAP_BLOCKED, else 0 */
    bool per_batch;  /* one value for the whole batch (BatchNorm's statistics): no sample axis */
    int64_t skip;    /* elements between two samples that are others': a run of blocks of a larger tensor; 0: it stands alone */
} gap_desc;

size_t gap_dtype_bytes(gap_dtype t);
/* Width of a channel block: the one place that decides it. fp32: 16, one AVX-512 register, two AVX2, four NEON. */
int64_t gap_block_width(gap_dtype t, int64_t channels);

gap_desc gap_desc_image(int64_t c, int64_t h, int64_t w);  /* fp32, blocked */
gap_desc gap_desc_vector(int64_t n);                       /* fp32, plain (n) */
int64_t gap_desc_count(const gap_desc *d);                 /* logical elements of one sample */
int64_t gap_desc_stored(const gap_desc *d);                /* elements of one sample as stored, padding included */
int64_t gap_desc_step(const gap_desc *d);                  /* elements from one sample to the next */
size_t gap_desc_bytes(const gap_desc *d);                  /* bytes of one sample, as stored */
int64_t gap_desc_blocks(const gap_desc *d);                /* channel blocks of GAP_BLOCKED */
bool gap_desc_equal(const gap_desc *a, const gap_desc *b);
/* Writes "(16, 32, 32)" into text; for messages. Returns text. */
const char *gap_desc_text(const gap_desc *d, char text[96]);

#endif

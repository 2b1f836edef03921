/* shape.h — output-size arithmetic, checked for overflow, in one place. */
#ifndef GAP_CORE_SHAPE_H
#define GAP_CORE_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

/* Size of a window op's output along one axis: floor((in + pad_lo + pad_hi - dilation * (kernel - 1) - 1) / stride) + 1.
 * GAP_ERR_SHAPE when it would be < 1. `ceil_mode` rounds up as torch does: the last window must start inside in + pad_lo. */
GAP_MUST_USE gap_status gap_window_size(int64_t *out, const char *what, int64_t in, int64_t kernel, int64_t stride,
                                        int64_t pad_lo, int64_t pad_hi, int64_t dilation, bool ceil_mode);
/* *out = a * b; GAP_ERR_SHAPE on overflow or a negative factor. */
GAP_MUST_USE gap_status gap_size_mul(int64_t *out, int64_t a, int64_t b);
/* GAP_ERR_SHAPE where so many floats of one sample, the product of size[0..n), are more than any machine has. Below that bound
 * plans multiply sizes, blocks, slots and batches without a look at every product. */
#define GAP_SIZE_MOST ((int64_t)1 << 40)
GAP_MUST_USE gap_status gap_size_check(const char *what, const int64_t *size, int n);

static inline int64_t gap_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t gap_max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t gap_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; } /* a >= 0, b > 0 */

#endif

/* pool.h — window maxima and means on one plane of a channel block: x (H, W, 16), y (OH, OW, 16). */
#ifndef GAP_KERNELS_POOL_H
#define GAP_KERNELS_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t h, w, oh, ow;                     /* pixels */
    int64_t kernel[2], stride[2], pad[2], dilation[2];
    bool count_include_pad;                   /* avg: the divisor counts padding (not what ceil_mode adds beyond it) */
} gap_pool_shape;

#define GAP_POOL_MAX_TAPS 255 /* a tap's number fits a byte; 255 means: no tap inside the image */

typedef struct {
    /* y = largest x of the window; taps in row order, a later one wins only when larger, NaN wins always; taps outside do
     * not count; none inside: -infinity. tap (OH, OW, 16), or NULL: the winner's number, row * kernel[1] + column. */
    void (*max)(const gap_pool_shape *g, const float *x, float *y, uint8_t *tap);
    /* dx = dy at the winners, added up output by output in row order; or added to dx. */
    void (*max_backward)(const gap_pool_shape *g, const uint8_t *tap, const float *dy, float *dx, bool add);
    /* y = sum of the window / divisor, as torch's AvgPool2d; one fp32 chain, taps in row order. */
    void (*avg)(const gap_pool_shape *g, const float *x, float *y);
    /* dx: dy / divisor to every tap inside, output by output in row order; or added to dx. */
    void (*avg_backward)(const gap_pool_shape *g, const float *dy, float *dx, bool add);
} gap_pool_kernels;

#endif

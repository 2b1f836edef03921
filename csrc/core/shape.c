#include "core/shape.h"

gap_status gap_size_mul(int64_t *out, int64_t a, int64_t b) {
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, out))
        return gap_fail(GAP_ERR_SHAPE, "size: %lld x %lld is more than can be counted", (long long)a, (long long)b);
    return GAP_OK;
}

gap_status gap_size_check(const char *what, const int64_t *size, int n) {
    int64_t floats = 1;
    for (int k = 0; k < n; k++)
        if (__builtin_mul_overflow(floats, size[k], &floats) || floats > GAP_SIZE_MOST)
            return gap_fail(GAP_ERR_SHAPE, "%s: size %lld of a sample makes it larger than any memory", what, (long long)size[k]);
    return GAP_OK;
}

gap_status gap_window_size(int64_t *out, const char *what, int64_t in, int64_t kernel, int64_t stride, int64_t pad_lo,
                           int64_t pad_hi, int64_t dilation, bool ceil_mode) {
    const int64_t limit = (int64_t)1 << 31;
    if (in < 1 || in > limit || kernel < 1 || kernel > limit || stride < 1 || dilation < 1 || dilation > limit || pad_lo < 0 ||
        pad_hi < 0 || pad_lo > limit || pad_hi > limit)
        return gap_fail(GAP_ERR_SHAPE, "%s: size %lld, kernel %lld, stride %lld, padding (%lld, %lld), dilation %lld: out of range",
                        what, (long long)in, (long long)kernel, (long long)stride, (long long)pad_lo, (long long)pad_hi,
                        (long long)dilation);
    int64_t reach = dilation * (kernel - 1) + 1, room = in + pad_lo + pad_hi - reach;
    if (room < 0)
        return gap_fail(GAP_ERR_SHAPE, "%s: the window covers %lld pixels but the padded input has only %lld", what,
                        (long long)reach, (long long)(in + pad_lo + pad_hi));
    int64_t n = room / stride + 1;
    if (ceil_mode && room % stride != 0 && n * stride < in + pad_lo) n++;
    *out = n;
    return GAP_OK;
}

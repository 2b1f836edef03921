/* image.h — moving pixels: windows, padding by index maps, and Pillow's resampling. Shared by the ops of this folder. */
#ifndef GAP_AUGMENT_IMAGE_H
#define GAP_AUGMENT_IMAGE_H

#include "augment/augment.h"
#include "core/shape.h"

#define GAP_IMAGE_MAX_SIDE 16777216            /* 2^24: exact in a float, as Pillow's box is */
#define GAP_IMAGE_MAX_PIXELS ((int64_t)1 << 28) /* of one picture that an op may make */

typedef enum { GAP_PAD_CONSTANT, GAP_PAD_EDGE, GAP_PAD_REFLECT, GAP_PAD_SYMMETRIC } gap_pad_mode;
extern const char *const gap_pad_mode_names[]; /* NULL-terminated, in the order of the enum */

/* Checks a size that an op is to make; `owner` begins the message. */
GAP_MUST_USE gap_status gap_image_check(const char *owner, int64_t h, int64_t w);

/* map[0..n): where pixel start + i of an axis of `size` pixels, padded without end, comes from; -1: the fill. */
void gap_axis_window(int32_t *map, int64_t n, int64_t start, int64_t size, gap_pad_mode mode);
/* map[i] was a place on an axis padded by `before` and `after` pixels around `size`: make it a place on the axis itself. */
void gap_axis_unpad(int32_t *map, int64_t n, int64_t before, int64_t size, gap_pad_mode mode);

/* out[y][x] = in[rows[y]][columns[x]], or fill[c] where either is -1. out is already (h, w, c). */
void gap_image_gather(gap_image *out, const gap_image *in, const int32_t *rows, const int32_t *columns, const uint8_t fill[4]);
/* fill[] of an op's `fill` parameter: one number for all channels, or one for each. */
GAP_MUST_USE gap_status gap_fill_of(const char *owner, const gap_value *v, int64_t c, uint8_t fill[4]);
/* left, top, right, bottom of a `padding` parameter: 1, 2 (left and right, top and bottom) or 4 numbers, as torchvision. */
void gap_sides_of(const gap_value *v, int64_t side[4]);
/* out <- the window (top, left, h, w) of `in`, padded where it reaches outside. */
GAP_MUST_USE gap_status gap_image_window(const gap_image *in, gap_image *out, int64_t top, int64_t left, int64_t h, int64_t w,
                                         gap_pad_mode mode, const uint8_t fill[4], gap_scratch *s);

typedef enum { GAP_FILTER_NEAREST, GAP_FILTER_BILINEAR, GAP_FILTER_BICUBIC, GAP_FILTER_BOX, GAP_FILTER_LANCZOS } gap_filter;
extern const char *const gap_filter_names[]; /* NULL-terminated, in the order of the enum */

/* out (oh, ow, c) <- the window (top, left, h, w) of `in`, which lies inside it: crop, then Pillow's Image.resize, bit for
 * bit. antialias false: the filter is not widened where the picture shrinks. */
GAP_MUST_USE gap_status gap_image_resample(const gap_image *in, gap_image *out, int64_t top, int64_t left, int64_t h, int64_t w,
                                           int64_t oh, int64_t ow, gap_filter filter, bool antialias, gap_scratch *s);

/* exp, log and sin(pi x), from + - * / alone: the C library's may differ in the last bit between machines. */
double gap_exact_exp(double x);
double gap_exact_log(double x); /* x > 0, normal */
double gap_exact_sinpi(double x);

#endif

/*doc
Resize a picture, with Pillow's filters and Pillow's arithmetic.

One number is the length of the shorter side, the other side follows (long * size / short, rounded down); two numbers are
(height, width). With antialias the filter is widened where the picture shrinks, so that every pixel counts; without it,
only the pixels around each point do, as torch's interpolate and OpenCV do by default. A picture that has the size already
is passed on unchanged.

Shapes: (H, W, C) -> (OH, OW, C), uint8.
Agrees with: PIL.Image.resize of Pillow 13, every level (earlier versions too, but where the height shrinks by more than twice
as many pixels as the width: they take rows first there, which moves some levels by one); torchvision.transforms.Resize on PIL
pictures, size and levels.
Source: Keys 1981 (bicubic), Duchon 1979 (Lanczos).
*/
#include "augment/image.h"
#include "gen/docs.h"

enum { SIZE, INTERPOLATION, ANTIALIAS, MAX_SIZE };

static const gap_param params[] = {
    {"size", GAP_INTS, .required = true, .lo = 1, .hi = 65536, .doc = "pixels: the shorter side, or (height, width)"},
    {"interpolation", GAP_ENUM, .dflt = GAP_FILTER_BILINEAR, .choices = gap_filter_names, .doc = "filter"},
    {"antialias", GAP_BOOL, .dflt = 1, .doc = "widen the filter where the picture shrinks"},
    {"max_size", GAP_INT, .optional = true, .dflt_none = true, .lo = 1, .hi = 65536,
     .doc = "pixels: most that the longer side may have; the shorter one shrinks then; only where size is one number"},
};

static gap_status check(const gap_value *cfg) {
    const gap_value *size = &cfg[SIZE], *most = &cfg[MAX_SIZE];
    if (size->n != 1 && size->n != 2) return gap_fail(GAP_ERR_VALUE, "Resize: size must be one number or (height, width), got %d numbers", size->n);
    if (most->none) return GAP_OK;
    if (size->n != 1) return gap_fail(GAP_ERR_VALUE, "Resize: max_size goes with one size, the shorter side's; size is (height, width)");
    if ((double)most->i <= size->f[0])
        return gap_fail(GAP_ERR_VALUE, "Resize: max_size must be > size, got %lld and %g", (long long)most->i, size->f[0]);
    return GAP_OK;
}

static gap_status shape(const gap_value *cfg, int64_t h, int64_t w, int64_t c, int64_t *oh, int64_t *ow, bool *fixed) {
    (void)c;
    *fixed = cfg[SIZE].n == 2;
    if (*fixed) {
        *oh = (int64_t)cfg[SIZE].f[0], *ow = (int64_t)cfg[SIZE].f[1];
        return gap_image_check("Resize", *oh, *ow);
    }
    int64_t low = h < w ? h : w, high = h < w ? w : h;
    int64_t side = (int64_t)cfg[SIZE].f[0];
    int64_t longer = (int64_t)((double)(side * high) / (double)low); /* Python's int(size * long / short) */
    if (!cfg[MAX_SIZE].none && longer > cfg[MAX_SIZE].i) {
        side = (int64_t)((double)(cfg[MAX_SIZE].i * side) / (double)longer);
        longer = cfg[MAX_SIZE].i;
        if (side < 1) side = 1;
    }
    *oh = h < w ? side : longer;
    *ow = h < w ? longer : side;
    return gap_image_check("Resize", *oh, *ow);
}

static gap_status apply(const gap_value *cfg, const gap_aug_params *p, const gap_image *in, gap_image *out, gap_scratch *s, bool *same) {
    (void)p;
    int64_t oh, ow;
    bool fixed;
    gap_status st = GAP_OK;
    GAP_TRY(shape(cfg, in->h, in->w, in->c, &oh, &ow, &fixed));
    *same = oh == in->h && ow == in->w;
    if (*same) return GAP_OK;
    GAP_TRY(gap_image_resample(in, out, 0, 0, in->h, in->w, oh, ow, (gap_filter)cfg[INTERPOLATION].i, cfg[ANTIALIAS].i != 0, s));
done:
    return st;
}

const gap_augment_def gap_augment_resize = {
    .name = "Resize", .doc = gap_augment_resize_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .check = check, .shape = shape, .apply = apply,
};

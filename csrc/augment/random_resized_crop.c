/*doc
Cut a window of random area and shape out of a picture and resize it: Inception's augmentation.

The window's share of the area is uniform in `scale`, the logarithm of its width / height uniform in log `ratio`. A window
that does not fit is drawn again, ten times at most; then the largest one in the middle is taken whose shape lies in `ratio`.

Shapes: (H, W, C) -> (size, C), uint8.
Draws, for each try: area, shape; then top in [0, H - h], left in [0, W - w].
Agrees with: torchvision.transforms.RandomResizedCrop in distribution; equal pixels (PIL pictures) for equal windows.
Source: Szegedy et al. 2015, "Going deeper with convolutions".
*/
#include <math.h>

#include "augment/image.h"
#include "gen/docs.h"

enum { SIZE, SCALE, RATIO, INTERPOLATION, ANTIALIAS };
enum { TRIES = 10 };

static const double default_scale[] = {0.08, 1.0}, default_ratio[] = {3.0 / 4.0, 4.0 / 3.0};
static const gap_param params[] = {
    {"size", GAP_PAIR, .required = true, .lo = 1, .hi = 65536, .doc = "pixels: both sides, or (height, width)"},
    {"scale", GAP_FLOATS, .dflt_list = default_scale, .n_dflt_list = 2, .lo = 0, .hi = 1, .lo_open = true,
     .doc = "least and largest share of the picture's area"},
    {"ratio", GAP_FLOATS, .dflt_list = default_ratio, .n_dflt_list = 2, .lo = 0.001, .hi = 1000, .doc = "least and largest width / height"},
    {"interpolation", GAP_ENUM, .dflt = GAP_FILTER_BILINEAR, .choices = gap_filter_names, .doc = "filter"},
    {"antialias", GAP_BOOL, .dflt = 1, .doc = "widen the filter where the picture shrinks"},
};
static const char *const drawn[] = {"top", "left", "height", "width", NULL};

static gap_status check_range(const char *name, const gap_value *v) {
    if (v->n != 2) return gap_fail(GAP_ERR_VALUE, "RandomResizedCrop: %s must be two numbers, got %d", name, v->n);
    if (v->f[0] > v->f[1])
        return gap_fail(GAP_ERR_VALUE, "RandomResizedCrop: %s must be (least, largest), got (%g, %g)", name, v->f[0], v->f[1]);
    return GAP_OK;
}

static gap_status check(const gap_value *cfg) {
    gap_status st = check_range("scale", &cfg[SCALE]);
    return st == GAP_OK ? check_range("ratio", &cfg[RATIO]) : st;
}

static gap_status shape(const gap_value *cfg, int64_t h, int64_t w, int64_t c, int64_t *oh, int64_t *ow, bool *fixed) {
    (void)h, (void)w, (void)c;
    *oh = cfg[SIZE].i, *ow = cfg[SIZE].i2, *fixed = true;
    return gap_image_check("RandomResizedCrop", *oh, *ow);
}

static void set(gap_aug_params *out, int64_t top, int64_t left, int64_t h, int64_t w) {
    out->v[0] = (double)top, out->v[1] = (double)left, out->v[2] = (double)h, out->v[3] = (double)w;
}

/* The largest window in the middle whose shape lies in the range; a side is never less than a pixel. */
static void middle(const double *ratio, int64_t h, int64_t w, gap_aug_params *out) {
    double have = (double)w / (double)h;
    int64_t ch = h, cw = w;
    if (have < ratio[0]) ch = (int64_t)rint((double)w / ratio[0]);
    else if (have > ratio[1]) cw = (int64_t)rint((double)h * ratio[1]);
    if (ch < 1) ch = 1;
    if (cw < 1) cw = 1;
    set(out, (h - ch) / 2, (w - cw) / 2, ch, cw);
}

static gap_status sample(const gap_value *cfg, gap_draws *d, int64_t h, int64_t w, gap_aug_params *out) {
    const double *scale = cfg[SCALE].f, *ratio = cfg[RATIO].f;
    double area = (double)h * (double)w;
    double lo = gap_exact_log(ratio[0]), hi = gap_exact_log(ratio[1]);
    for (int k = 0; k < TRIES; k++) {
        double target = area * (scale[0] + (scale[1] - scale[0]) * gap_draws_uniform(d));
        double aspect = gap_exact_exp(lo + (hi - lo) * gap_draws_uniform(d));
        double cw = rint(sqrt(target * aspect)), ch = rint(sqrt(target / aspect));
        if (cw < 1 || ch < 1 || cw > (double)w || ch > (double)h) continue;
        int64_t top = gap_draws_below(d, h - (int64_t)ch + 1), left = gap_draws_below(d, w - (int64_t)cw + 1);
        set(out, top, left, (int64_t)ch, (int64_t)cw);
        return GAP_OK;
    }
    middle(ratio, h, w, out);
    return GAP_OK;
}

static gap_status apply(const gap_value *cfg, const gap_aug_params *p, const gap_image *in, gap_image *out, gap_scratch *s, bool *same) {
    int64_t top = (int64_t)p->v[0], left = (int64_t)p->v[1], h = (int64_t)p->v[2], w = (int64_t)p->v[3];
    *same = h == in->h && w == in->w && h == cfg[SIZE].i && w == cfg[SIZE].i2;
    if (*same) return GAP_OK;
    return gap_image_resample(in, out, top, left, h, w, cfg[SIZE].i, cfg[SIZE].i2, (gap_filter)cfg[INTERPOLATION].i,
                              cfg[ANTIALIAS].i != 0, s);
}

const gap_augment_def gap_augment_random_resized_crop = {
    .name = "RandomResizedCrop", .doc = gap_augment_random_resized_crop_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .random = true, .drawn = drawn, .check = check, .shape = shape, .sample = sample, .apply = apply,
};

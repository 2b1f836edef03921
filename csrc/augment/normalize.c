/*doc
Subtract a mean and divide by a standard deviation, per channel:  y = (x / 255 - mean) / std.

Always the last op of a pipeline. Pictures travel as uint8; the network's first layer applies it, as one fused multiply-add
x * a + b with a = 1 / (255 std) and b = -mean / std, computed in double and rounded once.

Shapes: (H, W, C) uint8 -> (C, H, W) float32, in the first layer.
Agrees with: torchvision's ToTensor followed by Normalize, to 2 units in the last place.
*/
#include "augment/image.h"
#include "gen/docs.h"

enum { MEAN, STD };

static const gap_param params[] = {
    {"mean", GAP_FLOATS, .required = true, .lo = -1000, .hi = 1000, .doc = "of x / 255: one, or one per channel"},
    {"std", GAP_FLOATS, .required = true, .lo = 0, .hi = 1000, .lo_open = true, .doc = "of x / 255: one, or one per channel"},
};

static gap_status check(const gap_value *cfg) {
    for (int k = 0; k < GAP_COUNTOF(params); k++)
        if (cfg[k].n != 1 && cfg[k].n != 3)
            return gap_fail(GAP_ERR_VALUE, "Normalize: %s must be 1 or 3 numbers, got %d", params[k].name, cfg[k].n);
    return GAP_OK;
}

static gap_status shape(const gap_value *cfg, int64_t h, int64_t w, int64_t c, int64_t *oh, int64_t *ow, bool *fixed) {
    for (int k = 0; k < GAP_COUNTOF(params); k++)
        if (cfg[k].n != 1 && cfg[k].n != c)
            return gap_fail(GAP_ERR_SHAPE, "Normalize: %s must be one number or one for each of the picture's %lld channels, got %d numbers",
                            params[k].name, (long long)c, cfg[k].n);
    *oh = h, *ow = w, *fixed = false;
    return GAP_OK;
}

static gap_status apply(const gap_value *cfg, const gap_aug_params *p, const gap_image *in, gap_image *out, gap_scratch *s, bool *same) {
    (void)cfg, (void)p, (void)in, (void)out, (void)s;
    *same = true; /* the first layer does it */
    return GAP_OK;
}

const gap_augment_def gap_augment_normalize = {
    .name = "Normalize", .doc = gap_augment_normalize_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .last = true, .check = check, .shape = shape, .apply = apply,
};

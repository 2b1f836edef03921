/*doc
Put pixels around a picture.

padding_mode "constant" puts `fill` there, "edge" repeats the last pixel, "reflect" mirrors without repeating it,
"symmetric" mirrors with it; padding wider than the picture mirrors again and again.

Shapes: (H, W, C) -> (H + top + bottom, W + left + right, C), uint8.
Agrees with: torchvision.transforms.Pad on PIL pictures; numpy.pad. Exactly.
*/
#include "augment/image.h"
#include "gen/docs.h"

enum { PADDING, FILL, MODE };

static const double black[] = {0};
static const gap_param params[] = {
    {"padding", GAP_INTS, .required = true, .lo = 0, .hi = 16384,
     .doc = "pixels: all sides, or (left and right, top and bottom), or (left, top, right, bottom)"},
    {"fill", GAP_INTS, .dflt_list = black, .n_dflt_list = 1, .lo = 0, .hi = 255, .doc = "level for \"constant\": one, or one per channel"},
    {"padding_mode", GAP_ENUM, .dflt = GAP_PAD_CONSTANT, .choices = gap_pad_mode_names, .doc = "what the new pixels show"},
};

static gap_status check(const gap_value *cfg) {
    int n = cfg[PADDING].n;
    if (n != 1 && n != 2 && n != 4) return gap_fail(GAP_ERR_VALUE, "Pad: padding must be 1, 2 or 4 numbers, got %d", n);
    n = cfg[FILL].n;
    if (n != 1 && n != 3) return gap_fail(GAP_ERR_VALUE, "Pad: fill must be 1 or 3 numbers, got %d", n);
    return GAP_OK;
}

static gap_status shape(const gap_value *cfg, int64_t h, int64_t w, int64_t c, int64_t *oh, int64_t *ow, bool *fixed) {
    uint8_t fill[4];
    int64_t side[4]; /* left, top, right, bottom */
    gap_status st = gap_fill_of("Pad", &cfg[FILL], c, fill);
    if (st != GAP_OK) return st;
    gap_sides_of(&cfg[PADDING], side);
    *oh = h + side[1] + side[3], *ow = w + side[0] + side[2], *fixed = false;
    return gap_image_check("Pad", *oh, *ow);
}

static gap_status apply(const gap_value *cfg, const gap_aug_params *p, const gap_image *in, gap_image *out, gap_scratch *s, bool *same) {
    (void)p;
    uint8_t fill[4];
    int64_t side[4], oh, ow;
    bool fixed;
    gap_status st = GAP_OK;
    GAP_TRY(shape(cfg, in->h, in->w, in->c, &oh, &ow, &fixed));
    GAP_TRY(gap_fill_of("Pad", &cfg[FILL], in->c, fill));
    gap_sides_of(&cfg[PADDING], side);
    *same = oh == in->h && ow == in->w;
    if (!*same) GAP_TRY(gap_image_window(in, out, -side[1], -side[0], oh, ow, (gap_pad_mode)cfg[MODE].i, fill, s));
done:
    return st;
}

const gap_augment_def gap_augment_pad = {
    .name = "Pad", .doc = gap_augment_pad_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .check = check, .shape = shape, .apply = apply,
};

/*doc
Cut the middle out of a picture; one that is smaller is first padded with zeros around.

Where the room is odd, the place is rounded half to even, as Python's round does; an odd pixel of padding goes to the right
and to the bottom.

Shapes: (H, W, C) -> (size, C), uint8.
Agrees with: torchvision.transforms.CenterCrop, exactly.
*/
#include <math.h>

#include "augment/image.h"
#include "gen/docs.h"

static const gap_param params[] = {
    {"size", GAP_PAIR, .required = true, .lo = 1, .hi = 65536, .doc = "pixels: both sides, or (height, width)"},
};

static gap_status shape(const gap_value *cfg, int64_t h, int64_t w, int64_t c, int64_t *oh, int64_t *ow, bool *fixed) {
    (void)h, (void)w, (void)c;
    *oh = cfg[0].i, *ow = cfg[0].i2, *fixed = true;
    return gap_image_check("CenterCrop", *oh, *ow);
}

/* Where the window begins on an axis; negative: that much padding before. */
static int64_t start_of(int64_t size, int64_t crop) {
    return size >= crop ? (int64_t)rint((double)(size - crop) / 2) : -((crop - size) / 2);
}

static gap_status apply(const gap_value *cfg, const gap_aug_params *p, const gap_image *in, gap_image *out, gap_scratch *s, bool *same) {
    static const uint8_t black[4];
    (void)p;
    *same = in->h == cfg[0].i && in->w == cfg[0].i2;
    if (*same) return GAP_OK;
    return gap_image_window(in, out, start_of(in->h, cfg[0].i), start_of(in->w, cfg[0].i2), cfg[0].i, cfg[0].i2, GAP_PAD_CONSTANT,
                            black, s);
}

const gap_augment_def gap_augment_center_crop = {
    .name = "CenterCrop", .doc = gap_augment_center_crop_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .shape = shape, .apply = apply,
};

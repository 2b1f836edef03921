/*doc
Mirror a picture left to right, with probability p.

Shapes: (H, W, C) -> the same, uint8.
Draws: one number in [0, 1); the picture is mirrored where it is < p.
Agrees with: torchvision.transforms.RandomHorizontalFlip in distribution; PIL's FLIP_LEFT_RIGHT, exactly.
*/
#include "augment/image.h"
#include "gen/docs.h"

static const gap_param params[] = {
    {"p", GAP_FLOAT, .dflt = 0.5, .lo = 0, .hi = 1, .doc = "probability"},
};
static const char *const drawn[] = {"flipped", NULL};

static gap_status sample(const gap_value *cfg, gap_draws *d, int64_t h, int64_t w, gap_aug_params *out) {
    (void)h, (void)w;
    out->v[0] = gap_draws_uniform(d) < cfg[0].f[0] ? 1 : 0;
    return GAP_OK;
}

static gap_status apply(const gap_value *cfg, const gap_aug_params *p, const gap_image *in, gap_image *out, gap_scratch *s, bool *same) {
    (void)cfg;
    *same = p->v[0] == 0;
    if (*same) return GAP_OK;
    gap_status st = gap_image_reserve(out, in->h, in->w, in->c);
    if (st != GAP_OK) return st;
    size_t bytes = (size_t)(in->w * in->c);
    for (int64_t y = 0; y < in->h; y++)
        s->kernels->image->mirror_row(out->data + (size_t)y * bytes, in->data + (size_t)y * bytes, in->w, in->c);
    return GAP_OK;
}

const gap_augment_def gap_augment_random_horizontal_flip = {
    .name = "RandomHorizontalFlip", .doc = gap_augment_random_horizontal_flip_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .random = true, .drawn = drawn, .sample = sample, .apply = apply,
};

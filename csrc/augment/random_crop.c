/*doc
Cut a window of the given size out of a picture, at a random place, after padding.

`padding` is put around first; with pad_if_needed a side that is still too short gets what it lacks on both its ends. Every
place is equally likely. A picture too small for the window is an error that names the sample.

Shapes: (H, W, C) -> (size, C), uint8.
Draws: top in [0, H' - height], then left in [0, W' - width], whole numbers, H' and W' after padding.
Agrees with: torchvision.transforms.RandomCrop in distribution; equal pixels for equal top and left.
*/
#include "augment/image.h"
#include "gen/docs.h"

enum { SIZE, PADDING, PAD_IF_NEEDED, FILL, MODE };

static const double black[] = {0};
static const gap_param params[] = {
    {"size", GAP_PAIR, .required = true, .lo = 1, .hi = 65536, .doc = "pixels: both sides, or (height, width)"},
    {"padding", GAP_INTS, .optional = true, .dflt_none = true, .lo = 0, .hi = 16384,
     .doc = "pixels: all sides, or (left and right, top and bottom), or (left, top, right, bottom)"},
    {"pad_if_needed", GAP_BOOL, .dflt = 0, .doc = "pad pictures that are smaller than size instead of refusing them"},
    {"fill", GAP_INTS, .dflt_list = black, .n_dflt_list = 1, .lo = 0, .hi = 255, .doc = "level for \"constant\": one, or one per channel"},
    {"padding_mode", GAP_ENUM, .dflt = GAP_PAD_CONSTANT, .choices = gap_pad_mode_names, .doc = "what the new pixels show"},
};
static const char *const drawn[] = {"top", "left", NULL};

static gap_status check(const gap_value *cfg) {
    int n = cfg[PADDING].n;
    if (!cfg[PADDING].none && n != 1 && n != 2 && n != 4)
        return gap_fail(GAP_ERR_VALUE, "RandomCrop: padding must be 1, 2 or 4 numbers, got %d", n);
    n = cfg[FILL].n;
    if (n != 1 && n != 3) return gap_fail(GAP_ERR_VALUE, "RandomCrop: fill must be 1 or 3 numbers, got %d", n);
    return GAP_OK;
}

/* An axis after both paddings: `before` and `after` of the first, `extra` on both ends of the second, `size` with all. */
typedef struct { int64_t before, padded, extra, size; } axis;

static axis axis_of(const gap_value *cfg, int64_t size, int64_t crop, int64_t before, int64_t after) {
    axis a = {.before = before, .padded = size + before + after};
    if (cfg[PAD_IF_NEEDED].i && a.padded < crop) a.extra = crop - a.padded;
    a.size = a.padded + 2 * a.extra;
    return a;
}

static void axes_of(const gap_value *cfg, int64_t h, int64_t w, axis *y, axis *x) {
    int64_t side[4] = {0, 0, 0, 0}; /* left, top, right, bottom */
    if (!cfg[PADDING].none) gap_sides_of(&cfg[PADDING], side);
    *y = axis_of(cfg, h, cfg[SIZE].i, side[1], side[3]);
    *x = axis_of(cfg, w, cfg[SIZE].i2, side[0], side[2]);
}

static gap_status shape(const gap_value *cfg, int64_t h, int64_t w, int64_t c, int64_t *oh, int64_t *ow, bool *fixed) {
    uint8_t fill[4];
    axis y, x;
    gap_status st = gap_fill_of("RandomCrop", &cfg[FILL], c, fill);
    if (st != GAP_OK) return st;
    *oh = cfg[SIZE].i, *ow = cfg[SIZE].i2, *fixed = true;
    axes_of(cfg, h, w, &y, &x);
    if (y.size < *oh || x.size < *ow)
        return gap_fail(GAP_ERR_SHAPE, "RandomCrop: size (%lld, %lld) must fit into the picture, which is (%lld, %lld) with its padding; "
                        "use a smaller size, pad_if_needed=True, or RandomResizedCrop",
                        (long long)*oh, (long long)*ow, (long long)y.size, (long long)x.size);
    return gap_image_check("RandomCrop", *oh, *ow);
}

static gap_status sample(const gap_value *cfg, gap_draws *d, int64_t h, int64_t w, gap_aug_params *out) {
    axis y, x;
    axes_of(cfg, h, w, &y, &x);
    out->v[0] = (double)gap_draws_below(d, y.size - cfg[SIZE].i + 1);
    out->v[1] = (double)gap_draws_below(d, x.size - cfg[SIZE].i2 + 1);
    return GAP_OK;
}

static void map_of(int32_t *map, int64_t n, int64_t start, const axis *a, int64_t size, gap_pad_mode mode) {
    gap_axis_window(map, n, start - a->extra, a->padded, mode); /* the second padding surrounds the first: undone first */
    gap_axis_unpad(map, n, a->before, size, mode);
}

static gap_status apply(const gap_value *cfg, const gap_aug_params *p, const gap_image *in, gap_image *out, gap_scratch *s, bool *same) {
    uint8_t fill[4];
    axis y, x;
    int64_t oh = cfg[SIZE].i, ow = cfg[SIZE].i2, top = (int64_t)p->v[0], left = (int64_t)p->v[1];
    gap_pad_mode mode = (gap_pad_mode)cfg[MODE].i;
    gap_status st = GAP_OK;
    axes_of(cfg, in->h, in->w, &y, &x);
    *same = y.size == in->h && x.size == in->w && oh == in->h && ow == in->w;
    if (*same) return GAP_OK;
    GAP_TRY(gap_fill_of("RandomCrop", &cfg[FILL], in->c, fill));
    if (y.extra == 0 && x.extra == 0) return gap_image_window(in, out, top - y.before, left - x.before, oh, ow, mode, fill, s);
    GAP_TRY(gap_image_reserve(out, oh, ow, in->c));
    GAP_TRY(gap_scratch_reserve(s, (size_t)(oh + ow) * sizeof(int32_t)));
    int32_t *rows = s->mem, *columns = rows + oh; /* (oh), (ow) */
    map_of(rows, oh, top, &y, in->h, mode);
    map_of(columns, ow, left, &x, in->w, mode);
    gap_image_gather(out, in, rows, columns, fill);
done:
    return st;
}

const gap_augment_def gap_augment_random_crop = {
    .name = "RandomCrop", .doc = gap_augment_random_crop_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .random = true, .drawn = drawn, .check = check, .shape = shape, .sample = sample, .apply = apply,
};

/* Pillow's resize, bit for bit: the same coefficients in double, the same rounding to 22 bits, a byte between the two passes,
 * and the same order of passes, for the byte between makes that matter. A pass that would change nothing is left out. */
#include <math.h>
#include <string.h>

#include "augment/image.h"

const char *const gap_filter_names[] = {"nearest", "bilinear", "bicubic", "box", "lanczos", NULL};

static double sinc(double x) { return x == 0 ? 1 : gap_exact_sinpi(x) / (x * 3.14159265358979323846); }

static double filter_value(gap_filter filter, double x) {
    switch (filter) {
    case GAP_FILTER_BOX: return x > -0.5 && x <= 0.5 ? 1 : 0;
    case GAP_FILTER_BILINEAR:
        x = fabs(x);
        return x < 1 ? 1 - x : 0;
    case GAP_FILTER_BICUBIC: { /* Keys 1981, with a = -1/2 */
        const double a = -0.5;
        x = fabs(x);
        if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
        return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    }
    case GAP_FILTER_LANCZOS: return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
    case GAP_FILTER_NEAREST: break;
    }
    return 0;
}

static double filter_support(gap_filter filter) {
    static const double support[] = {0.5, 1, 2, 0.5, 3};
    return support[filter];
}

/* How an axis of `in` pixels becomes one of `out`. */
typedef struct {
    int64_t in, out, width; /* width: most pixels that one output pixel needs */
    double scale, widen, support;
} axis;

static axis axis_of(int64_t in, int64_t out, gap_filter filter, bool antialias) {
    axis a = {.in = in, .out = out};
    a.scale = (double)in / (double)out;
    a.widen = antialias && a.scale > 1 ? a.scale : 1;
    a.support = filter_support(filter) * a.widen;
    a.width = (int64_t)ceil(a.support) * 2 + 1;
    if (a.width > in) a.width = in;
    return a;
}

/* Rounds half away from zero to a whole number of 2^-22, as Pillow does. */
static int32_t to_fixed(double k) {
    const double one = 1 << GAP_IMAGE_BITS;
    return (int32_t)(k < 0 ? k * one - 0.5 : k * one + 0.5);
}

/* Fills first, count (out) and k (out, width); `weight` has room for width doubles. */
static void make_taps(const axis *a, gap_filter filter, int32_t *first, int32_t *count, int32_t *k, double *weight) {
    double narrow = 1 / a->widen;
    for (int64_t x = 0; x < a->out; x++, k += a->width) {
        double center = ((double)x + 0.5) * a->scale, sum = 0;
        int64_t lo = (int64_t)(center - a->support + 0.5), hi = (int64_t)(center + a->support + 0.5);
        if (lo < 0) lo = 0;
        if (hi > a->in) hi = a->in;
        if (hi - lo > a->width) hi = lo + a->width;
        for (int64_t j = 0; j < hi - lo; j++) {
            weight[j] = filter_value(filter, ((double)(j + lo) - center + 0.5) * narrow);
            sum += weight[j];
        }
        for (int64_t j = 0; j < hi - lo; j++) k[j] = to_fixed(sum != 0 ? weight[j] / sum : weight[j]);
        first[x] = (int32_t)lo;
        count[x] = (int32_t)(hi - lo);
    }
}

/* Hands out pieces of one block; with base NULL it only counts. */
typedef struct { uint8_t *base; size_t used; } carver;

static void *carve(carver *c, size_t bytes) {
    void *p = c->base != NULL ? c->base + c->used : NULL;
    c->used += (bytes + GAP_ALIGN - 1) / GAP_ALIGN * GAP_ALIGN;
    return p;
}

typedef struct {
    axis a;
    int32_t *first, *count, *k;
} axis_taps;

static void carve_taps(carver *c, axis_taps *t) {
    t->first = carve(c, (size_t)t->a.out * sizeof(int32_t));
    t->count = carve(c, (size_t)t->a.out * sizeof(int32_t));
    t->k = carve(c, (size_t)t->a.out * (size_t)t->a.width * sizeof(int32_t));
}

typedef struct {
    axis_taps x, y;
    double *weight;       /* max width of the two axes */
    uint8_t *strip;
    uint8_t *between;     /* (rows needed, ow, c) or (oh, w, c): what lies between the passes */
} workspace;

/* Pillow's rule since 13.0 (before, rows always came first). */
static bool columns_first(const axis *y, const axis *x) {
    int64_t dy = y->in - y->out, dx = x->in - x->out;
    return dy > 0 && dy > 2 * dx;
}

static size_t carve_all(carver *c, workspace *w, int64_t channels) {
    carve_taps(c, &w->x);
    carve_taps(c, &w->y);
    int64_t widest = w->x.a.width > w->y.a.width ? w->x.a.width : w->y.a.width;
    w->weight = carve(c, (size_t)widest * sizeof(double));
    w->strip = carve(c, gap_image_strip_bytes(w->x.a.in, w->x.a.out, channels));
    int64_t pixels = columns_first(&w->y.a, &w->x.a) ? w->y.a.out * w->x.a.in : w->y.a.in * w->x.a.out;
    w->between = carve(c, (size_t)(pixels * channels));
    return c->used;
}

static void pass_rows(const workspace *w, const gap_kernels *kernels, uint8_t *dst, const uint8_t *src, size_t src_stride,
                      int64_t rows, int64_t c) {
    gap_taps taps = {w->x.a.out, w->x.a.width, w->x.first, w->x.count, w->x.k};
    size_t stride = (size_t)(w->x.a.out * c);
    for (int64_t y = 0; y < rows; y += GAP_IMAGE_ROWS) {
        int n = rows - y < GAP_IMAGE_ROWS ? (int)(rows - y) : GAP_IMAGE_ROWS;
        kernels->image->resample_rows(dst + (size_t)y * stride, stride, src + (size_t)y * src_stride, src_stride, n, w->x.a.in, c,
                                      &taps, w->strip);
    }
}

/* Rows of n bytes. src points at row 0 of the axis, less `skipped` rows that were never made. */
static void pass_columns(const workspace *w, const gap_kernels *kernels, uint8_t *dst, const uint8_t *src, size_t src_stride,
                         int64_t skipped, size_t n) {
    for (int64_t y = 0; y < w->y.a.out; y++)
        kernels->image->resample_column(dst + (size_t)y * n, src + (size_t)(w->y.first[y] - skipped) * src_stride, src_stride, n,
                                        w->y.k + y * w->y.a.width, w->y.count[y]);
}

/* Pillow walks along an axis by adding the step; multiplying would fall on other pixels at times. */
static void nearest_map(int32_t *map, int64_t out, int64_t start, int64_t in) {
    double step = (double)in / (double)out, at = step * 0.5;
    for (int64_t i = 0; i < out; i++, at += step) {
        int64_t p = (int64_t)at;
        map[i] = (int32_t)(start + (p < in ? p : in - 1));
    }
}

static gap_status nearest(const gap_image *in, gap_image *out, int64_t top, int64_t left, int64_t h, int64_t w, gap_scratch *s) {
    static const uint8_t none[4];
    gap_status st = GAP_OK;
    GAP_TRY(gap_scratch_reserve(s, (size_t)(out->h + out->w) * sizeof(int32_t)));
    int32_t *rows = s->mem, *columns = rows + out->h; /* (oh), (ow) */
    nearest_map(rows, out->h, top, h);
    nearest_map(columns, out->w, left, w);
    gap_image_gather(out, in, rows, columns, none);
done:
    return st;
}

gap_status gap_image_resample(const gap_image *in, gap_image *out, int64_t top, int64_t left, int64_t h, int64_t w, int64_t oh,
                              int64_t ow, gap_filter filter, bool antialias, gap_scratch *s) {
    static const uint8_t none[4];
    gap_status st = GAP_OK;
    GAP_TRY(gap_image_check("Resize", oh, ow));
    if (oh == h && ow == w) return gap_image_window(in, out, top, left, h, w, GAP_PAD_EDGE, none, s);
    GAP_TRY(gap_image_reserve(out, oh, ow, in->c));
    if (filter == GAP_FILTER_NEAREST) return nearest(in, out, top, left, h, w, s);

    int64_t c = in->c;
    workspace ws = {.x.a = axis_of(w, ow, filter, antialias), .y.a = axis_of(h, oh, filter, antialias)};
    carver count = {0};
    GAP_TRY(gap_scratch_reserve(s, carve_all(&count, &ws, c)));
    carver take = {.base = s->mem};
    carve_all(&take, &ws, c);
    make_taps(&ws.x.a, filter, ws.x.first, ws.x.count, ws.x.k, ws.weight);
    make_taps(&ws.y.a, filter, ws.y.first, ws.y.count, ws.y.k, ws.weight);

    size_t stride = (size_t)(in->w * c), in_bytes = (size_t)(w * c), out_bytes = (size_t)(ow * c);
    const uint8_t *src = in->data + (size_t)top * stride + left * c; /* (h, w, c) inside (in->h, in->w, c) */
    if (oh == h) {
        pass_rows(&ws, s->kernels, out->data, src, stride, h, c);
    } else if (ow == w) {
        pass_columns(&ws, s->kernels, out->data, src, stride, 0, out_bytes);
    } else if (columns_first(&ws.y.a, &ws.x.a)) {
        pass_columns(&ws, s->kernels, ws.between, src, stride, 0, in_bytes);
        pass_rows(&ws, s->kernels, out->data, ws.between, in_bytes, oh, c);
    } else { /* rows that no output row needs are not made */
        int64_t y0 = ws.y.first[0], y1 = ws.y.first[oh - 1] + ws.y.count[oh - 1];
        pass_rows(&ws, s->kernels, ws.between, src + (size_t)y0 * stride, stride, y1 - y0, c);
        pass_columns(&ws, s->kernels, out->data, ws.between, out_bytes, y0, out_bytes);
    }
done:
    return st;
}

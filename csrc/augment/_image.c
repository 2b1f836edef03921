#include <math.h>
#include <string.h>

#include "augment/image.h"

const char *const gap_pad_mode_names[] = {"constant", "edge", "reflect", "symmetric", NULL};

gap_status gap_image_check(const char *owner, int64_t h, int64_t w) {
    if (h < 1 || w < 1 || h > GAP_IMAGE_MAX_SIDE || w > GAP_IMAGE_MAX_SIDE || h * w > GAP_IMAGE_MAX_PIXELS)
        return gap_fail(GAP_ERR_SHAPE, "%s: the picture would be (%lld, %lld); each side must be >= 1, and all of it at most %lld pixels",
                        owner, (long long)h, (long long)w, (long long)GAP_IMAGE_MAX_PIXELS);
    return GAP_OK;
}

gap_status gap_image_reserve(gap_image *im, int64_t h, int64_t w, int64_t c) {
    int64_t pixels, bytes;
    gap_status st = gap_size_mul(&pixels, h, w);
    if (st == GAP_OK) st = gap_size_mul(&bytes, pixels, c);
    if (st != GAP_OK) return st;
    if ((size_t)bytes > im->capacity || im->data == NULL) {
        uint8_t *data = NULL; /* (h, w, c) */
        st = gap_alloc_dirty(&data, (size_t)bytes, 1);
        if (st != GAP_OK) return st;
        gap_free(im->data);
        im->data = data;
        im->capacity = (size_t)bytes;
    }
    im->h = h, im->w = w, im->c = c;
    return GAP_OK;
}

void gap_image_free(gap_image *im) {
    gap_free(im->data);
    *im = (gap_image){0};
}

gap_status gap_scratch_reserve(gap_scratch *s, size_t bytes) {
    if (bytes <= s->bytes && s->mem != NULL) return GAP_OK;
    void *mem = NULL;
    gap_status st = gap_alloc_dirty(&mem, bytes, 1);
    if (st != GAP_OK) return st;
    gap_free(s->mem);
    s->mem = mem;
    s->bytes = bytes;
    return GAP_OK;
}

/* A place outside an axis of n pixels, brought inside as numpy.pad does; reflect leaves the edge out, symmetric repeats it. */
static int64_t fold(int64_t i, int64_t n, gap_pad_mode mode) {
    if (i >= 0 && i < n) return i;
    if (mode == GAP_PAD_CONSTANT) return -1;
    if (mode == GAP_PAD_EDGE || n == 1) return i < 0 ? 0 : n - 1;
    int64_t period = mode == GAP_PAD_REFLECT ? 2 * n - 2 : 2 * n;
    i %= period;
    if (i < 0) i += period;
    if (i < n) return i;
    return mode == GAP_PAD_REFLECT ? period - i : period - 1 - i;
}

void gap_axis_window(int32_t *map, int64_t n, int64_t start, int64_t size, gap_pad_mode mode) {
    for (int64_t i = 0; i < n; i++) map[i] = (int32_t)fold(start + i, size, mode);
}

void gap_axis_unpad(int32_t *map, int64_t n, int64_t before, int64_t size, gap_pad_mode mode) {
    for (int64_t i = 0; i < n; i++)
        if (map[i] >= 0) map[i] = (int32_t)fold(map[i] - before, size, mode);
}

gap_status gap_fill_of(const char *owner, const gap_value *v, int64_t c, uint8_t fill[4]) {
    if (v->n != 1 && v->n != c)
        return gap_fail(GAP_ERR_SHAPE, "%s: fill must be one number or one for each of the picture's %lld channels, got %d numbers",
                        owner, (long long)c, v->n);
    for (int k = 0; k < 4; k++) fill[k] = (uint8_t)v->f[v->n == 1 ? 0 : k < v->n ? k : 0];
    return GAP_OK;
}

void gap_sides_of(const gap_value *v, int64_t side[4]) {
    for (int k = 0; k < 4; k++) side[k] = (int64_t)v->f[v->n == 4 ? k : v->n == 2 ? k % 2 : 0];
}

static void put(uint8_t *dst, const uint8_t *src, int64_t c) {
    for (int64_t ch = 0; ch < c; ch++) dst[ch] = src[ch];
}

/* One row; the run of columns [a, b) that lie side by side in `src` is copied at once. */
static void gather_row(uint8_t *dst, const uint8_t *src, const int32_t *columns, int64_t a, int64_t b, int64_t w, int64_t c,
                       const uint8_t *fill) {
    for (int64_t x = 0; x < a; x++) put(dst + x * c, columns[x] < 0 ? fill : src + columns[x] * c, c);
    if (b > a) memcpy(dst + a * c, src + columns[a] * c, (size_t)((b - a) * c));
    for (int64_t x = b; x < w; x++) put(dst + x * c, columns[x] < 0 ? fill : src + columns[x] * c, c);
}

/* The longest run of columns whose places follow each other. */
static void longest_run(const int32_t *columns, int64_t w, int64_t *a, int64_t *b) {
    *a = *b = 0;
    for (int64_t x = 0; x < w;) {
        int64_t end = x + 1;
        while (end < w && columns[x] >= 0 && columns[end] == columns[end - 1] + 1) end++;
        if (columns[x] >= 0 && end - x > *b - *a) *a = x, *b = end;
        x = end;
    }
}

void gap_image_gather(gap_image *out, const gap_image *in, const int32_t *rows, const int32_t *columns, const uint8_t fill[4]) {
    int64_t w = out->w, c = out->c, a, b;
    size_t bytes = (size_t)(w * c);
    longest_run(columns, w, &a, &b);
    const uint8_t *blank = NULL; /* the first row of fill, once there is one */
    for (int64_t y = 0; y < out->h; y++) {
        uint8_t *dst = out->data + (size_t)y * bytes; /* (w, c) */
        if (rows[y] >= 0) {
            gather_row(dst, in->data + (size_t)(rows[y] * in->w * c), columns, a, b, w, c, fill);
        } else if (blank != NULL) {
            memcpy(dst, blank, bytes);
        } else {
            for (int64_t x = 0; x < w; x++) put(dst + x * c, fill, c);
            blank = dst;
        }
    }
}

gap_status gap_image_window(const gap_image *in, gap_image *out, int64_t top, int64_t left, int64_t h, int64_t w, gap_pad_mode mode,
                            const uint8_t fill[4], gap_scratch *s) {
    gap_status st = GAP_OK;
    GAP_TRY(gap_image_reserve(out, h, w, in->c));
    if (top >= 0 && left >= 0 && top + h <= in->h && left + w <= in->w) { /* inside: rows as they are */
        size_t bytes = (size_t)(w * in->c);
        for (int64_t y = 0; y < h; y++)
            memcpy(out->data + (size_t)y * bytes, in->data + (size_t)(((top + y) * in->w + left) * in->c), bytes);
        return GAP_OK;
    }
    GAP_TRY(gap_scratch_reserve(s, (size_t)(h + w) * sizeof(int32_t)));
    int32_t *rows = s->mem, *columns = rows + h; /* (h), (w) */
    gap_axis_window(rows, h, top, in->h, mode);
    gap_axis_window(columns, w, left, in->w, mode);
    gap_image_gather(out, in, rows, columns, fill);
done:
    return st;
}

/* x = k ln 2 + r; exp(r) by its series on |r| <= 0.35, 18 terms: below 1e-16 of the value. */
double gap_exact_exp(double x) {
    double k = rint(x / 0.69314718055994530942);
    double r = x - k * 0.693147180369123816490 - k * 1.90821492927058770002e-10; /* ln 2 in two parts */
    double sum = 1;
    for (int n = 18; n >= 1; n--) sum = 1 + r / n * sum;
    return ldexp(sum, (int)k);
}

/* x = m 2^k, m in [0.7, 1.42); log m = 2 atanh((m - 1) / (m + 1)) by its series. */
double gap_exact_log(double x) {
    int k;
    double m = frexp(x, &k);
    if (m < 0.70710678118654752440) m *= 2, k--;
    double t = (m - 1) / (m + 1), t2 = t * t, sum = 0;
    for (int n = 23; n >= 1; n -= 2) sum = sum * t2 + 1.0 / n;
    return 2 * t * sum + k * 0.69314718055994530942;
}

/* Brought to |r| <= 1/2 without rounding, then the series of sin(pi r), 12 terms. */
double gap_exact_sinpi(double x) {
    double n = rint(x), r = (x - n) * 3.14159265358979323846, r2 = r * r, sum = 1;
    for (int k = 12; k >= 1; k--) sum = 1 - r2 / (2.0 * k * (2.0 * k + 1)) * sum;
    sum *= r;
    return fmod(n, 2) == 0 ? sum : -sum;
}

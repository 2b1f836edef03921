#include "ops/conv_strassen.h"

#include "core/shape.h"

#define PAIR 512 /* floats: tiles of two output blocks that one input block has */

bool gap_strassen_pays(int64_t in_blocks, int64_t out_blocks, int64_t pixels) {
    const int64_t least = pixels >= 128 ? 8 : 24; /* measured: short halves want long chains and many results */
    return in_blocks % 2 == 0 && in_blocks >= least && out_blocks >= least && pixels >= 32;
}

int64_t gap_strassen_group(int64_t in_blocks) {
    const int64_t pairs = in_blocks / 2;
    return 2 * gap_ceil_div(pairs, gap_ceil_div(2 * pairs, STRASSEN_BLOCKS));
}

/* ---- weights: (matrix, out of two, pair of input blocks, 256) ---- */

/* In the order of their use. T4: B21 - T2, T2: B22 - T1, T3: B22 - B12. */
typedef enum { B11, B21, T2, T1, B22, T3, T4, MATRICES } matrix;

int64_t gap_strassen_weights(int64_t in_blocks) { return MATRICES * in_blocks / 2 * PAIR; }

void gap_strassen_pack(int64_t in_blocks, int64_t pair, const float *tiles, float *to) {
    const int64_t pairs = in_blocks / 2;
    for (int64_t l = 0; l < 2; l++) {
        const float *left = tiles + l * 256, *right = left + 512;
        float *at = to + (l * pairs + pair) * 256;
        for (int64_t k = 0; k < 256; k++) {
            const float b11 = left[k], b12 = right[k], b21 = left[1024 + k], b22 = right[1024 + k], t1 = b12 - b11, t2 = b22 - t1;
            float *one = at + k;
            one[B11 * pairs * PAIR] = b11, one[B21 * pairs * PAIR] = b21, one[T2 * pairs * PAIR] = t2, one[T1 * pairs * PAIR] = t1;
            one[B22 * pairs * PAIR] = b22, one[T3 * pairs * PAIR] = b22 - b12, one[T4 * pairs * PAIR] = b21 - t2;
        }
    }
}

/* ---- where halves lie: of each image the lower half of its pixels, the last one too of an odd number, and the upper half ---- */

typedef enum { S1, S2, S3, S4, SUMS } sum;

static int64_t half_of(int64_t pixels) { return gap_ceil_div(pixels, 2); }

int64_t gap_strassen_scratch(int64_t blocks, int64_t images, int64_t pixels) { return (SUMS * blocks / 2 + 4) * images * half_of(pixels) * 16; }

/* In the scratch: the sums, (sum, pair of blocks, image, half, 16), t and x, (2 blocks, image, half, 16). */
static int64_t plane_of(const gap_conv_rows *r) { return r->rows * half_of(r->pixels) * 16; }
static float *sum_of(const gap_strassen *s, const gap_conv_rows *r, sum which) { return s->scratch + which * r->blocks / 2 * plane_of(r); }
static float *t_of(const gap_strassen *s, const gap_conv_rows *r) { return sum_of(s, r, SUMS); }
static float *x_of(const gap_strassen *s, const gap_conv_rows *r) { return t_of(s, r) + 2 * plane_of(r); }

/* A quarter of a matrix: half of the pixels; odd input blocks, or the right two output blocks. */
typedef struct { bool upper, second; } quarter;
static const quarter lower_first = {false, false}, lower_second = {false, true}, upper_first = {true, false}, upper_second = {true, true};

static int64_t input_at(const gap_conv_rows *r, quarter of) { return of.second * r->a_block + (of.upper ? r->pixels / 2 * 16 : 0); }
/* Results of the upper half begin behind the lower one. */
static float *output_at(const gap_conv_rows *r, quarter of) { return r->y + 2 * of.second * r->y_oc + (of.upper ? half_of(r->pixels) * 16 : 0); }
static const float *bias_at(const gap_conv_rows *r, quarter of) { return r->bias ? r->bias + of.second * 32 : NULL; }
static int64_t skipped(const gap_conv_rows *r, quarter of) { return of.upper ? r->pixels % 2 : 0; }

/* ---- sums ---- */

void gap_strassen_sums(const gap_strassen *s, const gap_conv_rows *r) {
    const int64_t half = half_of(r->pixels), lower = input_at(r, lower_second), upper = input_at(r, upper_first);
    for (int64_t pair = 0; pair < r->blocks / 2; pair++)
        for (int64_t image = 0; image < r->rows; image++) {
            const float *from = r->a + 2 * pair * r->a_block + image * r->a_row;
            const int64_t to = pair * plane_of(r) + image * half * 16;
            const float *const a[4] = {from, from + lower, from + upper, from + lower + upper};
            float *const sums[4] = {sum_of(s, r, S1) + to, sum_of(s, r, S2) + to, sum_of(s, r, S3) + to, sum_of(s, r, S4) + to};
            s->k->halves(half, a, sums);
        }
}

/* ---- products ---- */

/* What the kernel fetches on the way: that quarter of what r->ahead speaks of; */
static gap_conv_ahead input_ahead(const gap_conv_rows *r, quarter of) {
    gap_conv_ahead a = r->ahead;
    for (int j = 0; j < 2; j++) a.at[j] += of.second * a.block + (of.upper ? r->pixels / 2 * 16 : 0);
    a.block *= 2, a.blocks /= 2;
    return a;
}
/* or a quarter of the output that nothing has touched; */
static gap_conv_ahead output_ahead(const gap_conv_rows *r, quarter of) {
    const float *y = output_at(r, of);
    return (gap_conv_ahead){{y, y + r->y_oc}, r->y_row, 0, r->blocks / 2};
}
/* or the next product's weights, which stand behind these: a line beside each pixel. */
static gap_conv_ahead weights_ahead(const gap_conv_rows *part, int64_t pairs) {
    const float *next = part->w + 2 * pairs * 256;
    return (gap_conv_ahead){{next, next + pairs * 256}, 0, 256, part->blocks};
}

/* A quarter of the input, or a sum, by b. */
static gap_conv_rows by(const gap_strassen *s, const gap_conv_rows *r, matrix b) {
    const int64_t pairs = s->in_blocks / 2;
    gap_conv_rows part = *r;
    part.blocks = r->blocks / 2, part.kc_last = 16, part.oc_blocks = 2, part.half = false, part.pixels = half_of(r->pixels);
    part.w = r->w + (b * 2 * pairs + s->first / 2) * 256, part.w_oc = pairs * 256;
    part.ahead = weights_ahead(&part, pairs);
    return part;
}

static gap_conv_rows input_by(const gap_strassen *s, const gap_conv_rows *r, quarter of, matrix b) {
    gap_conv_rows part = by(s, r, b);
    part.a = r->a + input_at(r, of), part.a_block = 2 * r->a_block;
    if (r->ahead.blocks == r->blocks) part.ahead = input_ahead(r, of);
    return part;
}

static gap_conv_rows sum_by(const gap_strassen *s, const gap_conv_rows *r, sum which, matrix b) {
    gap_conv_rows part = by(s, r, b);
    part.a = sum_of(s, r, which), part.a_block = plane_of(r), part.a_row = part.pixels * 16;
    return part;
}

static void to_array(const gap_strassen *s, gap_conv_rows part, float *array, gap_conv_start start) {
    part.y = array, part.y_oc = part.rows * part.pixels * 16, part.y_row = part.pixels * 16, part.start = start;
    s->k->rows(&part);
}

static void to_output(const gap_strassen *s, const gap_conv_rows *r, gap_conv_rows part, quarter of) {
    const int64_t skip = skipped(r, of);
    part.y = output_at(r, of), part.bias = bias_at(r, of), part.pixels -= skip, part.a += skip * 16;
    if (part.pixels > 0) s->k->rows(&part);
}

/* That quarter of the output: start + t, or start + (t + x). */
static void join(const gap_strassen *s, const gap_conv_rows *r, quarter of, gap_conv_start start, const float *t, const float *x) {
    const int64_t half = half_of(r->pixels), skip = skipped(r, of);
    const float *bias = bias_at(r, of);
    for (int64_t b = 0; b < 2; b++)
        for (int64_t image = 0; image < r->rows; image++) {
            const int64_t from = b * plane_of(r) + (image * half + skip) * 16;
            s->k->join(half - skip, output_at(r, of) + b * r->y_oc + image * r->y_row, start, bias ? bias + b * 16 : NULL, t + from, x ? x + from : NULL);
        }
}

void gap_strassen_rows(const gap_strassen *s, const gap_conv_rows *r) {
    float *const t = t_of(s, r), *const x = x_of(s, r);
    to_array(s, input_by(s, r, lower_first, B11), t, GAP_CONV_ZERO);
    to_output(s, r, input_by(s, r, lower_second, B21), lower_first);
    join(s, r, lower_first, GAP_CONV_KEEP, t, NULL);
    to_array(s, sum_by(s, r, S2, T2), t, GAP_CONV_KEEP);
    to_array(s, sum_by(s, r, S1, T1), x, GAP_CONV_ZERO);
    to_output(s, r, sum_by(s, r, S4, B22), lower_second);
    join(s, r, lower_second, GAP_CONV_KEEP, t, x);
    gap_conv_rows third = sum_by(s, r, S3, T3);
    third.ahead = output_ahead(r, upper_second);
    to_array(s, third, t, GAP_CONV_KEEP);
    to_output(s, r, input_by(s, r, upper_second, T4), upper_first);
    join(s, r, upper_second, r->start, t, x);
    join(s, r, upper_first, GAP_CONV_KEEP, t, NULL);
}

/* ---- weight gradients ---- */

void gap_strassen_input_sums(const gap_conv_kernels *k, const float *x, int64_t block, int64_t pixels, float *sums) {
    const int64_t half = pixels / 2 * 16;
    const float *const a[4] = {x, x + half, x + block, x + block + half};
    float *const s[4] = {sums, sums + half, sums + 2 * half, sums + 3 * half};
    k->halves(pixels / 2, a, s);
}

void gap_strassen_gradient_sums(const gap_conv_kernels *k, const float *d, int64_t block, int64_t pixels, float *sums) {
    const int64_t half = pixels / 2 * 16;
    for (int64_t l = 0; l < 2; l++) {
        const float *left = d + l * block, *right = left + 2 * block;
        const float *const b[4] = {left, right, left + half, right + half};
        float *const t[4] = {sums + l * half, sums + (2 + l) * half, sums + (4 + l) * half, sums + (6 + l) * half};
        k->differences(pixels / 2, b, t);
    }
}

/* Half block `which` of those that `all` speaks of. */
static gap_conv_ahead half_block(const gap_conv_ahead *all, int64_t which, int64_t half) {
    gap_conv_ahead one = *all;
    one.blocks = which < 2 * all->blocks;
    for (int j = 0; one.blocks && j < 2; j++) one.at[j] += which / 2 * all->block + which % 2 * half;
    return one;
}

/* What the two tiles of a product fetch: one half block each, of the next input in the order in which it is read, of what comes
 * behind the products, and else of the output's gradient. */
static void fetch(gap_conv_cols *c, const gap_strassen_grad *g, int product, int64_t half) {
    static const int8_t input[7] = {0, 1, -1, 3, 2, -1, -1}, behind[7] = {-1, -1, 0, -1, -1, 2, -1};
    const int64_t d = g->d_from + 2 * product;
    c->ahead[0] = half_block(&g->next_d, d, half), c->ahead[1] = half_block(&g->next_d, d + 1, half);
    if (g->next_x.blocks && input[product] >= 0) c->ahead[0] = half_block(&g->next_x, input[product], half);
    if (g->behind.blocks && behind[product] >= 0)
        for (int j = 0; j < 2; j++) c->ahead[j] = half_block(&g->behind, behind[product] + j, half);
    if (!c->ahead[0].blocks) c->ahead[0] = c->ahead[1], c->ahead[1].blocks = 0;
}

void gap_strassen_add(const gap_conv_kernels *k, const gap_strassen_grad *g) {
    const int64_t half = g->pixels / 2 * 16;
    const float *upper_x = g->x + half, *upper_d = g->d + half;
    const struct { const float *a, *d; bool sum; } product[7] = {
        {g->x, g->d, false}, {upper_x, upper_d, false}, {g->x_sums + 3 * half, upper_d + 2 * g->d_block, false},
        {upper_x + g->x_block, g->d_sums + 6 * half, true}, {g->x_sums, g->d_sums, true},
        {g->x_sums + half, g->d_sums + 2 * half, true}, {g->x_sums + 2 * half, g->d_sums + 4 * half, true},
    };
    for (int j = 0; j < 7; j++) {
        gap_conv_cols c = {.a = product[j].a, .a_px = 16, .d = product[j].d, .d_px = 16, .d_oc = product[j].sum ? half : g->d_block,
                           .pixels = g->pixels / 2, .rows = 1, .images = 1, .m = 16, .oc_blocks = 2, .dw = g->parts + j * 512, .dw_k = 16, .dw_oc = 256};
        fetch(&c, g, j, half);
        k->cols(&c);
    }
}

void gap_strassen_combine(const float *parts, float *to) {
    const float *p = parts;
    for (int64_t k = 0; k < 512; k++, p++) { /* (2 out, 16, 16) */
        const float u2 = p[0] + p[5 * 512], u3 = u2 + p[6 * 512];
        to[k] = p[0] + p[512], to[512 + k] = u2 + p[4 * 512] + p[2 * 512];
        to[1024 + k] = u3 + p[3 * 512], to[1536 + k] = u3 + p[4 * 512];
    }
}

/* conv_pointwise.c — the plan, packed weights, loading and products; the forward pass. */
#include "ops/conv_pointwise.h"

#include <string.h>

#include "kernels/conv.h"
#include "kernels/stream.h"
#include "ops/conv_strassen.h"
#include "ops/scratch.h"

#define LOADED ((int64_t)256 << 10) /* bytes of input in scratch: what stays in the second cache beside weights and output */
#define UNITS_PER_THREAD 4
#define SPAN ((int64_t)224) /* pixels that go by Strassen's method at once: many for each reading of the weights, few for the second cache */
#define TILES 28            /* pixels of which a span has a multiple, where a piece has several */

/* ---- plan ---- */

bool gap_pointwise_fits(const gap_op *op) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    const gap_desc *x = &op->in_desc[0];
    return x->layout == GAP_BLOCKED && x->cb == 16 && a->groups == 1 && a->kernel[0] == 1 && a->kernel[1] == 1 && a->padding[0] == 0 && a->padding[1] == 0;
}

/* About equal parts of a band, of which the halves are whole tiles of the widest kernel. */
static int64_t span_of(int64_t band) {
    const int64_t equal = gap_ceil_div(band, gap_ceil_div(band, SPAN));
    return equal == band ? band : gap_min64(SPAN, gap_ceil_div(equal, TILES) * TILES);
}

/* What of the output's gradient is in scratch at once: a whole piece, if it fits, so that the input's blocks may pass by it one
 * after another; else a segment of it; else only some blocks of that. */
static void plan_tile(gap_pointwise *p, int64_t band) {
    const int64_t vectors = LOADED / 64;
    p->tile = p->fast_back ? span_of(band) : p->out_blocks * p->images * band <= vectors ? band : p->segment;
    const int64_t whole = p->fast_back ? gap_strassen_group(p->out_blocks) : POINTWISE_CHAIN;
    const int64_t fits = vectors * 3 / 2 / (p->images * p->tile) / whole * whole;
    p->group = gap_min64(p->out_blocks, gap_max64(fits, whole));
}

/* Weight gradients by halves: whole pairs and fours of blocks, and an even number of pixels wherever they are cut. */
static bool fits_grad(const gap_pointwise *p, int64_t band) {
    return p->images == 1 && p->out_h * p->out_w >= POINTWISE_SEGMENT && p->out_h * p->out_w % 2 == 0 && band % 2 == 0 &&
           p->in_blocks % 2 == 0 && p->out_blocks % STRASSEN_WIDE == 0 && p->group % STRASSEN_WIDE == 0;
}

void gap_pointwise_plan(gap_pointwise *p, const gap_op *op, int64_t capacity, bool strassen) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    const gap_desc *x = &op->in_desc[0], *y = &op->out_desc[0];
    memset(p, 0, sizeof *p);
    p->in_c = x->dim[0], p->in_blocks = gap_ceil_div(p->in_c, 16), p->in_h = x->dim[1], p->in_w = x->dim[2];
    p->out_c = y->dim[0], p->out_blocks = gap_ceil_div(p->out_c, 16), p->out_h = y->dim[1], p->out_w = y->dim[2];
    p->stride[0] = a->stride[0], p->stride[1] = a->stride[1];
    p->in_piece = gap_piece_rows(p->in_h, p->in_w), p->out_piece = gap_piece_rows(p->out_h, p->out_w);
    const int64_t band = gap_ceil_div(p->in_piece, p->stride[0]) * p->out_w;
    p->images = p->in_piece == p->in_h ? gap_max64(1, POINTWISE_SEGMENT / band) : 1;
    p->segment = gap_ceil_div(band, gap_ceil_div(band, POINTWISE_SEGMENT));
    p->wide = p->out_h * p->out_w <= 6 ? 4 : 2;
    p->fast_ahead = strassen && gap_strassen_pays(p->in_blocks, p->out_blocks, p->out_h * p->out_w);
    p->fast_back = strassen && p->stride[0] * p->stride[1] == 1 && gap_strassen_pays(p->out_blocks, p->in_blocks, p->out_h * p->out_w);
    plan_tile(p, band);
    p->fast_grad = p->fast_back && fits_grad(p, band);
    p->chunks = gap_reduce_chunks(gap_ceil_div(capacity, p->images), (size_t)(p->in_blocks * p->out_blocks) * 1024); /* of what the sums become */
}

/* ---- weights ---- */

/* Packed weights of a goal of `blocks` blocks: those of block b begin there, (in block, 16 in, 16 out); by Strassen's method
 * those of four blocks do. */
static int64_t weights_at(bool fast, int64_t in_blocks, int64_t blocks, int64_t b) {
    const int64_t fours = fast ? blocks / STRASSEN_WIDE : 0;
    return b < fours * STRASSEN_WIDE ? b / STRASSEN_WIDE * gap_strassen_weights(in_blocks)
                                     : fours * gap_strassen_weights(in_blocks) + (b - fours * STRASSEN_WIDE) * in_blocks * 256;
}

/* The bias stands behind the weights. */
static int64_t bias_at(const gap_pointwise *p) { return weights_at(p->fast_ahead, p->in_blocks, p->out_blocks, p->out_blocks); }
size_t gap_pointwise_derived_bytes(const gap_pointwise *p) { return (size_t)(bias_at(p) + p->out_blocks * 16) * sizeof(float); }
size_t gap_pointwise_derived_back_bytes(const gap_pointwise *p) {
    return (size_t)weights_at(p->fast_back, p->out_blocks, p->in_blocks, p->in_blocks) * sizeof(float);
}

typedef struct {
    const gap_pointwise *p;
    const float *weight, *bias; /* (OC, C), (OC) */
    float *to;
    bool back, fast;
    int64_t from_blocks, blocks; /* of what is read, and of the goal */
} derive_job;

/* Weights between block `from` of what is read and block b of the goal: (16 from, 16 b). */
static void pack_tile(const derive_job *job, int64_t from, int64_t b, float *to) {
    const gap_pointwise *p = job->p;
    const int64_t o = job->back ? from : b, c = job->back ? b : from;
    const int64_t rows = gap_min64(16, p->out_c - o * 16), cols = gap_min64(16, p->in_c - c * 16);
    memset(to, 0, 1024);
    for (int64_t l = 0; l < rows; l++) {
        const float *w = job->weight + (o * 16 + l) * p->in_c + c * 16;
        if (job->back) memcpy(to + l * 16, w, (size_t)cols * sizeof *w);
        else
            for (int64_t k = 0; k < cols; k++) to[k * 16 + l] = w[k];
    }
}

static void pack_four(const derive_job *job, int64_t b, float *to) {
    float tiles[2 * STRASSEN_WIDE * 256]; /* (2 from, 4 b, 16, 16) */
    for (int64_t pair = 0; pair < job->from_blocks / 2; pair++) {
        for (int64_t k = 0; k < 2 * STRASSEN_WIDE; k++) pack_tile(job, 2 * pair + k / STRASSEN_WIDE, b + k % STRASSEN_WIDE, tiles + k * 256);
        gap_strassen_pack(job->from_blocks, pair, tiles, to);
    }
}

/* What is packed together: four blocks, or one. */
static void derive_unit(void *arg, int64_t unit, int thread) {
    (void)thread;
    const derive_job *job = arg;
    const int64_t fours = job->fast ? job->blocks / STRASSEN_WIDE : 0, four = unit < fours;
    const int64_t b = four ? unit * STRASSEN_WIDE : unit - fours + fours * STRASSEN_WIDE;
    float *to = job->to + weights_at(job->fast, job->from_blocks, job->blocks, b);
    if (four) pack_four(job, b, to);
    for (int64_t from = 0; !four && from < job->from_blocks; from++) pack_tile(job, from, b, to + from * 256);
    if (job->back) return;
    float *bias = job->to + bias_at(job->p);
    for (int64_t k = b * 16; k < (b + (four ? STRASSEN_WIDE : 1)) * 16; k++) bias[k] = job->bias && k < job->p->out_c ? job->bias[k] : 0.0f;
}

static gap_status derive(derive_job *job) {
    const int64_t units = job->fast ? job->blocks / STRASSEN_WIDE + job->blocks % STRASSEN_WIDE : job->blocks;
    return gap_parallel_sized(units, derive_unit, job, gap_ns_of_floats(4 * job->p->in_c * job->p->out_c));
}

gap_status gap_pointwise_derive(const gap_pointwise *p, const float *weight, const float *bias, void *derived) {
    return derive(&(derive_job){p, weight, bias, derived, false, p->fast_ahead, p->in_blocks, p->out_blocks});
}

gap_status gap_pointwise_derive_back(const gap_pointwise *p, const float *weight, void *derived_back) {
    return derive(&(derive_job){p, weight, NULL, derived_back, true, p->fast_back, p->out_blocks, p->in_blocks});
}

/* ---- loading ---- */

gap_pointwise_side gap_pointwise_input(const gap_pointwise *p, const gap_source *x) {
    return (gap_pointwise_side){x, p->in_w, p->out_w, {p->stride[0], p->stride[1]}};
}
gap_pointwise_side gap_pointwise_output(const gap_pointwise *p, const gap_source *dy) { return (gap_pointwise_side){dy, p->out_w, p->out_w, {1, 1}}; }

static bool strided(const int64_t stride[2]) { return stride[0] > 1 || stride[1] > 1; }
bool gap_pointwise_in_place(const gap_pointwise_side *side) { return gap_source_plain(side->s) && !strided(side->stride); }
int64_t gap_pointwise_scratch(int64_t w, int64_t vectors) { return (vectors + w) * 16; }

static gap_prologue behind(const gap_prologue *pro, int64_t pixel) {
    gap_prologue q = *pro;
    q.z = gap_shift_(q.z, pixel * 16), q.residual = gap_shift_(q.residual, pixel * 16);
    return q;
}

/* Pixels [p0, p1) of the output's plane, row by row: each row's span through the prologue, of which every stride-th counts. */
static void gather(const gap_stream_kernels *k, const gap_pointwise_side *side, const gap_prologue *pro, const float *x, int64_t p0, int64_t p1,
                   float *to, float *row) {
    const int64_t w = side->grid_w, step = side->stride[1];
    for (int64_t p = p0, next; p < p1; p = next) {
        next = gap_min64(p1, (p / w + 1) * w);
        const int64_t at = p / w * side->stride[0] * side->w + p % w * step;
        const float *from = x + at * 16; /* (span, 16) */
        if (!gap_source_plain(side->s)) {
            const gap_prologue q = behind(pro, at);
            k->map((next - p - 1) * step + 1, from, &q, row, false);
            from = row;
        }
        for (int64_t j = p; j < next; j++, to += 16, from += step * 16) memcpy(to, from, 64);
    }
}

gap_pointwise_view gap_pointwise_load(const gap_stream_kernels *k, const gap_pointwise_side *side, const gap_pointwise_box *box, float *scratch) {
    const gap_source *s = side->s;
    const int64_t pixels = box->p1 - box->p0, images = box->n1 - box->n0;
    if (gap_pointwise_in_place(side))
        return (gap_pointwise_view){s->x + box->n0 * gap_source_image(s) + box->b0 * s->plane + box->p0 * 16, gap_source_image(s), s->plane};
    const gap_pointwise_view v = {scratch, pixels * 16, images * pixels * 16};
    float *row = scratch + (box->b1 - box->b0) * v.block;
    for (int64_t b = box->b0; b < box->b1; b++)
        for (int64_t n = box->n0; n < box->n1; n++) {
            const gap_prologue pro = gap_source_at(s, n, b);
            const float *x = s->x + n * gap_source_image(s) + b * s->plane;
            float *to = scratch + (b - box->b0) * v.block + (n - box->n0) * v.image;
            if (strided(side->stride)) {
                gather(k, side, &pro, x, box->p0, box->p1, to, row);
            } else {
                const gap_prologue q = behind(&pro, box->p0);
                k->map(pixels, x + box->p0 * 16, &q, to, false);
            }
        }
    return v;
}

gap_conv_ahead gap_pointwise_ahead(const gap_pointwise_side *side, const gap_pointwise_box *box) {
    const gap_source *s = side->s;
    const int64_t at = box->n0 * gap_source_image(s) + box->b0 * s->plane + box->p0 * 16;
    gap_conv_ahead a = {.img = gap_source_image(s), .block = s->plane};
    if (strided(side->stride) || box->p0 >= box->p1 || box->b0 >= box->b1) return a;
    a.at[0] = s->x + at, a.at[1] = s->pro.z ? s->pro.z + at : a.at[0], a.blocks = (int)(box->b1 - box->b0);
    return a;
}

/* ---- products ---- */

/* Pixels of an image in the largest band. */
static int64_t band_pixels(const gap_pointwise_goal *g) { return gap_ceil_div(g->piece, g->stride[0]) * g->grid_w; }

static gap_pointwise_goal with_span(gap_pointwise_goal g) {
    g.span = g.fast ? span_of(band_pixels(&g)) : band_pixels(&g);
    return g;
}

gap_pointwise_goal gap_pointwise_forward(const gap_pointwise *p, const gap_sink *out) {
    return with_span((gap_pointwise_goal){out, p->out_h, p->out_w, p->out_h, p->out_w, {1, 1}, p->out_piece, gap_conv_half(p->out_c), p->fast_ahead, 0});
}
gap_pointwise_goal gap_pointwise_backward(const gap_pointwise *p, const gap_sink *dx) {
    return with_span((gap_pointwise_goal){dx, p->in_h, p->in_w, p->out_h, p->out_w, {p->stride[0], p->stride[1]}, p->in_piece, gap_conv_half(p->in_c),
                                          p->fast_back, 0});
}

int64_t gap_pointwise_step(const gap_pointwise_goal *g, int64_t b, int64_t end, int64_t wide) {
    return g->fast && b < g->s->blocks / STRASSEN_WIDE * STRASSEN_WIDE ? STRASSEN_WIDE : gap_min64(wide, end - b);
}

int64_t gap_pointwise_cut(const gap_pointwise_goal *g, int64_t k, int64_t parts) {
    const int64_t unit = g->fast ? STRASSEN_WIDE : 1;
    return k == parts ? g->s->blocks : g->s->blocks / unit * k / parts * unit;
}

int64_t gap_pointwise_bands(const gap_pointwise_goal *g) { return gap_ceil_div(g->h, g->piece); }

void gap_pointwise_band(const gap_pointwise_goal *g, int64_t band, int64_t *p0, int64_t *p1) {
    const int64_t r0 = gap_min64(g->h, band * g->piece), r1 = gap_min64(g->h, r0 + g->piece);
    *p0 = gap_min64(g->grid_h, gap_ceil_div(r0, g->stride[0])) * g->grid_w, *p1 = gap_min64(g->grid_h, gap_ceil_div(r1, g->stride[0])) * g->grid_w;
}

/* All pixels of a band begin as zeros: the products reach only some of them. */
static void clear(const gap_pointwise_goal *g, const gap_pointwise_box *box, int64_t band) {
    const gap_sink *s = g->s;
    const int64_t r0 = band * g->piece, rows = gap_min64(g->h, r0 + g->piece) - r0;
    for (int64_t n = box->n0; n < box->n1; n++)
        for (int64_t b = box->b0; b < box->b1; b++)
            memset(s->y + n * gap_sink_image(s) + b * s->plane + r0 * g->w * 16, 0, (size_t)(rows * g->w) * 64);
}

static void finish(const gap_stream_kernels *k, const gap_pointwise_goal *g, const gap_pointwise_box *box, int64_t band) {
    const gap_sink *s = g->s;
    const int64_t r0 = band * g->piece, pixels = (gap_min64(g->h, r0 + g->piece) - r0) * g->w, at = r0 * g->w;
    if (s->epi.kind == GAP_EPILOGUE_NONE) return;
    for (int64_t n = box->n0; n < box->n1; n++)
        for (int64_t b = box->b0; b < box->b1; b++) {
            const gap_stream_finish f = {.y = s->y + n * gap_sink_image(s) + b * s->plane + at * 16, .pixels = pixels, .piece = pixels,
                                         .epi = gap_sink_at(s, n, b, band, at)};
            k->finish(&f);
        }
}

/* The kernel's rows, a chain of input blocks at a time, so that its weights stay in the first cache. */
static void chains(const gap_conv_kernels *k, gap_conv_rows r, const gap_pointwise_product *m) {
    const int ahead = r.ahead.blocks;
    for (int64_t g = 0; g < m->blocks; g += POINTWISE_CHAIN) {
        r.blocks = (int)gap_min64(POINTWISE_CHAIN, m->blocks - g);
        r.kc_last = g + r.blocks == m->blocks ? (int)m->last : 16;
        if (ahead < g + r.blocks) r.ahead.blocks = 0;
        k->rows(&r);
        for (int j = 0; j < 2 && r.ahead.blocks; j++) r.ahead.at[j] += r.blocks * r.ahead.block;
        r.start = GAP_CONV_KEEP, r.a += r.blocks * r.a_block, r.w += r.blocks * 256;
    }
}

/* Pixels that do not lie side by side in the goal: row by row. */
static void scatter(const gap_conv_kernels *k, const gap_pointwise_goal *g, const gap_pointwise_box *box, gap_conv_rows r, const gap_pointwise_product *m) {
    const float *a = r.a;
    float *y = r.y; /* the plane */
    r.y_px = g->stride[1] * 16;
    for (int64_t p = box->p0, next; p < box->p1; p = next) {
        const int64_t i = p / g->grid_w, j = p % g->grid_w, rows = j ? 0 : (box->p1 - p) / g->grid_w;
        next = gap_min64(box->p1, (i + gap_max64(1, rows)) * g->grid_w);
        r.pixels = rows ? g->grid_w : next - p, r.rows = gap_max64(1, rows);
        r.a_row = g->grid_w * 16, r.y_row = g->stride[0] * g->w * 16;
        r.a = a + (p - box->p0) * 16, r.y = y + (i * g->stride[0] * g->w + j * g->stride[1]) * 16;
        chains(k, r, m);
    }
}

int64_t gap_pointwise_sums_floats(const gap_pointwise_goal *g, int64_t blocks, int64_t images, int64_t pixels) {
    return g->fast ? gap_strassen_scratch(blocks, images, gap_min64(pixels, g->span)) : 0;
}

static gap_conv_rows rows_of(const gap_pointwise_goal *g, const gap_pointwise_box *box, const gap_pointwise_product *m) {
    static const int64_t here[1] = {0};
    const gap_sink *s = g->s;
    const int64_t image = gap_sink_image(s);
    const bool keep = s->add || !m->first;
    return (gap_conv_rows){.a = m->a.at, .a_px = 16, .a_row = m->a.image, .a_block = m->a.block, .off = here, .taps = 1, .blocks = (int)m->blocks,
                           .kc = 16, .kc_last = (int)m->last, .chain = POINTWISE_CHAIN, .w = m->w + weights_at(g->fast, m->in_blocks, s->blocks, box->b0),
                           .w_tap = 256, .w_block = 256, .w_oc = m->in_blocks * 256, .y = s->y + box->n0 * image + box->b0 * s->plane, .y_px = 16,
                           .y_row = image, .y_oc = s->plane, .pixels = box->p1 - box->p0, .rows = box->n1 - box->n0,
                           .oc_blocks = (int)(box->b1 - box->b0), .half = g->half && box->b1 == s->blocks,
                           .start = keep ? GAP_CONV_KEEP : m->bias ? GAP_CONV_BIAS : GAP_CONV_ZERO, .bias = gap_shift_(m->bias, box->b0 * 16),
                           .ahead = m->ahead};
}

static gap_strassen strassen_of(const gap_kernels *k, const gap_pointwise_product *m) {
    return (gap_strassen){.k = k->conv, .first = m->from, .in_blocks = m->in_blocks, .scratch = m->sums};
}

void gap_pointwise_sums(const gap_kernels *k, const gap_pointwise_goal *g, const gap_pointwise_box *box, const gap_pointwise_product *m) {
    const gap_conv_rows r = rows_of(g, box, m);
    const gap_strassen s = strassen_of(k, m);
    gap_strassen_sums(&s, &r);
}

void gap_pointwise_multiply(const gap_kernels *k, const gap_pointwise_goal *g, const gap_pointwise_box *box, const gap_pointwise_product *m) {
    const int64_t image = gap_sink_image(g->s), pixels = box->p1 - box->p0, images = box->n1 - box->n0;
    const bool sparse = strided(g->stride), fast = g->fast && box->b0 < g->s->blocks / STRASSEN_WIDE * STRASSEN_WIDE;
    int64_t p0, p1;
    gap_pointwise_band(g, m->band, &p0, &p1);
    gap_conv_rows r = rows_of(g, box, m);
    if (sparse && r.start != GAP_CONV_KEEP && box->p0 == p0) clear(g, box, m->band);
    if (!fast) r.w += m->from * 256;
    if (sparse || g->h * g->w == 1) r.ahead.blocks = 0;
    if (pixels == 1 && g->h * g->w == 1) { /* a pixel per image: the images make the row */
        r.a_px = m->a.image, r.y_px = image, r.pixels = images, r.rows = 1;
        chains(k->conv, r, m);
    } else if (!sparse) {
        const gap_strassen s = strassen_of(k, m);
        r.y += box->p0 * 16;
        if (fast) gap_strassen_rows(&s, &r);
        else chains(k->conv, r, m);
    } else {
        for (int64_t n = 0; n < images && pixels > 0; n++) {
            gap_conv_rows one = r;
            one.a += n * m->a.image, one.y += n * image;
            scatter(k->conv, g, box, one, m);
        }
    }
    if (m->final && box->p1 == p1) finish(k->stream, g, box, m->band);
}

/* ---- one product over everything ---- */

typedef struct {
    const gap_kernels *k;
    const gap_pointwise_side *in;
    const gap_pointwise_goal *goal;
    int64_t in_c, in_blocks, n;
    const float *w, *bias;
    int64_t images, bands, spans, steps, parts, group, wide; /* images of a step; spans of a band; steps of a unit; input blocks at once */
    int64_t sums;                 /* floats of scratch for those of a fast goal, in front of the loaded input */
    int64_t run;                  /* steps that go together because their input lies in place and fits the cache; else 1 */
    gap_scratch scratch;
} all_job;

static int64_t band_of(const all_job *job, int64_t step) { return step / job->spans % job->bands; }

/* Step `step` of all images: its images and pixels; no images behind the last one, no pixels where its band has fewer spans. */
static void all_step(const all_job *job, int64_t step, gap_pointwise_box *box) {
    const int64_t span = step % job->spans * job->goal->span;
    box->n0 = gap_min64(job->n, step / job->spans / job->bands * job->images), box->n1 = gap_min64(job->n, box->n0 + job->images);
    gap_pointwise_band(job->goal, band_of(job, step), &box->p0, &box->p1);
    if (job->spans == 1) return;
    box->p0 = gap_min64(box->p1, box->p0 + span), box->p1 = gap_min64(box->p1, box->p0 + job->goal->span);
}

/* What of the input stands behind `from`: its next blocks, or the first ones of the unit's next step. */
static gap_conv_ahead all_ahead(const all_job *job, const gap_pointwise_box *from, int64_t step, int64_t end) {
    gap_pointwise_box next = *from;
    next.b0 = from->b1 == job->in_blocks ? 0 : from->b1, next.b1 = gap_min64(job->in_blocks, next.b0 + job->group);
    if (next.b0 == 0 && step + 1 < end) all_step(job, step + 1, &next);
    else if (next.b0 == 0) next.b1 = 0;
    return gap_pointwise_ahead(job->in, &next);
}

static void all_box(const all_job *job, int64_t part, int64_t step, int64_t end, float *scratch) {
    const gap_pointwise_goal *g = job->goal;
    const int64_t o0 = gap_pointwise_cut(g, part, job->parts), o1 = gap_pointwise_cut(g, part + 1, job->parts);
    gap_pointwise_box from = {.b0 = 0};
    all_step(job, step, &from);
    if (job->spans > 1 && from.p0 == from.p1) return;
    for (; from.b0 < job->in_blocks; from.b0 = from.b1) {
        from.b1 = gap_min64(job->in_blocks, from.b0 + job->group);
        const bool final = from.b1 == job->in_blocks;
        gap_pointwise_product m = {.a = gap_pointwise_load(job->k->stream, job->in, &from, scratch + job->sums), .from = from.b0,
                                   .blocks = from.b1 - from.b0, .in_blocks = job->in_blocks, .last = final ? job->in_c - (job->in_blocks - 1) * 16 : 16,
                                   .band = band_of(job, step), .w = job->w, .bias = job->bias, .first = from.b0 == 0, .final = final,
                                   .ahead = all_ahead(job, &from, step, end), .sums = scratch};
        if (g->fast) gap_pointwise_sums(job->k, g, &from, &m);
        gap_pointwise_box to = from;
        for (to.b0 = o0; to.b0 < o1; to.b0 = to.b1) {
            to.b1 = to.b0 + gap_pointwise_step(g, to.b0, o1, job->wide);
            gap_pointwise_multiply(job->k, g, &to, &m);
            m.ahead.blocks = 0; /* once is enough */
        }
    }
}

/* Steps whose input lies in place and in the cache: each output plane is written in one long run. */
static void all_run(const all_job *job, int64_t part, int64_t first, int64_t end) {
    const gap_pointwise_goal *g = job->goal;
    const int64_t o1 = g->s->blocks * (part + 1) / job->parts;
    gap_pointwise_box from = {.b1 = job->in_blocks}, to;
    for (int64_t o = g->s->blocks * part / job->parts, next; o < o1; o = next) {
        next = gap_min64(o1, o + job->wide);
        for (int64_t step = first; step < end; step++) {
            all_step(job, step, &from);
            to = from, to.b0 = o, to.b1 = next;
            const gap_pointwise_product m = {.a = gap_pointwise_load(job->k->stream, job->in, &from, NULL), .blocks = job->in_blocks,
                                             .in_blocks = job->in_blocks, .last = job->in_c - (job->in_blocks - 1) * 16, .band = band_of(job, step),
                                             .w = job->w, .bias = job->bias, .first = true, .final = true};
            gap_pointwise_multiply(job->k, g, &to, &m);
        }
    }
}

static void all_unit(void *arg, int64_t unit, int thread) {
    all_job *job = arg;
    const int64_t part = unit % job->parts, first = unit / job->parts * job->steps;
    const int64_t end = gap_min64(first + job->steps, gap_ceil_div(job->n, job->images) * job->bands * job->spans);
    int slot;
    float *scratch = gap_scratch_take(&job->scratch, thread, &slot);
    for (int64_t step = first, next; step < end; step = next) {
        next = gap_min64(end, step + job->run);
        if (job->run > 1) all_run(job, part, step, next);
        else all_box(job, part, step, end, scratch);
    }
    gap_scratch_give(&job->scratch, slot);
}

/* The most images that a unit takes, and input blocks at once, where they are loaded. */
static int64_t most_images(const gap_pointwise_goal *g) { return g->piece == g->h ? gap_max64(1, 256 / band_pixels(g)) : 1; }
static int64_t most_blocks(const gap_pointwise_goal *g, int64_t blocks) {
    if (g->fast) return gap_strassen_group(blocks);
    const int64_t fits = LOADED / 64 / (most_images(g) * band_pixels(g));
    return fits >= blocks ? blocks : gap_min64(blocks, gap_max64(1, fits / POINTWISE_CHAIN) * POINTWISE_CHAIN);
}
static int64_t sums_floats(const gap_pointwise_goal *g, int64_t blocks) {
    return gap_pointwise_sums_floats(g, most_blocks(g, blocks), most_images(g), band_pixels(g));
}
static size_t all_bytes(const gap_pointwise_goal *g, int64_t blocks, int64_t w) {
    return (size_t)(sums_floats(g, blocks) + gap_pointwise_scratch(w, most_images(g) * band_pixels(g) * most_blocks(g, blocks))) * sizeof(float);
}

gap_status gap_pointwise_all(const gap_op_ctx *ctx, const gap_pointwise_side *in, const gap_pointwise_goal *goal, int64_t in_c, const float *w,
                             const float *bias, int slots) {
    const int64_t pixels = band_pixels(goal), want = UNITS_PER_THREAD * gap_threads_get();
    all_job job = {.k = ctx->kernels, .in = in, .goal = goal, .in_c = in_c, .in_blocks = in->s->blocks, .n = ctx->n, .w = w, .bias = bias,
                   .images = gap_min64(ctx->n, most_images(goal)), .bands = gap_pointwise_bands(goal),
                   .spans = gap_ceil_div(pixels, goal->span), .wide = pixels <= 6 ? 4 : 2};
    while (job.images > 1 && job.images * pixels >= 56 && gap_ceil_div(ctx->n, job.images) * job.bands < want) job.images = (job.images + 1) / 2;
    const int64_t all = gap_ceil_div(ctx->n, job.images) * job.bands; /* a band's spans stay together: the last one finishes it */
    job.steps = gap_max64(1, all / (2 * want));
    const int64_t units = gap_ceil_div(all, job.steps);
    job.steps *= job.spans;
    job.parts = gap_min64(gap_ceil_div(want, units), goal->fast ? goal->s->blocks / STRASSEN_WIDE : gap_ceil_div(goal->s->blocks, 4));
    job.sums = sums_floats(goal, job.in_blocks);
    job.run = gap_pointwise_in_place(in) && !goal->fast && goal->s->blocks > job.wide ? gap_max64(1, LOADED * 3 / 2 / (job.in_blocks * job.images * pixels * 64)) : 1;
    job.group = gap_pointwise_in_place(in) && !goal->fast ? job.in_blocks : most_blocks(goal, job.in_blocks);
    gap_scratch_begin(&job.scratch, ctx->workspace, all_bytes(goal, job.in_blocks, in->w), slots);
    return gap_parallel_sized(units * job.parts, all_unit, &job, gap_ns_of_fmas(ctx->n * goal->grid_h * goal->grid_w * in_c * goal->s->blocks * 16));
}

gap_status gap_pointwise_run(const gap_pointwise *p, const gap_op_ctx *ctx, const void *derived, const gap_source *in, const gap_sink *out,
                             bool has_bias, int slots) {
    const float *w = derived;
    const gap_pointwise_side side = gap_pointwise_input(p, in);
    const gap_pointwise_goal goal = gap_pointwise_forward(p, out);
    return gap_pointwise_all(ctx, &side, &goal, p->in_c, w, has_bias ? w + bias_at(p) : NULL, slots);
}

size_t gap_pointwise_workspace_bytes(const gap_pointwise *p, bool training, int slots) {
    const gap_pointwise_goal ahead = gap_pointwise_forward(p, NULL), back = gap_pointwise_backward(p, NULL);
    size_t bytes = gap_scratch_round(all_bytes(&ahead, p->in_blocks, p->in_w)) * (size_t)slots;
    if (!training) return bytes;
    const size_t other = gap_scratch_round(all_bytes(&back, p->out_blocks, p->out_w)) * (size_t)slots, grad = gap_pointwise_grad_bytes(p, slots);
    if (bytes < other) bytes = other;
    return bytes < grad ? grad : bytes;
}

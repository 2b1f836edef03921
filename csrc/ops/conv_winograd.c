/* conv_winograd.c — forward and the gradient of the input.
 *
 * A unit of work: whole pieces of a plane (or several whole planes) by a range of output blocks. It loads its input through the
 * prologue into a padded plane, block by block, transforms that to V (in the second cache while channels are few), then, for a
 * few output blocks at a time, makes the products P of all positions and brings them back to pixels, on which the epilogue runs.
 */
#include "ops/conv_winograd.h"

#include <string.h>

#include "kernels/stream.h"
#include "ops/scratch.h"

#define CACHE ((int64_t)640 << 10) /* bytes of V and P of an area: what stays in the second cache, while channels are few */
#define TILES_LEAST 32             /* tiles of an area otherwise: weights come from the third cache or beyond for each area */
#define TILES_MOST 128
#define GROUP 2                    /* output blocks that go together: what the products can use */
#define UNITS 32                   /* units to aim at, for any number of threads */
#define PART 4                     /* fewest output blocks of a unit: each transforms its input by itself */

static int64_t skewed(int64_t floats) { return (floats / 16 | 1) * 16; } /* an odd number of cache lines: positions share no set */

/* Points of the tiles of a direction. */
static int64_t points(int64_t outputs, int64_t m) { return outputs + 2 * gap_ceil_div(outputs, m); }
/* Products of all tiles of a plane for one pair of channels. */
static int64_t products(const gap_desc *d, int64_t m) { return points(d->dim[1], m) * points(d->dim[2], m); }
/* Three quarters of the definition's products at most: the rest pays for the transforms. */
static bool saves(const gap_desc *d, int64_t m) { return products(d, m) * 4 <= d->dim[1] * d->dim[2] * 9 * 3; }

bool gap_wino_fits(const gap_op *op, gap_precision precision, gap_wino_tile *which) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    const gap_desc *x = &op->in_desc[0], *y = &op->out_desc[0];
    *which = GAP_WINO_NONE;
    if (x->layout != GAP_BLOCKED || a->groups != 1 || x->dim[0] < 16 || y->dim[0] < 16) return false;
    for (int k = 0; k < 2; k++)
        if (a->kernel[k] != 3 || a->stride[k] != 1 || a->dilation[k] != 1 || a->padding[k] > 2) return false;
    const gap_wino_tile m = precision == GAP_PRECISION_PRECISE || products(y, 2) <= products(y, 4) ? GAP_WINO_2 : GAP_WINO_4;
    if (!saves(x, m) || !saves(y, m)) return false;
    *which = m;
    return true;
}

/* ---- cutting ---- */

static int64_t even(int64_t total, int64_t most) { return gap_ceil_div(total, gap_ceil_div(total, gap_max64(1, most))); }

/* An area, tiles that go together, is some whole images, some pieces of one, or tile columns of one piece. */
static void cut(gap_wino *w) {
    const int64_t line = w->n_pos * 64, piece_tiles = gap_ceil_div(w->piece_rows, w->m) * w->tiles_w;
    w->group = gap_min64(w->out_blocks, GROUP);
    const int64_t aim = gap_max64(TILES_LEAST, gap_min64(TILES_MOST, CACHE / line / (w->in_blocks + w->group)));
    w->images = w->unit_pieces = 1, w->col_tiles = w->tiles_w;
    if (piece_tiles > aim + aim / 2) w->col_tiles = even(w->tiles_w, aim * w->tiles_w / piece_tiles);
    else if (w->pieces > 1) w->unit_pieces = even(w->pieces, aim / piece_tiles);
    if (w->unit_pieces == w->pieces && w->col_tiles == w->tiles_w)
        w->images = gap_max64(1, gap_min64(w->capacity, aim / (w->tiles_h * w->tiles_w)));
    w->bands = gap_ceil_div(w->pieces, w->unit_pieces);
    const int64_t units = gap_ceil_div(w->capacity, w->images) * w->bands;
    w->parts = gap_max64(1, gap_min64(gap_ceil_div(UNITS, units), w->out_blocks / PART));
    const int64_t rows = gap_min64(w->tiles_h, gap_ceil_div(w->unit_pieces * w->piece_rows, w->m));
    w->tiles = w->images * rows * w->col_tiles;
    w->plane_row = (w->col_tiles * w->m + 2) * 16;
    w->v_pos = skewed(w->in_blocks * w->tiles * 16), w->p_pos = skewed(w->group * w->tiles * 16);
    w->u_pos = w->in_c * 16;
    w->plane_bytes = gap_scratch_round((size_t)((rows * w->m + 2) * w->plane_row) * 4);
    w->v_bytes = gap_scratch_round((size_t)(w->n_pos * w->v_pos) * 4);
    w->p_bytes = gap_scratch_round((size_t)(w->n_pos * w->p_pos) * 4);
}

void gap_wino_plan(gap_wino *w, const gap_op *op, bool backward, int m, int64_t capacity) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    const gap_desc *in = backward ? &op->out_desc[0] : &op->in_desc[0], *out = backward ? &op->in_desc[0] : &op->out_desc[0];
    memset(w, 0, sizeof *w);
    w->m = m, w->n_pos = (m + 2) * (m + 2), w->backward = backward, w->capacity = capacity;
    w->in_c = in->dim[0], w->in_h = in->dim[1], w->in_w = in->dim[2], w->in_blocks = gap_ceil_div(w->in_c, 16);
    w->out_c = out->dim[0], w->out_h = out->dim[1], w->out_w = out->dim[2], w->out_blocks = gap_ceil_div(w->out_c, 16);
    for (int k = 0; k < 2; k++) w->pad[k] = backward ? 2 - a->padding[k] : a->padding[k];
    w->tiles_h = gap_ceil_div(w->out_h, m), w->tiles_w = gap_ceil_div(w->out_w, m);
    w->piece_rows = gap_piece_rows(w->out_h, w->out_w), w->pieces = gap_pieces(w->out_h, w->out_w);
    cut(w);
}

/* ---- tiles that go together ---- */

void gap_wino_grid_of(gap_wino_grid *g, const gap_wino *w, int64_t images, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
    const int m = w->m, last[2] = {(int)(w->out_h % m), (int)(w->out_w % m)}; /* outputs of tiles at the edge */
    const int64_t edge_h = r1 == w->tiles_h && last[0], edge_w = c1 == w->tiles_w && last[1];
    const int64_t rows = r1 - r0 - edge_h, cols = c1 - c0 - edge_w;
    *g = (gap_wino_grid){.m = m};
    for (int k = 0; k < WINO_PARTS; k++) {
        const bool down = k == WINO_ROW || k == WINO_CORNER, across = k == WINO_COLUMN || k == WINO_CORNER;
        g->part[k].row = down ? rows : 0, g->part[k].rows = down ? edge_h : rows;
        g->part[k].col = across ? cols : 0, g->part[k].cols = across ? edge_w : cols;
        g->part[k].points[0] = (down ? last[0] : m) + 2, g->part[k].points[1] = (across ? last[1] : m) + 2;
        g->part[k].tiles = g->part[k].rows * g->part[k].cols, g->part[k].first = g->tiles;
        g->tiles += images * g->part[k].tiles;
    }
}

int64_t gap_wino_grid_at(const gap_wino_grid *g, int pos, int64_t *first) {
    const int n = g->m + 2;
    const bool down = gap_wino_has(g->m, g->part[WINO_CORNER].points[0], pos / n), across = gap_wino_has(g->m, g->part[WINO_CORNER].points[1], pos % n);
    *first = across ? 0 : g->part[WINO_WHOLE].first;
    return (!down ? g->part[WINO_ROW].first : across ? g->tiles : g->part[WINO_CORNER].first) - *first;
}

/* Where a part's tiles of image i begin, in floats. */
static int64_t place(const gap_wino_grid *g, int part, int64_t i) { return (g->part[part].first + i * g->part[part].tiles) * 16; }

void gap_wino_grid_transform(const gap_wino_grid *g, void (*transform)(const gap_wino_tiles *), const float *plane, int64_t plane_row, int64_t i,
                             float *v, int64_t v_pos) {
    for (int k = 0; k < WINO_PARTS; k++) {
        const gap_wino_tiles t = {.m = g->m, .points = {g->part[k].points[0], g->part[k].points[1]}, .x_row = plane_row, .rows = g->part[k].rows,
                                  .x = plane + (g->part[k].row * plane_row + g->part[k].col * 16) * g->m, .cols = g->part[k].cols,
                                  .v = v + place(g, k, i), .v_pos = v_pos};
        if (g->part[k].tiles) transform(&t);
    }
}

/* ---- weights ---- */

/* Derived: for each output block U (positions, in_c, 16); then the bias. */
static int64_t block_floats(const gap_wino *w) { return w->in_c * 16 * w->n_pos; }

size_t gap_wino_derived_bytes(const gap_wino *w) { return (size_t)(w->out_blocks * block_floats(w) + w->out_blocks * 16) * 4; }

typedef struct {
    const gap_wino *w;
    const gap_winograd_kernels *k;
    const float *weight, *bias; /* OIHW */
    float *derived;
} derive_job;

/* Kernels of channels [c0, c1) for output block `o`: taps (c, 9, 16), zero beyond the last output channel. */
static void gather(const derive_job *job, int64_t o, int64_t c0, int64_t c1, float *taps) {
    const gap_wino *w = job->w;
    const int lanes = (int)gap_min64(16, w->out_c - o * 16);
    if (lanes < 16) memset(taps, 0, (size_t)((c1 - c0) * 144) * sizeof *taps);
    if (!w->backward)
        for (int l = 0; l < lanes; l++) {
            const float *from = job->weight + ((o * 16 + l) * w->in_c + c0) * 9;
            for (int64_t j = 0; j < (c1 - c0) * 9; j++) taps[j * 16 + l] = from[j];
        }
    else
        for (int64_t c = c0; c < c1; c++) {
            const float *from = job->weight + (c * w->out_c + o * 16) * 9;
            float *to = taps + (c - c0) * 144;
            for (int l = 0; l < lanes; l++)
                for (int t = 0; t < 9; t++) to[(8 - t) * 16 + l] = from[l * 9 + t];
        }
}

static void derive_chunk(void *arg, int64_t unit, int thread) {
    (void)thread;
    const derive_job *job = arg;
    const gap_wino *w = job->w;
    const int64_t o = unit / w->in_blocks, c0 = unit % w->in_blocks * 16, c1 = gap_min64(w->in_c, c0 + 16);
    float *at = job->derived + o * block_floats(w);
    float taps[16 * 9 * 16];
    gather(job, o, c0, c1, taps);
    const gap_wino_weights k = {.m = w->m, .w = taps, .channels = c1 - c0, .u = at + c0 * 16, .u_pos = w->u_pos};
    job->k->weights(&k);
    if (c0) return;
    float *bias = job->derived + w->out_blocks * block_floats(w) + o * 16;
    for (int64_t l = 0; l < 16; l++) bias[l] = job->bias && o * 16 + l < w->out_c ? job->bias[o * 16 + l] : 0.0f;
}

gap_status gap_wino_derive(const gap_wino *w, const float *weight, const float *bias, void *derived, const gap_op_ctx *ctx) {
    derive_job job = {.w = w, .k = ctx->kernels->winograd, .weight = weight, .bias = bias, .derived = derived};
    return gap_parallel(w->out_blocks * w->in_blocks, derive_chunk, &job);
}

/* ---- the pass ---- */

typedef struct {
    const gap_wino *w;
    const gap_winograd_kernels *k;
    const gap_stream_kernels *stream;
    const float *weights, *bias; /* derived */
    const gap_source *in;
    const gap_sink *out;
    int64_t n;
    gap_scratch scratch;
} run_job;

/* What goes together: images [n0, n1), tile rows [r0, r1), tile columns [c0, c1); and a slot's buffers. */
typedef struct {
    int64_t n0, n1, r0, r1, c0, c1;
    gap_wino_grid grid;
    float *plane, *v, *p;
} wino_area;

static void load_area(const run_job *job, const wino_area *a) {
    const gap_wino *w = job->w;
    const int64_t rows = a->r1 - a->r0, cols = a->c1 - a->c0;
    for (int64_t b = 0; b < w->in_blocks; b++)
        for (int64_t n = a->n0; n < a->n1; n++) {
            const gap_stream_load l = {.x = job->in->x + n * gap_source_image(job->in) + b * job->in->plane, .h = w->in_h, .w = w->in_w, .lanes = 16,
                                       .dst = a->plane, .dst_row = w->plane_row, .rows = rows * w->m + 2, .cols = cols * w->m + 2,
                                       .row0 = a->r0 * w->m - w->pad[0], .col0 = a->c0 * w->m - w->pad[1], .pro = gap_source_at(job->in, n, b)};
            job->stream->load(&l);
            gap_wino_grid_transform(&a->grid, job->k->input, a->plane, w->plane_row, n - a->n0, a->v + b * a->grid.tiles * 16, w->v_pos);
        }
}

/* The planes that storing and finishing read, which nobody has read before: of image 0, block 0. */
typedef struct { const float *at[4]; int n; } wino_readings;

static wino_readings readings_of(const gap_sink *out) {
    const gap_epilogue *e = &out->epi;
    const float *const all[4] = {out->add ? out->y : NULL, e->out, e->z, e->z2};
    wino_readings r = {.n = 0};
    for (int k = 0; k < 4; k++)
        if (all[k] && e->kind == GAP_EPILOGUE_MASK) r.at[r.n++] = all[k];
    return r;
}

/* Asks for share `step` of `steps` of them, of the area's rows of output blocks [o, o + group). */
static void fetch(const run_job *job, const wino_readings *r, const wino_area *a, int64_t o, int group, int64_t step, int64_t steps) {
    const gap_wino *w = job->w;
    const int64_t y0 = a->r0 * w->m, pixels = (gap_min64(w->out_h, a->r1 * w->m) - y0) * w->out_w, planes = group * (a->n1 - a->n0);
    for (int64_t k = planes * pixels * step / steps, end = planes * pixels * (step + 1) / steps, next; k < end; k = next) {
        const int64_t plane = k / pixels, from = k % pixels;
        const int64_t at = (a->n0 + plane / group) * gap_sink_image(job->out) + (o + plane % group) * job->out->plane + (y0 * w->out_w + from) * 16;
        next = gap_min64(end, (plane + 1) * pixels);
        for (int j = 0; j < r->n; j++)
            for (int64_t p = 0; p < next - k; p++) __builtin_prefetch(r->at[j] + at + p * 16, 0, 2);
    }
}

/* P of output blocks [o, o + group): chains over channels, in order. */
static void multiply(const run_job *job, const wino_area *a, int64_t o, int group) {
    const gap_wino *w = job->w;
    const wino_readings behind = readings_of(job->out);
    const int64_t all = a->grid.tiles;
    gap_wino_product q = {.v_block = all * 16, .u_oc = block_floats(w), .p_oc = all * 16, .oc_blocks = group};
    for (int pos = 0; pos < w->n_pos; pos++) {
        int64_t first;
        q.tiles = gap_wino_grid_at(&a->grid, pos, &first);
        if (behind.n > 0 && a->c1 == w->tiles_w) fetch(job, &behind, a, o, group, pos, w->n_pos);
        for (int64_t c = 0; c < w->in_c; c += GAP_WINO_CHAIN) {
            q.v = a->v + pos * w->v_pos + c * all + first * 16, q.p = a->p + pos * w->p_pos + first * 16;
            q.u = job->weights + o * block_floats(w) + pos * w->u_pos + c * 16;
            q.next = c + GAP_WINO_CHAIN < w->in_c ? q.u + GAP_WINO_CHAIN * 16 : pos + 1 < w->n_pos ? q.u + w->u_pos - c * 16 : NULL;
            q.channels = (int)gap_min64(GAP_WINO_CHAIN, w->in_c - c), q.keep = c > 0;
            job->k->product(&q);
        }
    }
}

static void store_area(const run_job *job, const wino_area *a, int64_t o, int group) {
    const gap_wino *w = job->w;
    const gap_wino_grid *g = &a->grid;
    const int64_t row = w->out_w * 16;
    for (int b = 0; b < group; b++)
        for (int64_t n = a->n0; n < a->n1; n++) {
            float *y = job->out->y + n * gap_sink_image(job->out) + (o + b) * job->out->plane + (a->r0 * row + a->c0 * 16) * w->m;
            for (int k = 0; k < WINO_PARTS; k++) {
                const gap_wino_output t = {.m = w->m, .points = {g->part[k].points[0], g->part[k].points[1]}, .rows = g->part[k].rows,
                                           .cols = g->part[k].cols, .p = a->p + b * g->tiles * 16 + place(g, k, n - a->n0),
                                           .p_pos = w->p_pos, .y = y + (g->part[k].row * row + g->part[k].col * 16) * w->m, .y_row = row,
                                           .bias = job->bias ? job->bias + (o + b) * 16 : NULL, .add = job->out->add};
                if (g->part[k].tiles) job->k->output(&t);
            }
        }
}

/* The epilogue of pieces [q0, q1) of the area's planes. */
static void finish_area(const run_job *job, const wino_area *a, int64_t q0, int64_t q1, int64_t o, int group) {
    const gap_wino *w = job->w;
    const int64_t y0 = q0 * w->piece_rows, y1 = gap_min64(w->out_h, q1 * w->piece_rows), pixel = y0 * w->out_w;
    if (job->out->epi.kind == GAP_EPILOGUE_NONE) return;
    for (int b = 0; b < group; b++)
        for (int64_t n = a->n0; n < a->n1; n++) {
            const gap_stream_finish f = {.y = job->out->y + n * gap_sink_image(job->out) + (o + b) * job->out->plane + pixel * 16,
                                         .pixels = (y1 - y0) * w->out_w, .piece = w->piece_rows * w->out_w,
                                         .epi = gap_sink_at(job->out, n, o + b, q0, pixel)};
            job->stream->finish(&f);
        }
}

static void run_unit(void *arg, int64_t unit, int thread) {
    run_job *job = arg;
    const gap_wino *w = job->w;
    const int64_t part = unit % w->parts, band = unit / w->parts % w->bands, image = unit / w->parts / w->bands;
    const int64_t o0 = w->out_blocks * part / w->parts, o1 = w->out_blocks * (part + 1) / w->parts;
    const int64_t q0 = band * w->unit_pieces, q1 = gap_min64(w->pieces, q0 + w->unit_pieces);
    wino_area a = {.n0 = image * w->images, .r0 = q0 * w->piece_rows / w->m};
    int slot;
    unsigned char *scratch = gap_scratch_take(&job->scratch, thread, &slot);
    a.n1 = gap_min64(job->n, a.n0 + w->images), a.r1 = gap_min64(w->tiles_h, gap_ceil_div(q1 * w->piece_rows, w->m));
    a.plane = (float *)(void *)scratch, scratch += w->plane_bytes;
    a.v = (float *)(void *)scratch, scratch += w->v_bytes;
    a.p = (float *)(void *)scratch;
    for (a.c0 = 0; a.c0 < w->tiles_w; a.c0 = a.c1) {
        a.c1 = gap_min64(w->tiles_w, a.c0 + w->col_tiles);
        gap_wino_grid_of(&a.grid, w, a.n1 - a.n0, a.r0, a.r1, a.c0, a.c1);
        load_area(job, &a);
        for (int64_t o = o0; o < o1; o += w->group) {
            const int group = (int)gap_min64(w->group, o1 - o);
            multiply(job, &a, o, group);
            store_area(job, &a, o, group);
            if (a.c1 == w->tiles_w) finish_area(job, &a, q0, q1, o, group);
        }
    }
    gap_scratch_give(&job->scratch, slot);
}

static size_t slot_bytes(const gap_wino *w) { return w->plane_bytes + w->v_bytes + w->p_bytes; }
static int64_t units_of(const gap_wino *w, int64_t n) { return gap_ceil_div(n, w->images) * w->bands * w->parts; }

/* No more slots than units are ever at work. */
static int slots_of(const gap_wino *w, int slots) { return (int)gap_min64(slots, units_of(w, w->capacity)); }

size_t gap_wino_workspace_bytes(const gap_wino *w, int slots) { return slot_bytes(w) * (size_t)slots_of(w, slots); }

gap_status gap_wino_run(const gap_wino *w, const gap_op_ctx *ctx, const void *derived, const gap_source *in, const gap_sink *out,
                        bool has_bias, int slots) {
    run_job job = {.w = w, .k = ctx->kernels->winograd, .stream = ctx->kernels->stream, .weights = derived, .in = in, .out = out, .n = ctx->n};
    if (has_bias) job.bias = job.weights + w->out_blocks * block_floats(w);
    gap_scratch_begin(&job.scratch, ctx->workspace, slot_bytes(w), slots_of(w, slots));
    return gap_parallel(units_of(w, ctx->n), run_unit, &job);
}

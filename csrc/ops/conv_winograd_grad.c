/* conv_winograd_grad.c — the gradient of the weights.
 *
 * A unit of work: a range of images by ranges of input and output blocks. For one segment after another (a chain of tiles) it
 * transforms the input to V and the gradient of the output to Z, and adds their products to its G, all positions; then it brings G back to
 * 3x3. Where there is one range of images that is the gradient; else ranges are added in order.
 */
#include <string.h>

#include "kernels/stream.h"
#include "ops/conv_winograd.h"
#include "ops/scratch.h"

#define BLOCKS ((int64_t)9 * 256) /* floats of the kernels of 16 x 16 channels */
#define UNITS 16                  /* units to aim at, for any number of threads */
#define SIDE 8                    /* most blocks of a unit, in and out */

typedef struct {
    const gap_wino *w;
    const gap_winograd_kernels *k;
    const gap_stream_kernels *stream;
    const gap_source *x, *dy;
    float *dw, *parts;            /* OIHW; (chunks, out blocks, in blocks, 9, 16, 16) */
    bool add;
    int64_t n;
    int chunks;
    int64_t images, rows, cols;   /* of a segment: images, tile rows, tile columns; by shape only */
    int64_t i_parts, o_parts;     /* units across input and output blocks */
    int64_t i_most, o_most;       /* most blocks of a unit */
    int64_t plane_row, v_pos, z_pos, g_pos;
    size_t parts_bytes, plane_bytes, v_bytes, z_bytes, g_bytes;
    gap_scratch scratch;
} grad_job;

static int64_t skewed(int64_t floats) { return (floats / 16 | 1) * 16; }

static void segments(grad_job *j) {
    const gap_wino *w = j->w;
    j->cols = gap_ceil_div(w->tiles_w, gap_ceil_div(w->tiles_w, WINO_SEGMENT));
    j->rows = gap_ceil_div(w->tiles_h, gap_ceil_div(w->tiles_h, gap_max64(1, WINO_SEGMENT / w->tiles_w)));
    j->images = gap_max64(1, WINO_SEGMENT / (w->tiles_h * w->tiles_w));
}

static int64_t units_of(const grad_job *j) { return j->chunks * j->i_parts * j->o_parts; }

/* No more slots than units are ever at work. */
static int slots_of(const grad_job *j, int slots) { return (int)gap_min64(slots, units_of(j)); }

/* Cuts the work: the fewest units that are enough for the threads, as a unit transforms its input and gradient by itself. */
static void cut(grad_job *j, const gap_wino *w) {
    j->w = w;
    segments(j);
    j->chunks = gap_reduce_chunks(w->capacity, (size_t)(w->in_blocks * w->out_blocks * BLOCKS) * 4);
    j->i_parts = gap_ceil_div(w->in_blocks, SIDE), j->o_parts = gap_ceil_div(w->out_blocks, SIDE);
    while (units_of(j) < UNITS) {
        const int64_t in = w->in_blocks / j->i_parts, out = w->out_blocks / j->o_parts;
        if (in >= out && in >= 4) j->i_parts *= 2;
        else if (out >= 4) j->o_parts *= 2;
        else break;
    }
    j->i_most = gap_ceil_div(w->in_blocks, j->i_parts), j->o_most = gap_ceil_div(w->out_blocks, j->o_parts);
    const int64_t tiles = gap_min64(w->capacity, j->images) * j->rows * j->cols;
    j->plane_row = (j->cols * w->m + 2) * 16;
    j->v_pos = skewed(j->i_most * tiles * 16), j->z_pos = skewed(j->o_most * tiles * 16), j->g_pos = skewed(j->i_most * j->o_most * 256);
    j->parts_bytes = j->chunks > 1 ? gap_scratch_round((size_t)(j->chunks * w->in_blocks * w->out_blocks * BLOCKS) * 4) : 0;
    j->plane_bytes = gap_scratch_round((size_t)((j->rows * w->m + 2) * j->plane_row) * 4);
    j->v_bytes = gap_scratch_round((size_t)(w->n_pos * j->v_pos) * 4), j->z_bytes = gap_scratch_round((size_t)(w->n_pos * j->z_pos) * 4);
    j->g_bytes = gap_scratch_round((size_t)(w->n_pos * j->g_pos) * 4);
}

static size_t slot_bytes(const grad_job *j) { return j->plane_bytes + j->v_bytes + j->z_bytes + j->g_bytes; }

size_t gap_wino_grad_bytes(const gap_wino *forward, int slots) {
    grad_job j = {0};
    cut(&j, forward);
    return j.parts_bytes + slot_bytes(&j) * (size_t)slots_of(&j, slots);
}

/* A segment: images [n0, n1), tile rows [r0, r1), tile columns [c0, c1); a unit's blocks and buffers. */
typedef struct {
    int64_t n0, n1, r0, r1, c0, c1;
    int64_t i0, i1, o0, o1;
    float *plane, *v, *z, *g;
} segment;

/* One block of one image through a prologue into the padded plane: the pixels of the segment's tiles and `halo` more. */
static void load(const grad_job *j, const segment *s, const gap_source *from, int64_t h, int64_t w, int64_t n, int64_t b, int64_t halo,
                 const int64_t pad[2]) {
    const int m = j->w->m;
    const gap_stream_load l = {.x = from->x + n * gap_source_image(from) + b * from->plane, .h = h, .w = w, .lanes = 16, .dst = s->plane,
                               .dst_row = j->plane_row, .rows = (s->r1 - s->r0) * m + halo, .cols = (s->c1 - s->c0) * m + halo,
                               .row0 = s->r0 * m - pad[0], .col0 = s->c0 * m - pad[1], .pro = gap_source_at(from, n, b)};
    j->stream->load(&l);
}

static void add_segment(const grad_job *j, const segment *s, bool first) {
    static const int64_t none[2] = {0, 0};
    const gap_wino *w = j->w;
    gap_wino_grid g;
    gap_wino_grid_of(&g, w, s->n1 - s->n0, s->r0, s->r1, s->c0, s->c1);
    for (int64_t b = s->i0; b < s->i1; b++)
        for (int64_t n = s->n0; n < s->n1; n++) {
            load(j, s, j->x, w->in_h, w->in_w, n, b, 2, w->pad);
            gap_wino_grid_transform(&g, j->k->input, s->plane, j->plane_row, n - s->n0, s->v + (b - s->i0) * g.tiles * 16, j->v_pos);
        }
    for (int64_t b = s->o0; b < s->o1; b++)
        for (int64_t n = s->n0; n < s->n1; n++) {
            load(j, s, j->dy, w->out_h, w->out_w, n, b, 0, none);
            gap_wino_grid_transform(&g, j->k->spread, s->plane, j->plane_row, n - s->n0, s->z + (b - s->o0) * g.tiles * 16, j->z_pos);
        }
    gap_wino_gram q = {.v_block = g.tiles * 16, .z_oc = g.tiles * 16, .g_block = (s->o1 - s->o0) * 256, .g_oc = 256,
                       .channels = (int)(gap_min64(w->in_c, s->i1 * 16) - s->i0 * 16), .oc_blocks = (int)(s->o1 - s->o0), .keep = !first};
    for (int pos = 0; pos < w->n_pos; pos++) {
        int64_t at;
        q.tiles = gap_wino_grid_at(&g, pos, &at);
        q.v = s->v + pos * j->v_pos + at * 16, q.z = s->z + pos * j->z_pos + at * 16, q.g = s->g + pos * j->g_pos;
        if (first || q.tiles) j->k->gram(&q);
    }
}

/* Writes, or adds, the kernels of input block i and output block o to dw. */
static void scatter(const grad_job *j, int64_t i, int64_t o, const float *taps) {
    const gap_wino *w = j->w;
    const int64_t lanes = gap_min64(16, w->out_c - o * 16), channels = gap_min64(16, w->in_c - i * 16);
    for (int64_t l = 0; l < lanes; l++)
        for (int64_t k = 0; k < channels; k++) {
            float *to = j->dw + ((o * 16 + l) * w->in_c + i * 16 + k) * 9;
            const float *from = taps + k * 16 + l;
            for (int t = 0; t < 9; t++) to[t] = j->add ? to[t] + from[t * 256] : from[t * 256];
        }
}

/* G back to kernels: into the chunk's part, or where there is one chunk, into dw. */
static void bring_back(const grad_job *j, const segment *s, int chunk, bool empty) {
    const gap_wino *w = j->w;
    for (int64_t o = s->o0; o < s->o1; o++)
        for (int64_t i = s->i0; i < s->i1; i++) {
            float own[BLOCKS], *to = j->chunks > 1 ? j->parts + ((chunk * w->out_blocks + o) * w->in_blocks + i) * BLOCKS : own;
            const gap_wino_taps t = {.m = w->m, .g = s->g + ((i - s->i0) * (s->o1 - s->o0) + o - s->o0) * 256, .g_pos = j->g_pos,
                                     .channels = (int)gap_min64(16, w->in_c - i * 16), .w = to};
            if (empty) memset(to, 0, BLOCKS * sizeof *to);
            else j->k->taps(&t);
            if (j->chunks == 1) scatter(j, i, o, own);
        }
}

static void grad_unit(void *arg, int64_t unit, int thread) {
    grad_job *j = arg;
    const gap_wino *w = j->w;
    const int64_t ip = unit % j->i_parts, op = unit / j->i_parts % j->o_parts;
    const int chunk = (int)(unit / j->i_parts / j->o_parts);
    int64_t begin, end;
    int slot;
    bool empty = true;
    unsigned char *scratch = gap_scratch_take(&j->scratch, thread, &slot);
    segment s = {.i0 = w->in_blocks * ip / j->i_parts, .i1 = w->in_blocks * (ip + 1) / j->i_parts,
                 .o0 = w->out_blocks * op / j->o_parts, .o1 = w->out_blocks * (op + 1) / j->o_parts};
    s.plane = (float *)(void *)scratch, scratch += j->plane_bytes;
    s.v = (float *)(void *)scratch, scratch += j->v_bytes;
    s.z = (float *)(void *)scratch, scratch += j->z_bytes;
    s.g = (float *)(void *)scratch;
    gap_reduce_range(w->capacity, j->chunks, chunk, j->n, &begin, &end);
    for (s.n0 = begin; s.n0 < end; s.n0 = s.n1) {
        s.n1 = gap_min64(end, s.n0 + j->images);
        for (s.r0 = 0; s.r0 < w->tiles_h; s.r0 = s.r1) {
            s.r1 = gap_min64(w->tiles_h, s.r0 + j->rows);
            for (s.c0 = 0; s.c0 < w->tiles_w; s.c0 = s.c1) {
                s.c1 = gap_min64(w->tiles_w, s.c0 + j->cols);
                add_segment(j, &s, empty);
                empty = false;
            }
        }
    }
    bring_back(j, &s, chunk, empty);
    gap_scratch_give(&j->scratch, slot);
}

/* Adds the chunks' parts in order. */
static void sum_parts(void *arg, int64_t unit, int thread) {
    (void)thread;
    const grad_job *j = arg;
    const gap_wino *w = j->w;
    const int64_t part = w->in_blocks * w->out_blocks * BLOCKS;
    float sum[BLOCKS];
    memcpy(sum, j->parts + unit * BLOCKS, sizeof sum);
    for (int c = 1; c < j->chunks; c++) {
        const float *more = j->parts + c * part + unit * BLOCKS;
        for (int64_t k = 0; k < BLOCKS; k++) sum[k] += more[k];
    }
    scatter(j, unit % w->in_blocks, unit / w->in_blocks, sum);
}

gap_status gap_wino_grad(const gap_wino *forward, const gap_op_ctx *ctx, const gap_source *x, const gap_source *dy, float *dw, bool add,
                         int slots) {
    gap_status st = GAP_OK;
    grad_job j = {.k = ctx->kernels->winograd, .stream = ctx->kernels->stream, .x = x, .dy = dy, .dw = dw, .parts = ctx->workspace, .add = add,
                  .n = ctx->n};
    cut(&j, forward);
    gap_scratch_begin(&j.scratch, (unsigned char *)ctx->workspace + j.parts_bytes, slot_bytes(&j), slots_of(&j, slots));
    GAP_TRY(gap_parallel(units_of(&j), grad_unit, &j));
    if (j.chunks > 1) GAP_TRY(gap_parallel(forward->in_blocks * forward->out_blocks, sum_parts, &j));
done:
    return st;
}

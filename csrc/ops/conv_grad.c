/* conv_grad.c — gradients of weights and bias: partial sums per chunk of images, in forward's packed order, then added. */
#include "ops/conv_plan.h"

#include <string.h>

#define UNIT_BLOCKS 8 /* output blocks of a unit */

/* How the pixels are cut into segments, a function of shape only: whole images when they are small, else rows. */
typedef struct {
    int64_t images, rows, cols; /* of a segment */
    size_t x_bytes, dy_bytes;   /* one block of a segment: padded input; gradient of the output */
} grad_cut;

static grad_cut cut_of(const conv_pass *p) {
    grad_cut c = {.cols = p->count[1]};
    const int64_t pixels = p->count[0] * p->count[1];
    c.images = gap_max64(1, CONV_SEGMENT / pixels);
    c.rows = gap_min64(p->count[0], gap_max64(1, CONV_SEGMENT / p->count[1]));
    if (p->flat) c.cols = gap_min64(p->count[1], CONV_SEGMENT);
    const int64_t rows_in = (c.rows - 1) * p->in_step[0] + p->last[0] - p->first[0] + 1;
    c.x_bytes = gap_scratch_round((size_t)(c.images * rows_in * (p->flat ? c.cols : p->cols) * p->lanes) * 4);
    c.dy_bytes = gap_scratch_round((size_t)(c.images * c.rows * c.cols) * 64);
    return c;
}

static int64_t part_floats(const conv_pass *p) { return p->out_blocks * p->w_oc; }

int gap_conv_grad_chunks(const conv_pass *p, int64_t capacity) { return gap_reduce_chunks(capacity, (size_t)part_floats(p) * 4); }

/* Units: chunks, cut across output and input blocks. A unit packs an input block once for all its output blocks, so these are
 * many; it adds to its partial sums segment after segment, so they stay in the second cache. */
typedef struct { int64_t step, o_tiles, b_tiles; } grad_units; /* step: output blocks of a unit */

static grad_units units_of(const conv_pass *p, int chunks) {
    grad_units u = {.step = gap_min64(UNIT_BLOCKS, p->out_blocks)};
    for (;; u.step = gap_ceil_div(u.step, 2)) {
        u.o_tiles = gap_ceil_div(p->out_blocks, u.step);
        const int64_t sums = u.step * p->w_oc * 4; /* bytes */
        u.b_tiles = gap_min64(p->in_blocks, gap_max64(gap_ceil_div(sums, (int64_t)CONV_SCRATCH), gap_ceil_div(CONV_UNITS / 2, chunks * u.o_tiles)));
        if (u.step <= 2 || chunks * u.o_tiles * u.b_tiles >= CONV_UNITS / 2) return u;
    }
}

/* The workspace holds the partial sums of dw, then scratch; then, when dw is done, what db needs. */
static size_t dw_bytes(const conv_pass *p, int64_t capacity) {
    return gap_scratch_round((size_t)(gap_conv_grad_chunks(p, capacity) * part_floats(p)) * 4);
}
static int bias_chunks(const conv_pass *p, int64_t capacity) { return gap_reduce_chunks(capacity, (size_t)p->out_blocks * 64); }
static size_t scratch_bytes(const conv_pass *p, int64_t capacity, bool dy_packed) {
    const grad_cut c = cut_of(p);
    return c.x_bytes + (dy_packed ? c.dy_bytes * (size_t)units_of(p, gap_conv_grad_chunks(p, capacity)).step : 0);
}

size_t gap_conv_grad_bytes(const conv_pass *p, int64_t capacity, bool dy_packed, int slots) {
    const size_t dw = dw_bytes(p, capacity) + gap_scratch_round(scratch_bytes(p, capacity, dy_packed)) * (size_t)slots;
    const size_t db = gap_conv_bias_bytes(p, capacity, slots);
    return dw > db ? dw : db;
}

typedef struct {
    const conv_pass *p;
    const gap_conv_kernels *k;
    const gap_stream_kernels *stream;
    const gap_source *x, *dy;  /* (n, in blocks, h, w, lanes), (n, out blocks, oh, ow, 16) */
    bool dy_packed;
    const int64_t *off;
    float *parts;              /* (chunks, out blocks, w_oc) */
    int64_t n, capacity;
    int chunks;
    grad_units units;
    grad_cut cut;
    gap_scratch scratch;
} grad_job;

/* A segment: images [n0, n1), rows [i0, i1), columns [j0, j1) of the output. */
typedef struct { int64_t n0, n1, i0, i1, j0, j1; } segment;

/* Where a segment's gradient of the output lies: block o, image n at + (o - o0)*block + (n - n0)*image. */
typedef struct { const float *at; int64_t row, image, block, o0; } grad_output;

/* Of a segment's first pixel in block o. */
static int64_t output_at(const grad_job *job, const segment *s, int64_t o) {
    return s->n0 * gap_source_image(job->dy) + o * job->dy->plane + (s->i0 * job->p->out_w + s->j0) * 16;
}

static grad_output pack_output(const grad_job *job, const segment *s, int64_t o0, int64_t o1, float *scratch) {
    const conv_pass *p = job->p;
    const int64_t rows = s->i1 - s->i0, cols = s->j1 - s->j0;
    if (!job->dy_packed)
        return (grad_output){job->dy->x + output_at(job, s, o0), p->out_w * 16, gap_source_image(job->dy), job->dy->plane, o0};
    const grad_output d = {scratch, cols * 16, rows * cols * 16, (int64_t)(job->cut.dy_bytes / 4), o0};
    for (int64_t o = o0; o < o1; o++)
        for (int64_t n = s->n0; n < s->n1; n++)
            gap_conv_load(job->stream, job->dy, p->out_h, p->out_w, 16, n, o, s->i0, rows, s->j0, cols,
                          scratch + (o - o0) * d.block + (n - s->n0) * d.image);
    return d;
}

/* Input block b of a segment: packed, or where it lies; row and image strides with it. */
typedef struct { const float *at; int64_t row, image; } grad_input;

static grad_input pack_input(const grad_job *job, const segment *s, int64_t b, float *scratch) {
    const conv_pass *p = job->p;
    if (p->direct) {
        const int64_t plane = p->in_h * p->in_w * p->lanes, all = gap_source_image(job->x);
        const float *at = job->x->x + s->n0 * all + b * plane + (s->i0 * p->in_step[0] * p->in_w + s->j0 * p->in_step[1]) * p->lanes;
        return (grad_input){at, p->cols * p->lanes, all};
    }
    const int64_t rows = (s->i1 - 1 - s->i0) * p->in_step[0] + p->last[0] - p->first[0] + 1, cols = p->flat ? s->j1 - s->j0 : p->cols;
    const grad_input in = {scratch, cols * p->lanes, rows * cols * p->lanes};
    for (int64_t n = s->n0; n < s->n1; n++)
        gap_conv_load(job->stream, job->x, p->in_h, p->in_w, p->lanes, n, b, s->i0 * p->in_step[0] + p->first[0], rows,
                      p->flat ? s->j0 : p->first[1], cols, scratch + (n - s->n0) * in.image);
    return in;
}

/* What is fetched while products of input block b are added: with the first entry of the kernel the output's gradient of the next
 * segment, once for all input blocks; with the others the pictures below, as many vectors an entry as there are pixels. Of
 * wider inputs a block is loaded and used up several times over before the next one. */
static gap_conv_ahead fetched(const grad_job *job, const segment *s, const segment *after, int64_t b, int64_t o, int oc_blocks, int64_t entry) {
    const conv_pass *p = job->p;
    const gap_source *dy = job->dy, *x = job->x;
    if (!after || b > gap_conv_lo(p, o)) return (gap_conv_ahead){.blocks = 0};
    if (entry == 0) {
        const int64_t at = output_at(job, after, o);
        return (gap_conv_ahead){{dy->x + at, dy->pro.z ? dy->pro.z + at : dy->x + at}, gap_source_image(dy), dy->plane, oc_blocks};
    }
    const int64_t pixels = (s->i1 - s->i0) * (s->j1 - s->j0), wanted = (after->i1 - after->i0) * p->in_step[0] * p->in_w * p->lanes;
    const int64_t each = x->bytes ? 64 : 16, from = (entry - 1) * pixels * each; /* values of a vector's 64 bytes */
    if (p->lanes == 16 || from >= wanted) return (gap_conv_ahead){.blocks = 0};
    const int64_t row = after->n0 == s->n0 ? (s->i1 - 1) * p->in_step[0] + p->last[0] + 1 : 0; /* the first that is not loaded yet */
    return gap_conv_picture_ahead(x, after->n0 * gap_source_image(x) + row * p->in_w * p->lanes + from, gap_source_image(x));
}

/* Adds a segment's products of input block b with output blocks [o, o + oc_blocks). */
static void grad_cols(const grad_job *job, const segment *s, const segment *after, const grad_input *in, const grad_output *d, int64_t b, int64_t o,
                      int oc_blocks, float *part) {
    const conv_pass *p = job->p;
    const bool tail = p->lanes == 16 && b + 1 == p->in_blocks;
    gap_conv_cols c = {.a_px = p->in_step[1] * p->lanes, .a_row = p->in_step[0] * in->row, .a_img = in->image,
                       .d = d->at + (o - d->o0) * d->block, .d_px = 16, .d_row = d->row, .d_img = d->image, .d_oc = d->block,
                       .pixels = s->j1 - s->j0, .rows = s->i1 - s->i0, .images = s->n1 - s->n0,
                       .m = (int)(tail ? p->in_c - b * 16 : p->run), .oc_blocks = oc_blocks,
                       .half = o + oc_blocks == p->out_blocks && gap_conv_half(p->out_c), .dw_k = 16, .dw_oc = p->w_oc};
    for (int64_t t = 0; t < p->entries; t++) {
        c.a = in->at + job->off[t];
        c.ahead[0] = fetched(job, s, after, b, o, oc_blocks, t);
        c.dw = part + o * p->w_oc + ((b - gap_conv_lo(p, o)) * p->entries + t) * p->run * 16;
        job->k->cols(&c);
    }
}

/* The same of one output block, in groups: a kernel row at a time. */
static void grad_groups(const grad_job *job, const segment *s, const grad_input *in, const grad_output *d, int64_t o, float *part) {
    const conv_pass *p = job->p;
    gap_conv_group_cols c = {.a_row = p->in_step[0] * in->row, .a_img = in->image, .d = d->at + (o - d->o0) * d->block, .d_row = d->row, .d_img = d->image,
                             .pixels = s->j1 - s->j0, .rows = s->i1 - s->i0, .images = s->n1 - s->n0, .step = (int)p->in_step[1], .group = (int)p->group};
    for (int64_t t = 0; t < p->entries; t += p->kernel[1]) {
        c.a = in->at + job->off[t];
        c.dw = part + o * p->w_oc + t * p->run * 16;
        job->k->group_cols(&c);
    }
}

/* Output blocks [o0, o1) against input block b; neighbours of one range go together. */
static void grad_block(const grad_job *job, const segment *s, const segment *after, const grad_output *d, int64_t b, int64_t o0, int64_t o1, float *scratch, float *part) {
    const conv_pass *p = job->p;
    grad_input in = {NULL, 0, 0};
    for (int64_t o = o0, next; o < o1; o = next) {
        const int64_t lo = gap_conv_lo(p, o);
        for (next = o + 1; next < o1 && gap_conv_lo(p, next) == lo;) next++;
        if (b < lo || b >= lo + p->range) continue;
        if (!in.at) in = pack_input(job, s, b, scratch);
        if (p->group) grad_groups(job, s, &in, d, o, part);
        else grad_cols(job, s, after, &in, d, b, o, (int)(next - o), part);
    }
}

/* The segment behind s, before image `end`; false: s was the last. */
static bool next_segment(const grad_job *job, segment *s, int64_t end) {
    const conv_pass *p = job->p;
    if (s->j1 < p->count[1]) {
        s->j0 = s->j1;
    } else {
        s->j0 = 0;
        if (s->i1 < p->count[0]) s->i0 = s->i1;
        else if (s->n1 < end) s->i0 = 0, s->n0 = s->n1, s->n1 = gap_min64(end, s->n0 + job->cut.images);
        else return false;
        s->i1 = gap_min64(p->count[0], s->i0 + job->cut.rows);
    }
    s->j1 = gap_min64(p->count[1], s->j0 + job->cut.cols);
    return true;
}

static void grad_chunk(void *arg, int64_t unit, int thread) {
    grad_job *job = arg;
    const conv_pass *p = job->p;
    const int64_t ot = unit % job->units.o_tiles, bt = unit / job->units.o_tiles % job->units.b_tiles;
    const int chunk = (int)(unit / job->units.o_tiles / job->units.b_tiles);
    const int64_t o0 = ot * job->units.step, o1 = gap_min64(p->out_blocks, o0 + job->units.step);
    const int64_t b0 = p->in_blocks * bt / job->units.b_tiles, b1 = p->in_blocks * (bt + 1) / job->units.b_tiles;
    const int64_t lo0 = gap_conv_lo(p, o0), lo1 = gap_conv_lo(p, o1 - 1) + p->range;
    float *part = job->parts + chunk * part_floats(p);
    int64_t begin, end;
    int slot;
    gap_reduce_range(job->capacity, job->chunks, chunk, job->n, &begin, &end);
    for (int64_t o = o0; o < o1; o++) {
        const int64_t lo = gap_conv_lo(p, o), block = p->w_oc / p->range;
        const int64_t r0 = gap_max64(0, gap_min64(p->range, b0 - lo)), r1 = gap_max64(0, gap_min64(p->range, b1 - lo));
        if (r1 > r0) memset(part + o * p->w_oc + r0 * block, 0, (size_t)((r1 - r0) * block) * sizeof *part);
    }
    float *scratch = gap_scratch_take(&job->scratch, thread, &slot);
    segment s = {begin, gap_min64(end, begin + job->cut.images), 0, gap_min64(p->count[0], job->cut.rows), 0, gap_min64(p->count[1], job->cut.cols)};
    for (bool more = begin < end; more;) {
        segment after = s;
        more = next_segment(job, &after, end);
        const grad_output d = pack_output(job, &s, o0, o1, scratch + job->cut.x_bytes / 4);
        for (int64_t b = gap_max64(b0, lo0); b < gap_min64(b1, lo1); b++) grad_block(job, &s, more ? &after : NULL, &d, b, o0, o1, scratch, part);
        s = after;
    }
    gap_scratch_give(&job->scratch, slot);
}

typedef struct {
    const conv_pass *p;
    const gap_op_ctx *ctx;
    const gap_source *dy;      /* (n, out blocks, oh, ow, 16) */
    bool packed;
    float *parts;              /* (chunks, out blocks, 16) */
    int chunks;
    gap_scratch scratch;       /* a segment of dy */
} bias_job;

static void bias_chunk(void *arg, int64_t unit, int thread) {
    bias_job *job = arg;
    const conv_pass *p = job->p;
    const int64_t o = unit % p->out_blocks, plane = p->out_h * p->out_w * 16;
    float *sum = job->parts + unit * 16, *scratch = NULL;
    int64_t begin, end;
    int slot = 0;
    gap_reduce_range(job->ctx->capacity, job->chunks, (int)(unit / p->out_blocks), job->ctx->n, &begin, &end);
    memset(sum, 0, 16 * sizeof *sum);
    if (job->packed) scratch = gap_scratch_take(&job->scratch, thread, &slot);
    for (int64_t n = begin; n < end; n++) {
        const float *at = job->dy->x + n * gap_source_image(job->dy) + o * plane;
        if (job->packed) gap_conv_load(job->ctx->kernels->stream, job->dy, p->out_h, p->out_w, 16, n, o, 0, p->out_h, 0, p->out_w, scratch);
        job->ctx->kernels->conv->channel_sum(sum, job->packed ? scratch : at, plane / 16);
    }
    if (job->packed) gap_scratch_give(&job->scratch, slot);
}

static void bias_finish(void *arg, int64_t unit, int thread) {
    (void)unit, (void)thread;
    const bias_job *job = arg;
    float *db = job->ctx->dweight[1]; /* (OC) */
    for (int64_t c = 0; c < job->p->out_c; c++) {
        float s = job->parts[c];
        for (int k = 1; k < job->chunks; k++) s += job->parts[k * job->p->out_blocks * 16 + c];
        db[c] = job->ctx->dweight_add ? db[c] + s : s;
    }
}

static size_t bias_parts(const conv_pass *p, int64_t capacity) {
    return gap_scratch_round((size_t)(bias_chunks(p, capacity) * p->out_blocks) * 64);
}

size_t gap_conv_bias_bytes(const conv_pass *p, int64_t capacity, int slots) {
    return bias_parts(p, capacity) + gap_scratch_round((size_t)(p->out_h * p->out_w) * 64) * (size_t)slots;
}

gap_status gap_conv_bias(const conv_pass *p, const gap_op_ctx *ctx, const gap_source *dy, int slots) {
    bias_job job = {.p = p, .ctx = ctx, .dy = dy, .packed = !gap_source_plain(dy), .parts = ctx->workspace, .chunks = bias_chunks(p, ctx->capacity)};
    gap_scratch_begin(&job.scratch, (unsigned char *)ctx->workspace + bias_parts(p, ctx->capacity), (size_t)(p->out_h * p->out_w) * 64, slots);
    const gap_status st = gap_parallel(job.chunks * p->out_blocks, bias_chunk, &job);
    return st == GAP_OK ? gap_parallel(1, bias_finish, &job) : st;
}

gap_status gap_conv_grad(const conv_pass *p, const gap_op_ctx *ctx, const conv_derived *d, const gap_source *x, const gap_source *dy, int slots) {
    const unsigned char *derived = ctx->derived;
    unsigned char *work = ctx->workspace;
    grad_job job = {.p = p, .k = ctx->kernels->conv, .stream = ctx->kernels->stream, .x = x, .dy = dy, .dy_packed = !gap_source_plain(dy),
                    .n = ctx->n, .capacity = ctx->capacity, .off = (const int64_t *)(const void *)(derived + d->off), .cut = cut_of(p),
                    .parts = (float *)(void *)work, .chunks = gap_conv_grad_chunks(p, ctx->capacity)};
    job.units = units_of(p, job.chunks);
    gap_scratch_begin(&job.scratch, work + dw_bytes(p, ctx->capacity), scratch_bytes(p, ctx->capacity, job.dy_packed), slots);
    const gap_status st = gap_parallel(job.chunks * job.units.o_tiles * job.units.b_tiles, grad_chunk, &job);
    if (st != GAP_OK) return st;
    return gap_conv_unpack(p, (const conv_place *)(const void *)(derived + d->place), ctx->dweight[0], ctx->dweight_add, job.parts,
                           job.chunks, part_floats(p));
}

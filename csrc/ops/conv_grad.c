/* conv_grad.c — gradients of weights and bias: partial sums per chunk of images, in forward's packed order, then added. */
#include "ops/conv_plan.h"

#include <string.h>


/* How the pixels are cut into segments, a function of shape only: whole images when they are small, else rows. */
typedef struct {
    int64_t images, rows, cols; /* of a segment */
    int64_t n_rows, n_cols;     /* segments of an image */
    size_t scratch_bytes;       /* padded input of one block */
} grad_cut;

static grad_cut cut_of(const conv_pass *p) {
    grad_cut c = {.cols = p->count[1]};
    const int64_t pixels = p->count[0] * p->count[1];
    c.images = gap_max64(1, CONV_SEGMENT / pixels);
    c.rows = gap_min64(p->count[0], gap_max64(1, CONV_SEGMENT / p->count[1]));
    if (p->count[0] == 1 && p->direct) c.cols = gap_min64(p->count[1], CONV_SEGMENT);
    c.n_rows = gap_ceil_div(p->count[0], c.rows), c.n_cols = gap_ceil_div(p->count[1], c.cols);
    const int64_t rows_in = (c.rows - 1) * p->in_step[0] + p->last[0] - p->first[0] + 1;
    if (!p->direct) c.scratch_bytes = (size_t)(c.images * rows_in * p->cols * p->lanes) * 4;
    return c;
}

static int64_t part_floats(const conv_pass *p) { return p->out_blocks * p->w_oc; }

int gap_conv_grad_chunks(const conv_pass *p, int64_t capacity) { return gap_reduce_chunks(capacity, (size_t)part_floats(p) * 4); }

/* The workspace holds the partial sums of dw, then scratch; then, when dw is done, the partial sums of db. */
static size_t dw_bytes(const conv_pass *p, int64_t capacity) {
    return gap_scratch_round((size_t)(gap_conv_grad_chunks(p, capacity) * part_floats(p)) * 4);
}
static int bias_chunks(const conv_pass *p, int64_t capacity) { return gap_reduce_chunks(capacity, (size_t)p->out_blocks * 64); }

size_t gap_conv_grad_bytes(const conv_pass *p, int64_t capacity, int slots) {
    const size_t dw = dw_bytes(p, capacity) + gap_scratch_round(cut_of(p).scratch_bytes) * (size_t)slots;
    const size_t db = gap_conv_bias_bytes(p, capacity);
    return dw > db ? dw : db;
}

typedef struct {
    const conv_pass *p;
    const gap_conv_kernels *k;
    const float *x, *dy;       /* (n, in blocks, h, w, lanes), (n, out blocks, oh, ow, 16) */
    const int64_t *off;
    float *parts;              /* (chunks, out blocks, w_oc) */
    int64_t n, capacity;
    int chunks;
    int64_t o_step, o_tiles, b_tiles; /* output blocks of a unit; units across output and input blocks */
    grad_cut cut;
    gap_prologue pro;
    gap_scratch scratch;
} grad_job;

/* A segment: images [n0, n1), rows [i0, i1), columns [j0, j1) of the output. */
typedef struct { int64_t n0, n1, i0, i1, j0, j1; } segment;

/* Input block b of a segment: packed, or where it lies. Gives the place of its first pixel and its image stride. */
static const float *grad_input(const grad_job *job, const segment *s, int64_t b, float *scratch, int64_t *image) {
    const conv_pass *p = job->p;
    const int64_t plane = p->in_h * p->in_w * p->lanes, all = p->in_blocks * plane;
    if (p->direct) {
        *image = all;
        return job->x + s->n0 * all + b * plane + (s->i0 * p->in_step[0] * p->in_w + s->j0 * p->in_step[1]) * p->lanes;
    }
    const int64_t rows = (s->i1 - 1 - s->i0) * p->in_step[0] + p->last[0] - p->first[0] + 1;
    *image = rows * p->cols * p->lanes;
    for (int64_t n = s->n0; n < s->n1; n++) {
        const gap_conv_pack pk = {.x = job->x + n * all + b * plane, .h = p->in_h, .w = p->in_w, .lanes = p->lanes,
                                  .dst = scratch + (n - s->n0) * *image, .dst_row = p->cols * p->lanes, .rows = rows, .cols = p->cols,
                                  .row0 = s->i0 * p->in_step[0] + p->first[0], .col0 = p->first[1], .pro = job->pro};
        job->k->pack(&pk);
    }
    return scratch;
}

/* Adds a segment's products of input block b with output blocks [o, o + oc_blocks). */
static void grad_cols(const grad_job *job, const segment *s, const float *a, int64_t image, int64_t b, int64_t o,
                      int oc_blocks, float *part) {
    const conv_pass *p = job->p;
    const int64_t plane = p->out_h * p->out_w * 16, row = p->cols * p->lanes;
    const bool tail = p->lanes == 16 && b + 1 == p->in_blocks;
    gap_conv_cols c = {.a_px = p->in_step[1] * p->lanes, .a_row = p->in_step[0] * row, .a_img = image,
                       .d = job->dy + (s->n0 * p->out_blocks + o) * plane + (s->i0 * p->out_w + s->j0) * 16,
                       .d_px = 16, .d_row = p->out_w * 16, .d_img = p->out_blocks * plane, .d_oc = plane, .pixels = s->j1 - s->j0,
                       .rows = s->i1 - s->i0, .images = s->n1 - s->n0, .m = (int)(tail ? p->in_c - b * 16 : p->run),
                       .oc_blocks = oc_blocks, .dw_k = 16, .dw_oc = p->w_oc};
    for (int64_t t = 0; t < p->entries; t++) {
        c.a = a + job->off[t];
        c.dw = part + o * p->w_oc + ((b - gap_conv_lo(p, o)) * p->entries + t) * p->run * 16;
        job->k->cols(&c);
    }
}

static void grad_depthwise(const grad_job *job, const segment *s, const float *a, int64_t image, int64_t o, float *part) {
    const conv_pass *p = job->p;
    const int64_t plane = p->out_h * p->out_w * 16;
    for (int64_t n = s->n0; n < s->n1; n++) {
        const gap_conv_depthwise_dw r = {
            .a = a + (n - s->n0) * image, .a_px = p->in_step[1] * 16, .a_row = p->in_step[0] * p->cols * 16, .off = job->off,
            .taps = (int)p->taps, .d = job->dy + (n * p->out_blocks + o) * plane + (s->i0 * p->out_w + s->j0) * 16,
            .d_row = p->out_w * 16, .pixels = s->j1 - s->j0, .rows = s->i1 - s->i0, .dw = part + o * p->w_oc};
        job->k->depthwise_dw(&r);
    }
}

/* Output blocks [o0, o1) against input block b; neighbours of one range go together. */
static void grad_block(const grad_job *job, const segment *s, int64_t b, int64_t o0, int64_t o1, float *scratch, float *part) {
    const conv_pass *p = job->p;
    int64_t image = 0;
    const float *a = NULL;
    for (int64_t o = o0, next; o < o1; o = next) {
        const int64_t lo = gap_conv_lo(p, o);
        for (next = o + 1; next < o1 && !p->depthwise && gap_conv_lo(p, next) == lo;) next++;
        if (b < lo || b >= lo + p->range) continue;
        if (!a) a = grad_input(job, s, b, scratch, &image);
        if (p->depthwise) grad_depthwise(job, s, a, image, o, part);
        else grad_cols(job, s, a, image, b, o, (int)(next - o), part);
    }
}

static void grad_chunk(void *arg, int64_t unit, int thread) {
    grad_job *job = arg;
    const conv_pass *p = job->p;
    const int64_t ot = unit % job->o_tiles, bt = unit / job->o_tiles % job->b_tiles;
    const int chunk = (int)(unit / job->o_tiles / job->b_tiles);
    const int64_t o0 = ot * job->o_step, o1 = gap_min64(p->out_blocks, o0 + job->o_step);
    const int64_t b0 = p->in_blocks * bt / job->b_tiles, b1 = p->in_blocks * (bt + 1) / job->b_tiles;
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
    for (segment s = {.n0 = begin}; s.n0 < end; s.n0 = s.n1) {
        s.n1 = gap_min64(end, s.n0 + job->cut.images);
        for (s.i0 = 0; s.i0 < p->count[0]; s.i0 = s.i1)
            for (s.i1 = gap_min64(p->count[0], s.i0 + job->cut.rows), s.j0 = 0; s.j0 < p->count[1]; s.j0 = s.j1) {
                s.j1 = gap_min64(p->count[1], s.j0 + job->cut.cols);
                for (int64_t b = gap_max64(b0, lo0); b < gap_min64(b1, lo1); b++) grad_block(job, &s, b, o0, o1, scratch, part);
            }
    }
    gap_scratch_give(&job->scratch, slot);
}

typedef struct {
    const conv_pass *p;
    const gap_conv_kernels *k;
    const float *dy;           /* (n, out blocks, oh, ow, 16) */
    float *parts;              /* (chunks, out blocks, 16) */
    int64_t n, capacity;
    int chunks;
    float *db;
    bool add;
} bias_job;

static void bias_chunk(void *arg, int64_t unit, int thread) {
    (void)thread;
    const bias_job *job = arg;
    const conv_pass *p = job->p;
    const int64_t o = unit % p->out_blocks, plane = p->out_h * p->out_w * 16;
    float *sum = job->parts + unit * 16;
    int64_t begin, end;
    gap_reduce_range(job->capacity, job->chunks, (int)(unit / p->out_blocks), job->n, &begin, &end);
    memset(sum, 0, 16 * sizeof *sum);
    for (int64_t n = begin; n < end; n++) job->k->channel_sum(sum, job->dy + (n * p->out_blocks + o) * plane, plane / 16);
}

static void bias_finish(void *arg, int64_t unit, int thread) {
    (void)unit, (void)thread;
    const bias_job *job = arg;
    for (int64_t c = 0; c < job->p->out_c; c++) {
        float s = job->parts[c];
        for (int k = 1; k < job->chunks; k++) s += job->parts[k * job->p->out_blocks * 16 + c];
        job->db[c] = job->add ? job->db[c] + s : s;
    }
}

size_t gap_conv_bias_bytes(const conv_pass *p, int64_t capacity) { return (size_t)(bias_chunks(p, capacity) * p->out_blocks) * 64; }

gap_status gap_conv_bias(const conv_pass *p, const gap_op_ctx *ctx, float *parts) {
    bias_job job = {.p = p, .k = ctx->kernels->conv, .dy = ctx->dout, .parts = parts, .n = ctx->n, .capacity = ctx->capacity,
                    .chunks = bias_chunks(p, ctx->capacity), .db = ctx->dweight[1], .add = ctx->dweight_add};
    const gap_status st = gap_parallel(job.chunks * p->out_blocks, bias_chunk, &job);
    return st == GAP_OK ? gap_parallel(1, bias_finish, &job) : st;
}

/* Cuts output blocks, and where those are few also input blocks, into units enough for the threads. */
static void tile(grad_job *job) {
    const conv_pass *p = job->p;
    job->o_step = p->depthwise ? 1 : 2;
    job->o_tiles = gap_ceil_div(p->out_blocks, job->o_step);
    job->b_tiles = p->depthwise ? 1 : gap_min64(p->in_blocks, gap_ceil_div(CONV_UNITS / 2, job->chunks * job->o_tiles));
}

gap_status gap_conv_grad(const conv_pass *p, const gap_op_ctx *ctx, const conv_derived *d, int slots) {
    gap_status st = GAP_OK;
    const unsigned char *derived = ctx->derived;
    unsigned char *work = ctx->workspace;
    if (ctx->dweight[0]) {
        grad_job job = {.p = p, .k = ctx->kernels->conv, .x = ctx->in[0], .dy = ctx->dout, .n = ctx->n, .capacity = ctx->capacity,
                        .off = (const int64_t *)(const void *)(derived + d->off), .cut = cut_of(p), .parts = (float *)(void *)work,
                        .chunks = gap_conv_grad_chunks(p, ctx->capacity)};
        tile(&job);
        gap_scratch_begin(&job.scratch, work + dw_bytes(p, ctx->capacity), job.cut.scratch_bytes, slots);
        GAP_TRY(gap_parallel(job.chunks * job.o_tiles * job.b_tiles, grad_chunk, &job));
        GAP_TRY(gap_conv_unpack(p, (const conv_place *)(const void *)(derived + d->place), ctx->dweight[0], ctx->dweight_add, job.parts,
                                job.chunks, part_floats(p)));
    }
    if (ctx->dweight[1]) GAP_TRY(gap_conv_bias(p, ctx, ctx->workspace));
done:
    return st;
}

/* conv_pointwise_grad.c — backward: both gradients in one sweep over the output's gradient, or one of them alone. */
#include <string.h>

#include "kernels/conv.h"
#include "kernels/stream.h"
#include "ops/conv_pointwise.h"
#include "ops/conv_strassen.h"
#include "ops/scratch.h"

#define SLICE ((int64_t)2 << 20) /* bytes of weights and partial sums that a unit works on: they pass by segment after segment */
#define UNITS_PER_THREAD 2
#define KEPT 16 /* input blocks of a unit that stay in scratch while groups of output blocks pass by */

typedef struct {
    const gap_pointwise *p;
    const gap_kernels *k;
    gap_pointwise_side x, dy;
    gap_pointwise_goal dx;        /* s NULL: not wanted */
    const float *w;               /* packed for the input gradient */
    float *parts;                 /* (chunks, in block, out block, 16 in, 16 out); by halves (chunks, pair, four, STRASSEN_PARTS) */
    float *dw;                    /* (OC, C) */
    bool dw_add;
    int64_t n, capacity, b_parts, o_parts; /* units across input and output blocks */
    gap_scratch scratch;
} back_job;

/* Partial sums of a chunk. */
static int64_t part_floats(const gap_pointwise *p) {
    return p->fast_grad ? p->in_blocks / 2 * (p->out_blocks / STRASSEN_WIDE) * STRASSEN_PARTS : p->in_blocks * p->out_blocks * 256;
}
static size_t parts_bytes(const gap_pointwise *p) { return gap_scratch_round((size_t)(p->chunks * part_floats(p)) * sizeof(float)); }
static int64_t dy_floats(const gap_pointwise *p) { return gap_pointwise_scratch(0, p->group * p->images * p->tile); }
/* Two blocks of the input; by halves all of a unit, where they are so few, with their sums, which are as large. */
static int64_t x_floats(const gap_pointwise *p) {
    return p->fast_grad ? gap_pointwise_scratch(p->in_w, 2 * gap_min64(p->in_blocks, KEPT) * p->tile) : gap_pointwise_scratch(p->in_w, p->wide * p->images * p->segment);
}
/* Output blocks that go together into the input gradient. */
static int64_t together(const gap_pointwise *p) { return p->fast_back ? gap_strassen_group(p->out_blocks) : p->group; }
static int64_t sums_floats(const gap_pointwise *p) {
    const gap_pointwise_goal g = gap_pointwise_backward(p, NULL);
    const int64_t back = gap_pointwise_sums_floats(&g, together(p), p->images, p->tile), grad = p->fast_grad ? p->group * p->tile * 16 : 0;
    return gap_max64(back, grad); /* one after the other */
}
static size_t unit_bytes(const gap_pointwise *p) { return (size_t)(dy_floats(p) + x_floats(p) + sums_floats(p)) * sizeof(float); }
size_t gap_pointwise_grad_bytes(const gap_pointwise *p, int slots) { return parts_bytes(p) + gap_scratch_round(unit_bytes(p)) * (size_t)slots; }

/* Of a chunk's pass over its images: where it is. The tile's pixels are those of box; b0 and b1, o0 and o1 bound the unit. */
typedef struct {
    gap_pointwise_box box;
    int64_t band, p0, p1;         /* and its pixels */
    int64_t b0, b1, o0, o1, end;
} place;

static bool next_tile(const back_job *job, place *at) {
    const gap_pointwise *p = job->p;
    gap_pointwise_box *box = &at->box;
    if (box->p1 == at->p1) {
        if (++at->band == gap_pointwise_bands(&job->dx)) at->band = 0, box->n0 = box->n1, box->n1 = gap_min64(at->end, box->n0 + p->images);
        if (box->n0 >= at->end) return false;
        gap_pointwise_band(&job->dx, at->band, &at->p0, &at->p1);
        box->p1 = at->p0;
    }
    box->p0 = box->p1, box->p1 = gap_min64(at->p1, box->p0 + p->tile);
    return true;
}

/* What is fetched while a tile is worked on: the input and its gradient of the next blocks, and of the next tile its share of
 * the output's gradient: blocks from `o` on, `pixels` into the tile. */
static gap_conv_ahead next_blocks(const back_job *job, const gap_pointwise_box *box, int64_t b) {
    const gap_source *s = job->x.s;
    const int64_t at = box->n0 * gap_source_image(s) + b * s->plane + box->p0 * 16;
    return (gap_conv_ahead){{s->x + at, job->dx.s ? job->dx.s->y + at : s->x + at}, gap_source_image(s), s->plane, 1};
}

/* What the epilogue of block b will read beside the input: values behind an op in between. */
static gap_conv_ahead epilogue_values(const back_job *job, const gap_pointwise_box *box, int64_t b) {
    const gap_pointwise *p = job->p;
    const gap_sink *s = job->dx.s;
    if (!s || !s->epi.z || s->epi.z == job->x.s->x || p->stride[0] * p->stride[1] > 1) return (gap_conv_ahead){{NULL, NULL}, 0, 0, 0};
    const int64_t at = box->n0 * gap_sink_image(s) + b * s->plane + box->p0 * 16;
    return (gap_conv_ahead){{s->epi.z + at, (s->epi.z2 ? s->epi.z2 : s->epi.z) + at}, gap_sink_image(s), s->plane, 1};
}

static gap_conv_ahead next_output(const back_job *job, const gap_pointwise_box *next, int64_t o, int64_t blocks, int64_t pixels) {
    const gap_source *s = job->dy.s;
    const float *at = s->x + next->n0 * gap_source_image(s) + o * s->plane + (next->p0 + pixels) * 16;
    if (blocks <= 0 || pixels >= next->p1 - next->p0) return (gap_conv_ahead){{NULL, NULL}, 0, 0, 0};
    return (gap_conv_ahead){{at, s->pro.z ? s->pro.z + (at - s->x) : at}, gap_source_image(s), s->plane, (int)blocks};
}

/* Adds the tile's products of input blocks [b0, b1) with output blocks of `d` to their partial sums, segment by segment. */
static void add_products(const back_job *job, const place *at, int64_t b0, int64_t b1, int64_t o0, int64_t o1, const gap_pointwise_view *d,
                         float *scratch, float *part, const place *after) {
    const gap_pointwise *p = job->p;
    gap_pointwise_box box = {.n0 = at->box.n0, .n1 = at->box.n1, .b0 = b0, .b1 = b1};
    for (box.p0 = at->box.p0; box.p0 < at->box.p1; box.p0 = box.p1) {
        box.p1 = gap_min64(at->box.p1, box.p0 + p->segment);
        const gap_pointwise_view x = gap_pointwise_load(job->k->stream, &job->x, &box, scratch);
        for (int64_t b = b0; b < b1; b++) {
            gap_conv_cols c = {.a = x.at + (b - b0) * x.block, .a_px = 16, .a_img = x.image, .d = d->at + (box.p0 - at->box.p0) * 16, .d_px = 16,
                                     .d_img = d->image, .d_oc = d->block, .pixels = box.p1 - box.p0, .rows = 1, .images = box.n1 - box.n0,
                                     .m = (int)gap_min64(16, p->in_c - b * 16), .oc_blocks = (int)(o1 - o0),
                                     .half = o1 == p->out_blocks && gap_conv_half(p->out_c),
                                     .dw = part + (b * p->out_blocks + o0) * 256, .dw_k = 16, .dw_oc = 256};
            if (b + p->wide < at->b1 && p->stride[0] * p->stride[1] == 1) c.ahead[0] = next_blocks(job, &box, b + p->wide);
            if (o1 == p->out_blocks) c.ahead[2] = epilogue_values(job, &box, b);
            const int64_t seen = (b - at->b0) * gap_max64(1, o1 - o0 - 1); /* a tile in each block is for the next blocks */
            if (after) c.ahead[1] = next_output(job, &after->box, o0 + seen, o1 - o0 - seen, box.p0 - at->box.p0);
            job->k->conv->cols(&c);
        }
    }
}

/* The same by halves, over the whole tile: pairs of input blocks by fours of output blocks. loaded: x and its sums may be there
 * from the output blocks before. */
static void add_halves(const back_job *job, const place *at, int64_t o0, int64_t o1, const gap_pointwise_view *d, float *scratch, float *sums,
                       float *part, const place *after, bool loaded) {
    const gap_pointwise *p = job->p;
    const gap_conv_kernels *k = job->k->conv;
    const int64_t pixels = at->box.p1 - at->box.p0, fours = p->out_blocks / STRASSEN_WIDE, of_four = 4 * pixels * 16;
    const bool kept = at->b1 - at->b0 <= KEPT;
    int64_t seen = 0;
    for (int64_t o = o0; o < o1; o += STRASSEN_WIDE)
        gap_strassen_gradient_sums(k, d->at + (o - o0) * d->block, d->block, pixels, sums + (o - o0) / STRASSEN_WIDE * of_four);
    gap_pointwise_box box = at->box;
    for (box.b0 = at->b0; box.b0 < at->b1; box.b0 = box.b1) {
        box.b1 = box.b0 + 2;
        float *x_sums = scratch + (kept ? (box.b0 - at->b0) * 2 * pixels * 16 : 0), *to = x_sums + 2 * pixels * 16;
        const bool there = loaded && kept;
        const gap_pointwise_view x = there && !gap_pointwise_in_place(&job->x) ? (gap_pointwise_view){to, pixels * 16, pixels * 16}
                                                                              : gap_pointwise_load(job->k->stream, &job->x, &box, to);
        if (!there) gap_strassen_input_sums(k, x.at, x.block, pixels, x_sums);
        for (int64_t o = o0; o < o1; o += STRASSEN_WIDE, seen += 14) {
            gap_strassen_grad g = {.x = x.at, .x_sums = x_sums, .d = d->at + (o - o0) * d->block, .d_sums = sums + (o - o0) / STRASSEN_WIDE * of_four,
                                   .x_block = x.block, .d_block = d->block, .pixels = pixels,
                                   .parts = part + (box.b0 / 2 * fours + o / STRASSEN_WIDE) * STRASSEN_PARTS, .d_from = seen};
            if (o == o0 && box.b1 < at->b1) g.next_x = next_blocks(job, &box, box.b1), g.next_x.blocks = 2;
            if (o == o0 && o1 == p->out_blocks) {
                g.behind = epilogue_values(job, &box, box.b0);
                g.behind.blocks *= 2;
            }
            if (after) g.next_d = next_output(job, &after->box, o0, o1 - o0, 0);
            gap_strassen_add(k, &g);
        }
    }
}

/* What output blocks [o, end) of the tile, loaded at d, give input blocks [b0, b1); with the first of them the input and its
 * gradient of these blocks of the next tile are fetched. */
static void add_inputs(const back_job *job, const place *at, int64_t b0, int64_t b1, int64_t o, int64_t end, const gap_pointwise_view *d, float *scratch,
                       const place *after) {
    const gap_pointwise *p = job->p;
    for (int64_t from = o, next; from < end; from = next) {
        next = gap_min64(end, from + together(p));
        gap_pointwise_product m = {.a = *d, .from = from, .blocks = next - from, .in_blocks = p->out_blocks,
                                   .last = next == p->out_blocks ? p->out_c - (next - 1) * 16 : 16, .band = at->band, .w = job->w,
                                   .first = from == 0, .final = next == p->out_blocks, .sums = scratch};
        gap_pointwise_box to = at->box;
        m.a.at += (from - o) * d->block;
        if (after && b0 == at->b0 && from == 0) m.ahead = next_blocks(job, &after->box, b0), m.ahead.blocks = (int)gap_min64(p->wide, b1 - b0);
        if (p->fast_back) gap_pointwise_sums(job->k, &job->dx, &to, &m);
        for (to.b0 = b0; to.b0 < b1; to.b0 = to.b1) {
            to.b1 = to.b0 + gap_pointwise_step(&job->dx, to.b0, b1, p->wide);
            gap_pointwise_multiply(job->k, &job->dx, &to, &m);
        }
    }
}

static void back_tile(const back_job *job, const place *at, float *scratch, float *part) {
    const gap_pointwise *p = job->p;
    place after = *at;
    const bool more = next_tile(job, &after);
    gap_pointwise_box from = at->box;
    for (int64_t o = at->o0, next; o < at->o1; o = next) {
        next = gap_min64(at->o1, o + p->group);
        from.b0 = o, from.b1 = next;
        const gap_pointwise_view d = gap_pointwise_load(job->k->stream, &job->dy, &from, scratch);
        float *const x = scratch + dy_floats(p), *const sums = x + x_floats(p);
        if (p->fast_grad) add_halves(job, at, o, next, &d, x, sums, part, more ? &after : NULL, o > at->o0);
        for (int64_t b = at->b0, end; !p->fast_grad && b < at->b1; b = end) {
            end = gap_min64(at->b1, b + p->wide);
            add_products(job, at, b, end, o, next, &d, x, part, more ? &after : NULL);
            if (job->dx.s && !p->fast_back) add_inputs(job, at, b, end, o, next, &d, NULL, more ? &after : NULL); /* the input's blocks are in the cache */
        }
        if (job->dx.s && p->fast_back) add_inputs(job, at, at->b0, at->b1, o, next, &d, sums, NULL);
    }
}

/* Where part k of the input's blocks begins. */
static int64_t first_input(const back_job *job, int64_t k) {
    const int64_t unit = job->p->fast_grad ? 2 : 1;
    return job->dx.s ? gap_pointwise_cut(&job->dx, k, job->b_parts) : job->p->in_blocks / unit * k / job->b_parts * unit;
}

static int64_t first_output(const back_job *job, int64_t k) {
    const int64_t unit = job->p->fast_grad ? STRASSEN_WIDE : 1;
    return job->p->out_blocks / unit * k / job->o_parts * unit;
}

static void clear_parts(const gap_pointwise *p, const place *at, float *part) {
    const int64_t in = p->fast_grad ? 2 : 1, out = p->fast_grad ? STRASSEN_WIDE : 1, floats = p->fast_grad ? STRASSEN_PARTS : 256;
    for (int64_t b = at->b0; b < at->b1; b += in)
        memset(part + (b / in * (p->out_blocks / out) + at->o0 / out) * floats, 0, (size_t)((at->o1 - at->o0) / out * floats) * sizeof *part);
}

static void back_unit(void *arg, int64_t unit, int thread) {
    back_job *job = arg;
    const gap_pointwise *p = job->p;
    const int64_t o = unit % job->o_parts, b = unit / job->o_parts % job->b_parts;
    const int chunk = (int)(unit / job->o_parts / job->b_parts);
    float *part = job->parts + chunk * part_floats(p);
    place at = {.b0 = first_input(job, b), .b1 = first_input(job, b + 1),
                .o0 = first_output(job, o), .o1 = first_output(job, o + 1)};
    int64_t begin;
    int slot;
    gap_reduce_range(job->capacity, p->chunks, chunk, job->n, &begin, &at.end);
    clear_parts(p, &at, part);
    float *scratch = gap_scratch_take(&job->scratch, thread, &slot);
    at.box.n0 = begin, at.box.n1 = gap_min64(at.end, begin + p->images);
    if (begin < at.end) {
        gap_pointwise_band(&job->dx, 0, &at.p0, &at.p1);
        at.box.p1 = gap_min64(at.p1, p->tile);
        do back_tile(job, &at, scratch, part);
        while (next_tile(job, &at));
    }
    gap_scratch_give(&job->scratch, slot);
}

/* Partial sums chunk by chunk, into those of the first. */
static float *sum_chunks(const back_job *job, int64_t at, int64_t floats) {
    float *sum = job->parts + at;
    for (int c = 1; c < job->p->chunks; c++) {
        const float *more = sum + c * part_floats(job->p);
        for (int64_t i = 0; i < floats; i++) sum[i] += more[i];
    }
    return sum;
}

/* A tile (16 in, 16 out) into dw. */
static void store_tile(const back_job *job, int64_t b, int64_t o, const float *sum) {
    const gap_pointwise *p = job->p;
    const int64_t rows = gap_min64(16, p->out_c - o * 16), cols = gap_min64(16, p->in_c - b * 16);
    float *to = job->dw + o * 16 * p->in_c + b * 16;
    for (int64_t l = 0; l < rows; l++)
        for (int64_t k = 0; k < cols; k++) {
            const float v = sum[k * 16 + l];
            to[l * p->in_c + k] = job->dw_add ? to[l * p->in_c + k] + v : v;
        }
}

static void sum_block(void *arg, int64_t o, int thread) {
    (void)thread;
    const back_job *job = arg;
    for (int64_t b = 0; b < job->p->in_blocks; b++) store_tile(job, b, o, sum_chunks(job, (b * job->p->out_blocks + o) * 256, 256));
}

static void sum_four(void *arg, int64_t four, int thread) {
    (void)thread;
    const back_job *job = arg;
    const gap_pointwise *p = job->p;
    float tiles[2 * STRASSEN_WIDE * 256];
    for (int64_t pair = 0; pair < p->in_blocks / 2; pair++) {
        gap_strassen_combine(sum_chunks(job, (pair * (p->out_blocks / STRASSEN_WIDE) + four) * STRASSEN_PARTS, STRASSEN_PARTS), tiles);
        for (int64_t k = 0; k < 2 * STRASSEN_WIDE; k++) store_tile(job, 2 * pair + k / STRASSEN_WIDE, four * STRASSEN_WIDE + k % STRASSEN_WIDE, tiles + k * 256);
    }
}

/* Cuts each chunk across input blocks until a unit's weights and sums fit a cache and the units suffice; where the output's gradient is
 * read for the weights alone, across output blocks too. False: too few units for the threads. */
static bool cut_units(back_job *job) {
    const gap_pointwise *p = job->p;
    const int64_t most = p->fast_back ? p->in_blocks / STRASSEN_WIDE : gap_ceil_div(p->in_blocks, p->wide), want = UNITS_PER_THREAD * gap_threads_get();
    job->b_parts = gap_min64(most, gap_ceil_div(2 * p->in_blocks * p->out_blocks * 1024, SLICE));
    if (p->chunks * job->b_parts < want) job->b_parts = gap_min64(most, gap_ceil_div(want, p->chunks));
    job->o_parts = 1;
    if (!job->dx.s) job->o_parts = gap_min64(gap_ceil_div(p->out_blocks, 4), gap_ceil_div(want, p->chunks * job->b_parts));
    return p->chunks * job->b_parts * job->o_parts >= gap_threads_get();
}

static gap_status back_weights(back_job *job) {
    const gap_pointwise *p = job->p;
    const int64_t fmas = job->n * p->out_h * p->out_w * p->in_c * p->out_blocks * 16;
    const gap_status st = gap_parallel_sized(p->chunks * job->b_parts * job->o_parts, back_unit, job, gap_ns_of_fmas(job->dx.s ? 2 * fmas : fmas));
    const int64_t floats = gap_ns_of_floats((p->chunks + 2) * part_floats(p));
    if (st != GAP_OK) return st;
    return p->fast_grad ? gap_parallel_sized(p->out_blocks / STRASSEN_WIDE, sum_four, job, floats) : gap_parallel_sized(p->out_blocks, sum_block, job, floats);
}

gap_status gap_pointwise_back(const gap_pointwise *p, const gap_op_ctx *ctx, const void *derived_back, const gap_source *x, const gap_source *dy,
                              const gap_sink *dx, float *dw, bool dw_add, int slots) {
    gap_status st = GAP_OK;
    bool apart = dw == NULL;
    if (dw != NULL) {
        back_job job = {.p = p, .k = ctx->kernels, .x = gap_pointwise_input(p, x), .dy = gap_pointwise_output(p, dy),
                        .dx = gap_pointwise_backward(p, dx), .w = derived_back, .parts = ctx->workspace, .dw = dw,
                        .dw_add = dw_add, .n = ctx->n, .capacity = ctx->capacity};
        apart = !cut_units(&job);
        if (apart) job.dx.s = NULL, cut_units(&job);
        gap_scratch_begin(&job.scratch, (unsigned char *)ctx->workspace + parts_bytes(p), unit_bytes(p), slots);
        GAP_TRY(back_weights(&job));
    }
    if (dx != NULL && apart) {
        const gap_pointwise_side side = gap_pointwise_output(p, dy);
        const gap_pointwise_goal goal = gap_pointwise_backward(p, dx);
        GAP_TRY(gap_pointwise_all(ctx, &side, &goal, p->out_c, derived_back, NULL, slots));
    }
done:
    return st;
}

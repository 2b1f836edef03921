/* conv_run.c — one pass: the forward convolution, or the gradient of its input. */
#include "ops/conv_plan.h"

#define PANEL ((int64_t)20 << 10) /* bytes of weights that stay in the first cache beside the pixels */

typedef struct {
    const conv_pass *p;
    const gap_conv_kernels *k;
    const gap_stream_kernels *stream;
    const gap_source *in;      /* x: (n, in blocks, in h, in w, lanes) */
    const gap_sink *out;       /* y: (n, out blocks, out h, out w, 16) */
    const float *w, *bias;
    const int64_t *off;
    int64_t n;
    gap_conv_start start;
    gap_scratch scratch;
} run_job;

/* One unit: images [n0, n1), rows [i0, i1) and columns [j0, j1) of a phase, output blocks [o0, o1). */
typedef struct { int64_t n0, n1, i0, i1, j0, j1, o0, o1; } run_unit;

static run_unit unit_at(const run_job *job, int64_t chunk) {
    const conv_pass *p = job->p;
    run_unit u;
    const int64_t part = chunk % p->n_oc_parts, rest = chunk / p->n_oc_parts;
    const int64_t col = rest % p->n_col_bands, row = rest / p->n_col_bands % p->n_row_bands;
    u.n0 = rest / p->n_col_bands / p->n_row_bands * p->images, u.n1 = gap_min64(job->n, u.n0 + p->images);
    u.i0 = row * p->band_rows, u.i1 = gap_min64(p->count[0], u.i0 + p->band_rows);
    u.j0 = col * p->band_cols, u.j1 = gap_min64(p->count[1], u.j0 + p->band_cols);
    u.o0 = p->out_blocks * part / p->n_oc_parts, u.o1 = p->out_blocks * (part + 1) / p->n_oc_parts;
    return u;
}

/* Where a unit finds its input: pixel (0, 0) of the band in block b of its image n is at + n*image + (b - b0)*block. */
typedef struct { const float *at; int64_t image, block, row, b0; } run_input;

void gap_conv_load(const gap_stream_kernels *k, const gap_source *s, int64_t h, int64_t w, int64_t lanes, int64_t n, int64_t b,
                   int64_t row0, int64_t rows, int64_t col0, int64_t cols, float *dst) {
    const int64_t at = n * gap_source_image(s) + b * s->plane;
    const gap_stream_load l = {.x = gap_shift_(s->x, at), .bytes = s->bytes ? s->bytes + at : NULL, .h = h, .w = w, .lanes = lanes, .dst = dst, .dst_row = cols * lanes,
                               .rows = rows, .cols = cols, .row0 = row0, .col0 = col0, .pro = gap_source_at(s, n, b)};
    k->load(&l);
}

gap_conv_ahead gap_conv_picture_ahead(const gap_source *x, int64_t at, int64_t step) {
    const float *next = x->bytes ? (const float *)(const void *)(x->bytes + at) : x->x + at;
    return (gap_conv_ahead){{next, next}, x->bytes ? step / 4 : step, 0, 1};
}

static run_input pack(const run_job *job, const run_unit *u, float *scratch) {
    const conv_pass *p = job->p;
    const int64_t cols = p->flat && !p->direct ? u->j1 - u->j0 : p->cols;
    run_input in = {.row = cols * p->lanes};
    if (p->direct) {
        in.image = gap_source_image(job->in), in.block = p->in_h * p->in_w * p->lanes;
        in.at = job->in->x + u->n0 * in.image + (u->i0 * p->in_step[0] * p->in_w + u->j0 * p->in_step[1]) * p->lanes;
        return in;
    }
    const int64_t rows = (u->i1 - 1 - u->i0) * p->in_step[0] + p->last[0] - p->first[0] + 1;
    const int64_t b0 = gap_conv_lo(p, u->o0), b1 = gap_conv_lo(p, u->o1 - 1) + p->range;
    in.block = rows * in.row, in.image = (b1 - b0) * in.block, in.at = scratch, in.b0 = b0;
    for (int64_t n = u->n0; n < u->n1; n++)
        for (int64_t b = b0; b < b1; b++)
            gap_conv_load(job->stream, job->in, p->in_h, p->in_w, p->lanes, n, b, u->i0 * p->in_step[0] + p->first[0], rows,
                          p->flat ? u->j0 : p->first[1], cols, scratch + (n - u->n0) * in.image + (b - b0) * in.block);
    return in;
}

/* A phase's part of a unit: its output rows and columns, its taps and their weights. */
typedef struct { int64_t rows, cols, out, taps, across, off, w; } run_phase; /* across: taps of a kernel row */

/* The rows of a picture behind the unit's: most often the thread's next unit begins with them. */
static gap_conv_ahead next_rows(const run_job *job, const run_unit *u) {
    const conv_pass *p = job->p;
    const int64_t row = p->in_w * p->lanes;
    return gap_conv_picture_ahead(job->in, u->n0 * gap_source_image(job->in) + (u->i1 * p->in_step[0] + p->last[0]) * row, p->in_step[0] * row);
}

static void run_blocks(const run_job *job, const run_unit *u, const run_input *in, const run_phase *ph, int64_t o, int oc_blocks) {
    const conv_pass *p = job->p;
    const int64_t plane = p->out_h * p->out_w * 16, image = gap_sink_image(job->out), lo = gap_conv_lo(p, o);
    const bool single = ph->rows == 1 && ph->cols == 1; /* a pixel per image: the images make the row */
    const int64_t panel = ph->taps * p->run * 64 * (oc_blocks < 2 ? 1 : 2);
    const int64_t chain = gap_conv_chain(ph->taps * p->run);
    const int64_t fits = panel > 0 && panel < PANEL ? PANEL / panel : 1, group = fits > chain ? fits / chain * chain : chain;
    gap_conv_rows r = {
        .a_px = p->in_step[1] * p->lanes, .a_row = p->in_step[0] * in->row, .a_block = in->block, .off = job->off + ph->off,
        .taps = (int)ph->taps, .kc = (int)p->run, .chain = (int)chain, .w_tap = p->run * 16,
        .w_block = ph->taps * p->run * 16, .w_oc = p->w_oc, .y_px = p->out_step[1] * 16,
        .y_row = p->out_step[0] * p->out_w * 16, .y_oc = plane, .pixels = ph->cols, .rows = ph->rows,
        .oc_blocks = oc_blocks, .half = o + oc_blocks == p->out_blocks && gap_conv_half(p->out_c), .bias = job->bias + o * 16};
    if (single) r.a_px = in->image, r.y_px = image, r.pixels = u->n1 - u->n0;
    if (p->lanes == 3 && o == u->o0) r.ahead = next_rows(job, u); /* once for all output blocks */
    for (int64_t g = 0; g < p->range; g += group) {
        r.start = g ? GAP_CONV_KEEP : job->start;
        r.blocks = (int)gap_min64(group, p->range - g);
        r.kc_last = lo + g + r.blocks == p->in_blocks && p->lanes == 16 ? (int)(p->in_c - (p->in_blocks - 1) * 16) : r.kc;
        r.w = job->w + o * p->w_oc + ph->w + g * r.w_block;
        for (int64_t n = u->n0; n < (single ? u->n0 + 1 : u->n1); n++) {
            r.a = in->at + (n - u->n0) * in->image + (lo + g - in->b0) * in->block;
            r.y = job->out->y + n * image + o * plane + ph->out;
            job->k->rows(&r);
        }
    }
}

/* The same of one output block, in groups. */
static void run_groups(const run_job *job, const run_unit *u, const run_input *in, const run_phase *ph, int64_t o) {
    const conv_pass *p = job->p;
    const int64_t plane = p->out_h * p->out_w * 16, image = gap_sink_image(job->out);
    gap_conv_group_rows r = {
        .a_row = p->in_step[0] * in->row, .off = job->off + ph->off, .kernel_rows = (int)(ph->across ? ph->taps / ph->across : 0), .taps = (int)ph->across,
        .step = (int)p->in_step[1], .group = (int)p->group, .w = job->w + o * p->w_oc + ph->w, .y_px = p->out_step[1] * 16,
        .y_row = p->out_step[0] * p->out_w * 16, .pixels = ph->cols, .rows = ph->rows, .start = job->start, .bias = job->bias + o * 16};
    for (int64_t n = u->n0; n < u->n1; n++) {
        r.a = in->at + (n - u->n0) * in->image + (gap_conv_lo(p, o) - in->b0) * in->block;
        r.y = job->out->y + n * image + o * plane + ph->out;
        job->k->group_rows(&r);
    }
}

/* The epilogue of output blocks [o0, o1) of a unit, whose rows are all stored. */
static void finish(const run_job *job, const run_unit *u, int64_t o0, int64_t o1) {
    const conv_pass *p = job->p;
    const gap_sink *out = job->out;
    if (out->epi.kind == GAP_EPILOGUE_NONE) return;
    const int64_t p0 = p->flat ? u->j0 : u->i0 * p->out_step[0] * p->out_w;
    const int64_t p1 = p->flat ? u->j1 : gap_min64(p->out_h, u->i1 * p->out_step[0]) * p->out_w;
    for (int64_t n = u->n0; n < u->n1; n++)
        for (int64_t o = o0; o < o1; o++) {
            const gap_stream_finish f = {.y = out->y + n * gap_sink_image(out) + o * out->plane + p0 * 16, .pixels = p1 - p0, .piece = p->piece,
                                         .epi = gap_sink_at(out, n, o, p0 / p->piece, p0)};
            job->stream->finish(&f);
        }
}

/* Neighbouring output blocks that read the same input blocks go together, as many as the kernels can use. */
static void run_phase_of(const run_job *job, const run_unit *u, const run_input *in, const run_phase *ph) {
    const conv_pass *p = job->p;
    const int64_t most = ph->cols <= 6 ? 4 : 2;
    const bool only = p->out_step[0] == 1 && p->out_step[1] == 1; /* a phase is all: its blocks are finished while in the cache */
    for (int64_t o = u->o0, next; o < u->o1; o = next) {
        for (next = o + 1; next < u->o1 && next - o < most && gap_conv_lo(p, next) == gap_conv_lo(p, o);) next++;
        if (p->group) run_groups(job, u, in, ph, o);
        else run_blocks(job, u, in, ph, o, (int)(next - o));
        if (only) finish(job, u, o, next);
    }
}

static int64_t axis_taps(const conv_pass *p, int axis, int64_t phase) {
    int64_t n = 0, at;
    for (int64_t k = 0; k < p->kernel[axis]; k++) n += gap_conv_tap(p, axis, phase, k, &at);
    return n;
}

static void run_chunk(void *arg, int64_t chunk, int thread) {
    run_job *job = arg;
    const conv_pass *p = job->p;
    const run_unit u = unit_at(job, chunk);
    int slot;
    float *scratch = gap_scratch_take(&job->scratch, thread, &slot);
    const run_input in = pack(job, &u, scratch);
    int64_t seen = 0;
    for (int64_t h = 0; h < p->out_step[0]; h++)
        for (int64_t w = 0; w < p->out_step[1]; w++) {
            const int64_t across = p->backward ? axis_taps(p, 1, w) : p->kernel[1], taps = p->backward ? axis_taps(p, 0, h) * across : p->taps;
            const run_phase ph = {
                .rows = gap_min64(u.i1, gap_ceil_div(p->out_h - h, p->out_step[0])) - u.i0, .taps = p->backward ? taps : p->entries, .across = across,
                .cols = gap_min64(u.j1, gap_ceil_div(p->out_w - w, p->out_step[1])) - u.j0,
                .out = ((u.i0 * p->out_step[0] + h) * p->out_w + u.j0 * p->out_step[1] + w) * 16,
                .off = seen, .w = seen * p->range * p->run * 16};
            if (ph.rows > 0 && ph.cols > 0) run_phase_of(job, &u, &in, &ph);
            seen += taps;
        }
    if (p->out_step[0] > 1 || p->out_step[1] > 1) finish(job, &u, u.o0, u.o1);
    gap_scratch_give(&job->scratch, slot);
}

gap_status gap_conv_run(const conv_pass *p, const gap_op_ctx *ctx, const conv_derived *d, const gap_source *in, const gap_sink *out,
                        bool has_bias, int slots) {
    const unsigned char *derived = ctx->derived;
    run_job job = {.p = p, .k = ctx->kernels->conv, .stream = ctx->kernels->stream, .in = in, .out = out, .n = ctx->n,
                   .w = (const float *)(const void *)(derived + d->w), .off = (const int64_t *)(const void *)(derived + d->off),
                   .start = out->add ? GAP_CONV_KEEP : has_bias ? GAP_CONV_BIAS : GAP_CONV_ZERO};
    if (!p->backward) job.bias = (const float *)(const void *)(derived + d->bias);
    else job.bias = job.w; /* never read */
    gap_scratch_begin(&job.scratch, ctx->workspace, p->scratch_bytes, slots);
    const int64_t units = gap_ceil_div(ctx->n, p->images) * p->n_row_bands * p->n_col_bands * p->n_oc_parts;
    return gap_parallel(units, run_chunk, &job);
}

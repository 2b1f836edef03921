#include "ops/conv_depthwise.h"

#include <string.h>

#include "kernels/depthwise.h"
#include "kernels/stream.h"
#include "ops/cut.h"
#include "ops/scratch.h"

#define UNITS 32           /* pieces of work to aim at, for any number of threads */
#define STEP_PIXELS 448    /* of the output, in whole rows, that forward computes at a time: fewer cost more around them than the first cache saves */
#define AHEAD_PIXELS 64    /* how far behind them forward asks for what comes: the time of a reading from memory */
#define SHORT 32           /* pixels of rows that the machine does not follow by itself: longer ones, every other line asked for is enough */
#define STREAMED ((int64_t)48 << 20) /* bytes of input and output behind which little of an output is left in a last cache when it is read */
#define STEP_FLOATS 6144   /* of a step's rows, padded input and output together: 24 KB of a first cache of 32 */

/* ---- plan ---- */

static int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }
static int64_t modulo(int64_t a, int64_t b) { return a - floor_div(a, b) * b; }

bool gap_depthwise_fits(const gap_op *op) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    const gap_desc *x = &op->in_desc[0];
    return x->layout == GAP_BLOCKED && x->cb == 16 && a->groups == x->dim[0] && a->groups == a->out_channels;
}

/* Columns [first, last] of which the plane has [0, w). */
static void ring_columns(gap_depthwise_ring *r, int64_t first, int64_t last, int64_t w) {
    r->first = first, r->cols = last - first + 1;
    r->from = gap_max64(first, 0);
    r->inside = gap_max64(0, gap_min64(last + 1, w) - r->from);
}

static gap_depthwise_phase find_phase(const gap_depthwise *d, int axis, int64_t phase) {
    const int64_t s = d->stride[axis], dil = d->dilation[axis];
    int64_t g = s;
    for (int64_t b = dil; b;) {
        const int64_t rest = g % b;
        g = b, b = rest;
    }
    gap_depthwise_phase t = {.kernel_step = s / g, .step = dil / g};
    for (int64_t k = d->kernel[axis] - 1; k >= 0; k--) {
        const int64_t v = phase + d->pad[axis] - k * dil;
        if (modulo(v, s)) continue;
        if (t.n++ == 0) t.kernel = k, t.first = floor_div(v, s);
    }
    return t;
}

static gap_depthwise_phase phase_of(const gap_depthwise *d, int axis, int64_t phase) {
    return phase < GAP_DEPTHWISE_PHASES ? d->phase[axis][phase] : find_phase(d, axis, phase);
}

/* Rows of a step: as many as the cache holds, at most a piece. a + b*rows floats for so many. */
static int64_t step_rows(int64_t a, int64_t b, int64_t piece) {
    const int64_t fit = (STEP_FLOATS - a) / b;
    return gap_max64(1, gap_min64(fit, piece));
}

/* Square kernels of 3 or 5 taps as networks use them: nothing added to or taken off a plane but by this stride. */
static bool plain(const gap_depthwise *d, int64_t stride) {
    return (d->kernel[0] == 3 || d->kernel[0] == 5) && d->kernel[1] == d->kernel[0] && d->stride[0] == stride && d->stride[1] == stride &&
           d->pad[0] == d->kernel[0] / 2 && d->pad[1] == d->pad[0] && d->dilation[0] == 1 && d->dilation[1] == 1;
}

void gap_depthwise_plan(gap_depthwise *d, const gap_op *op, int64_t capacity) {
    const gap_conv_attr *a = GAP_ATTR_CONST(op, gap_conv_attr);
    const gap_desc *x = &op->in_desc[0], *y = &op->out_desc[0];
    memset(d, 0, sizeof *d);
    d->c = x->dim[0], d->blocks = gap_ceil_div(d->c, 16);
    d->in_h = x->dim[1], d->in_w = x->dim[2], d->out_h = y->dim[1], d->out_w = y->dim[2];
    for (int k = 0; k < 2; k++)
        d->kernel[k] = a->kernel[k], d->stride[k] = a->stride[k], d->pad[k] = a->padding[k], d->dilation[k] = a->dilation[k];
    d->taps = d->kernel[0] * d->kernel[1];
    d->in_piece = gap_piece_rows(d->in_h, d->in_w), d->out_piece = gap_piece_rows(d->out_h, d->out_w);
    const int64_t pieces = gap_pieces(d->out_h, d->out_w);
    d->bands = gap_min64(pieces, gap_ceil_div(UNITS, capacity * d->blocks));
    d->chunks = gap_reduce_chunks(capacity, (size_t)(d->blocks * d->taps) * 64);
    const int64_t reach[2] = {(d->kernel[0] - 1) * d->dilation[0], (d->kernel[1] - 1) * d->dilation[1]};
    ring_columns(&d->in, -d->pad[1], (d->out_w - 1) * d->stride[1] - d->pad[1] + reach[1], d->in_w);
    ring_columns(&d->dout, floor_div(d->pad[1] - reach[1], d->stride[1]), floor_div(d->in_w - 1 + d->pad[1], d->stride[1]), d->out_w);
    d->out_step = gap_min64(d->out_piece, gap_max64(1, (STEP_PIXELS + d->out_w / 2) / d->out_w));
    d->in_step = step_rows(reach[0] / d->stride[0] * d->dout.cols * 16, (d->dout.cols / d->stride[0] + 2 * d->in_w) * 16, d->in_piece);
    d->in.rows = (d->out_step - 1) * d->stride[0] + reach[0] + 1;
    d->dout.rows = (d->in_step - 1 + reach[0]) / d->stride[0] + 2;
    d->groups = gap_min64(d->blocks, gap_ceil_div(UNITS, d->chunks));
    d->sweeps = plain(d, 2);
    for (int k = 0; k < 2; k++)
        for (int64_t p = 0; p < gap_min64(d->stride[k], GAP_DEPTHWISE_PHASES); p++) d->phase[k][p] = find_phase(d, k, p);
}

/* ---- weights ---- */

/* The sections of `derived`, in floats: weights (blocks, taps, 16) by (kh, kw), bias (blocks, 16), weights (blocks, taps, 16)
 * in the order of backward's phases; then, as integers, the place in the kernel of each tap of that order. */
typedef struct { int64_t bias, back, place, total; } sections;

static sections sections_of(const gap_depthwise *d) {
    const int64_t w = d->blocks * d->taps * 16;
    sections s = {.bias = w, .back = w + d->blocks * 16};
    s.place = s.back + w, s.total = s.place + d->taps;
    return s;
}

size_t gap_depthwise_derived_bytes(const gap_depthwise *d) { return (size_t)sections_of(d).total * sizeof(float); }

/* place[at] = kh*KW + kw of the tap that stands at `at` in backward's order: phase by phase, each from its last tap down. */
static void list_places(const gap_depthwise *d, int32_t *place) {
    for (int64_t a = 0; a < d->stride[0]; a++)
        for (int64_t b = 0; b < d->stride[1]; b++) {
            const gap_depthwise_phase h = phase_of(d, 0, a), v = phase_of(d, 1, b);
            for (int64_t i = 0; i < h.n; i++)
                for (int64_t j = 0; j < v.n; j++)
                    *place++ = (int32_t)((h.kernel - i * h.kernel_step) * d->kernel[1] + v.kernel - j * v.kernel_step);
        }
}

gap_status gap_depthwise_derive(const gap_depthwise *d, const float *weight, const float *bias, void *derived) {
    const sections s = sections_of(d);
    float *w = derived, *b = w + s.bias, *back = w + s.back;
    int32_t *place = (int32_t *)(void *)(w + s.place);
    memset(derived, 0, gap_depthwise_derived_bytes(d));
    list_places(d, place);
    for (int64_t c = 0; c < d->c; c++) {
        const float *from = weight + c * d->taps; /* (kh, kw) */
        const int64_t to = c / 16 * d->taps * 16 + c % 16;
        for (int64_t t = 0; t < d->taps; t++) w[to + t * 16] = from[t], back[to + t * 16] = from[place[t]];
        if (bias) b[c] = bias[c];
    }
    return GAP_OK;
}

/* ---- the ring of rows ---- */

/* A unit's scratch: the ring, a row of zeros, a piece of x (backward), and the list of rows that a piece meets. */
typedef struct {
    const gap_depthwise_ring *r;
    const gap_stream_kernels *k;
    float *row0, *zeros, *x;
    const float **list;
    int64_t h, w;                     /* of the plane */
    int64_t loaded;                   /* rows before this one have been loaded */
} ring;

static int64_t ring_row(const gap_depthwise_ring *r) { return r->cols * 16; }
static size_t ring_bytes(const gap_depthwise_ring *r, int64_t x_pixels) {
    return gap_scratch_round((size_t)((r->rows + 1) * ring_row(r) + x_pixels * 16) * sizeof(float) + (size_t)r->rows * sizeof(float *));
}

/* Sets the columns of padding to zero; loading never touches them. */
static ring ring_begin(const gap_depthwise_ring *r, const gap_stream_kernels *k, void *scratch, int64_t x_pixels, int64_t h, int64_t w) {
    const int64_t n = ring_row(r), left = (r->from - r->first) * 16, right = left + r->inside * 16;
    ring s = {.r = r, .k = k, .row0 = scratch, .h = h, .w = w};
    s.zeros = s.row0 + r->rows * n, s.x = s.zeros + n;
    s.list = (const float **)(void *)(s.x + x_pixels * 16);
    for (int64_t q = 0; q < r->rows; q++) {
        memset(s.row0 + q * n, 0, (size_t)left * sizeof(float));
        memset(s.row0 + q * n + right, 0, (size_t)(n - right) * sizeof(float));
    }
    memset(s.zeros, 0, (size_t)n * sizeof(float));
    return s;
}

/* Loads what is missing of rows [lo, hi) of a plane and lists them all; those outside are zeros. */
static void ring_fill(ring *s, const float *x, const gap_prologue *pro, int64_t lo, int64_t hi) {
    const gap_depthwise_ring *r = s->r;
    const int64_t n = ring_row(r), end = gap_min64(hi, s->h);
    for (int64_t q = gap_max64(s->loaded, gap_max64(lo, 0)), next; q < end; q = next) {
        const int64_t place = q % r->rows;
        next = gap_min64(end, q + r->rows - place);
        const gap_stream_load l = {.x = x, .h = s->h, .w = s->w, .lanes = 16, .dst = s->row0 + place * n + (r->from - r->first) * 16, .dst_row = n,
                                   .rows = next - q, .cols = r->inside, .row0 = q, .col0 = r->from, .pro = *pro};
        if (r->inside) s->k->load(&l);
    }
    s->loaded = gap_max64(s->loaded, end);
    int64_t place = gap_max64(lo, 0) % r->rows;
    for (int64_t q = lo; q < hi; q++) {
        const bool inside = q >= 0 && q < s->h;
        s->list[q - lo] = inside ? s->row0 + place * n : s->zeros;
        if (inside && ++place == r->rows) place = 0;
    }
}

static void finish(const gap_stream_kernels *k, const gap_sink *out, int64_t n, int64_t block, int64_t piece, int64_t row, int64_t w, int64_t rows) {
    if (out->epi.kind == GAP_EPILOGUE_NONE) return;
    const gap_stream_finish f = {.y = out->y + n * gap_sink_image(out) + block * out->plane + row * w * 16, .pixels = rows * w, .piece = rows * w,
                                 .epi = gap_sink_at(out, n, block, piece, row * w)};
    k->finish(&f);
}

/* ---- forward ---- */

/* The scratch of a unit. */
static size_t run_bytes(const gap_depthwise *d) {
    const size_t rows = ring_bytes(&d->in, 0), sweep = (size_t)gap_depthwise_sweep_floats(d->in_w, d->out_w) * sizeof(float);
    return d->sweeps && sweep > rows ? sweep : rows;
}

typedef struct {
    const gap_depthwise *d;
    const gap_kernels *k;
    const gap_source *in;
    const gap_sink *out;
    const float *w, *bias;
    bool stream;                      /* the output is more than caches hold */
    gap_cut cut;
    gap_scratch scratch;
} run_job;

/* Adds a stream of lines to ask for; at NULL: none. */
static void ahead_add(gap_depthwise_ahead *h, const float *at, int64_t per_pixel) {
    if (at) h->per_pixel[h->n] = per_pixel, h->at[h->n++] = at;
}

/* Output rows [i0, i1) of a plane; what comes behind them, or the next plane, is asked for meanwhile. True: finished too. */
static bool run_rows(const run_job *job, ring *s, const float *x, const gap_prologue *pro, float *y, int64_t block, int64_t i0, int64_t i1,
                     const gap_depthwise_finish *f) {
    const gap_depthwise *d = job->d;
    const int64_t lo = i0 * d->stride[0] - d->pad[0], per_pixel = d->stride[0] * (d->in_w <= SHORT ? d->stride[1] : 1);
    ring_fill(s, x, pro, lo, (i1 - 1) * d->stride[0] - d->pad[0] + (d->kernel[0] - 1) * d->dilation[0] + 1);
    gap_depthwise_rows r = {
        .taps = {.row = s->list, .row_step = d->stride[0], .row_tap = d->dilation[0], .px = d->stride[1] * 16, .col_tap = d->dilation[1] * 16,
                 .taps_h = (int)d->kernel[0], .taps_w = (int)d->kernel[1]},
        .w = job->w + block * d->taps * 16, .bias = job->bias ? job->bias + block * 16 : NULL, .y = y + i0 * d->out_w * 16, .y_row = d->out_w * 16,
        .y_px = 16, .rows = i1 - i0, .pixels = d->out_w, .keep = job->out->add};
    const int64_t next = (s->loaded * d->in_w + AHEAD_PIXELS * per_pixel) * 16;
    ahead_add(&r.ahead, x + next, per_pixel);
    ahead_add(&r.ahead, gap_shift_(pro->residual, next), per_pixel);
    ahead_add(&r.ahead, gap_shift_(pro->z, next), per_pixel);
    const float *to = y + (i1 * d->out_w + AHEAD_PIXELS) * 16;
    if (!job->stream) ahead_add(&r.ahead, to, 1);
    if (job->k->depthwise->rows_finished(&r, f)) return true;
    if (job->stream) ahead_add(&r.ahead, to, 1); /* that had no form for it, and `rows` writes through the caches */
    job->k->depthwise->rows(&r);
    return false;
}

/* Pieces [p0, p1) of one plane. */
static void run_unit(const run_job *job, ring *s, int64_t n, int64_t block, int64_t p0, int64_t p1) {
    const gap_depthwise *d = job->d;
    const float *x = job->in->x + n * gap_source_image(job->in) + block * job->in->plane;
    float *y = job->out->y + n * gap_sink_image(job->out) + block * job->out->plane;
    const gap_prologue pro = gap_source_at(job->in, n, block);
    s->loaded = 0;
    for (int64_t p = p0; p < p1; p++) {
        const int64_t i0 = p * d->out_piece, i1 = gap_min64(d->out_h, i0 + d->out_piece);
        const gap_epilogue epi = gap_sink_at(job->out, n, block, p, i0 * d->out_w);
        _Alignas(64) float state[9 * 16];
        gap_depthwise_finish f = {.epi = &epi, .state = state, .piece = (i1 - i0) * d->out_w, .stream = job->stream};
        bool finished = false;
        for (int64_t i = i0; i < i1; i += d->out_step, f.pixel = (i - i0) * d->out_w)
            finished = run_rows(job, s, x, &pro, y, block, i, gap_min64(i1, i + d->out_step), &f);
        if (!finished) finish(job->k->stream, job->out, n, block, p, i0, d->out_w, i1 - i0);
    }
}

/* The same in one straight reading of x. False, with nothing done, where the kernels have no form for it. */
static bool sweep_unit(const run_job *job, const ring *s, int64_t n, int64_t block, int64_t p0, int64_t p1) {
    const gap_depthwise *d = job->d;
    const gap_prologue pro = gap_source_at(job->in, n, block);
    gap_depthwise_sweep w = {.x = job->in->x + n * gap_source_image(job->in) + block * job->in->plane, .w = job->w + block * d->taps * 16,
                             .bias = job->bias ? job->bias + block * 16 : NULL, .pro = &pro,
                             .y = job->out->y + n * gap_sink_image(job->out) + block * job->out->plane, .in_h = d->in_h, .in_w = d->in_w, .out_w = d->out_w,
                             .kernel = (int)d->kernel[0], .begins = true, .work = s->row0};
    for (int64_t p = p0; p < p1; p++, w.begins = false) {
        w.row = p * d->out_piece, w.rows = gap_min64(d->out_h - w.row, d->out_piece);
        const gap_epilogue epi = gap_sink_at(job->out, n, block, p, w.row * d->out_w);
        _Alignas(64) float state[9 * 16];
        const gap_depthwise_finish f = {.epi = &epi, .state = state, .piece = w.rows * d->out_w, .stream = job->stream};
        if (!job->k->depthwise->sweep(&w, &f)) return false;
    }
    return true;
}

static void run_chunk(void *arg, int64_t chunk, int thread) {
    run_job *job = arg;
    const gap_depthwise *d = job->d;
    const int64_t pieces = gap_pieces(d->out_h, d->out_w);
    int slot;
    void *scratch = gap_scratch_take(&job->scratch, thread, &slot);
    ring s = ring_begin(&d->in, job->k->stream, scratch, 0, d->in_h, d->in_w);
    for (int64_t u = gap_cut_begin(job->cut, chunk); u < gap_cut_end(job->cut, chunk); u++) {
        const int64_t band = u % d->bands, block = u / d->bands % d->blocks, n = u / d->bands / d->blocks;
        const int64_t p0 = pieces * band / d->bands, p1 = pieces * (band + 1) / d->bands;
        if (d->sweeps && !job->out->add && sweep_unit(job, &s, n, block, p0, p1)) continue;
        run_unit(job, &s, n, block, p0, p1);
    }
    gap_scratch_give(&job->scratch, slot);
}

gap_status gap_depthwise_run(const gap_depthwise *d, const gap_op_ctx *ctx, const void *derived, const gap_source *in, const gap_sink *out,
                             bool has_bias, int slots) {
    const float *w = derived;
    run_job job = {.d = d, .k = ctx->kernels, .in = in, .out = out, .w = w, .bias = has_bias ? w + sections_of(d).bias : NULL,
                   .stream = ctx->n * out->blocks * (in->plane + out->plane) * (int64_t)sizeof(float) >= STREAMED};
    job.cut = gap_cut_of(ctx->n * d->blocks * d->bands, (d->in_h * d->in_w + d->out_h * d->out_w) * 16 / d->bands);
    gap_scratch_begin(&job.scratch, ctx->workspace, run_bytes(d), slots);
    return gap_parallel(gap_cut_chunks(job.cut), run_chunk, &job);
}

/* ---- backward ---- */

typedef struct {
    const gap_depthwise *d;
    const gap_kernels *k;
    const gap_source *x, *dy;
    const gap_sink *din;              /* NULL: not wanted */
    const float *w;                   /* (blocks, taps, 16), in the order of the phases */
    const int32_t *place;             /* (taps) */
    float *parts;                     /* (chunks, blocks, taps, 16), likewise; NULL: frozen */
    float *dw;
    bool dw_add;
    int64_t n, capacity;
    bool stream;                      /* the input's gradient is more than caches hold */
    bool whole;                       /* of a form that kernels may make plane by plane, with everything around the gradients */
    gap_scratch scratch;
} back_job;

static int64_t x_pixels(const gap_depthwise *d) { return d->in_step * d->in_w; }
static int64_t part_floats(const gap_depthwise *d) { return d->blocks * d->taps * 16; }
/* The scratch of a unit. */
static size_t back_bytes(const gap_depthwise *d) {
    const size_t rows = ring_bytes(&d->dout, x_pixels(d)), sweep = (size_t)gap_depthwise_back_floats(d->out_w) * sizeof(float);
    return sweep > rows ? sweep : rows;
}
static size_t parts_bytes(const gap_depthwise *d) { return gap_scratch_round((size_t)(d->chunks * part_floats(d)) * sizeof(float)); }

size_t gap_depthwise_workspace_bytes(const gap_depthwise *d, bool training, int slots) {
    const size_t forward = gap_scratch_round(run_bytes(d)) * (size_t)slots;
    if (!training) return forward;
    const size_t backward = parts_bytes(d) + gap_scratch_round(back_bytes(d)) * (size_t)slots;
    return forward > backward ? forward : backward;
}

/* The rows of phase a, columns of phase b, of input rows [r0, r1); x and dx stand at row r0; list begins with row lo. How many
 * pixels these are. */
static int64_t back_phase(const back_job *job, const ring *s, int64_t r0, int64_t r1, int64_t lo, int64_t a, int64_t b, const float *x, float *dx,
                       const float *w, float *dw, const gap_depthwise_phase *h, const gap_depthwise_phase *v, const gap_depthwise_ahead *ahead) {
    const gap_depthwise *d = job->d;
    const int64_t sh = d->stride[0], sw = d->stride[1], first = r0 + modulo(a - r0, sh), at = ((first - r0) * d->in_w + b) * 16;
    const int64_t rows = gap_ceil_div(gap_max64(0, r1 - first), sh), pixels = gap_ceil_div(gap_max64(0, d->in_w - b), sw);
    const bool keep = job->din && job->din->add;
    if (rows == 0 || pixels == 0) return 0;
    gap_depthwise_taps taps = {.row_step = 1, .row_tap = h->step, .px = 16, .col_tap = v->step * 16, .taps_h = (int)h->n, .taps_w = (int)v->n};
    if (h->n && v->n) {
        taps.row = s->list + (h->first + (first - a) / sh - lo);
        taps.first = (v->first - s->r->first) * 16;
        if (dw) {
            const gap_depthwise_grad g = {.taps = taps, .ahead = *ahead, .w = w, .x = x + at, .dx = dx ? dx + at : NULL, .dw = dw,
                                          .x_row = sh * d->in_w * 16, .x_px = sw * 16, .rows = rows, .pixels = pixels, .keep = keep};
            job->k->depthwise->grad(&g);
            return rows * pixels;
        }
    } else taps.taps_h = 0, taps.row = s->list, taps.row_step = 0;
    if (!dx) return rows * pixels;
    const gap_depthwise_rows r = {.taps = taps, .ahead = *ahead, .w = w, .y = dx + at, .y_row = sh * d->in_w * 16, .y_px = sw * 16, .rows = rows,
                                  .pixels = pixels, .keep = keep};
    job->k->depthwise->rows(&r);
    return rows * pixels;
}

/* x of input rows [r0, r1) after its prologue: where it lies, or in the scratch. */
static const float *back_input(const back_job *job, const ring *s, int64_t n, int64_t block, int64_t r0, int64_t r1) {
    const gap_depthwise *d = job->d;
    const float *x = job->x->x + n * gap_source_image(job->x) + block * job->x->plane + r0 * d->in_w * 16;
    if (gap_source_plain(job->x)) return x;
    gap_prologue pro = gap_source_at(job->x, n, block);
    pro.z = gap_shift_(pro.z, r0 * d->in_w * 16), pro.residual = gap_shift_(pro.residual, r0 * d->in_w * 16);
    job->k->stream->map((r1 - r0) * d->in_w, x, &pro, s->x, false);
    return s->x;
}

/* What comes after input row r1: the planes' next rows, or the next plane. Each phase asks for as many pixels as it has, `seen` being
 * those of the phases before it; the first for the rows of the output too. din: NULL where its lines are not to be asked for. */
static void back_ahead(const back_job *job, const ring *s, const gap_prologue *pro, const float *dy, const float *din, int64_t n, int64_t block,
                       int64_t r1, int64_t seen, gap_depthwise_ahead *ahead) {
    const gap_depthwise *d = job->d;
    const int64_t at = s->loaded * d->out_w * 16, in = (r1 * d->in_w + seen) * 16, plane = n * d->blocks + block;
    if (seen == 0) {
        ahead_add(ahead, dy + at, 1);
        ahead_add(ahead, gap_shift_(pro->z, at), 1);
        ahead_add(ahead, gap_shift_(pro->residual, at), 1);
    }
    if (job->parts) ahead_add(ahead, job->x->x + plane * job->x->plane + in, 1);
    if (!din) return;
    ahead_add(ahead, din + in, 1);
    if (job->din->epi.out) ahead_add(ahead, job->din->epi.out + plane * job->din->plane + in, 1);
    else if (!job->parts && job->din->epi.z) ahead_add(ahead, job->din->epi.z + plane * job->din->plane + in, 1);
}

/* A plane in one kernel call; false, with nothing done, where the kernels have no form for it. */
static bool sweep_back(const back_job *job, const ring *s, int64_t n, int64_t block, float *dw, bool begins, bool ends) {
    const gap_depthwise *d = job->d;
    const gap_prologue pro = gap_source_at(job->dy, n, block);
    const gap_epilogue e = gap_sink_at(job->din, n, block, 0, 0);
    float *din = job->din->y + n * gap_sink_image(job->din) + block * job->din->plane;
    const gap_depthwise_sweep_back b = {
        .x = e.z, .dy = job->dy->x + n * gap_source_image(job->dy) + block * job->dy->plane, .w = job->w + block * d->taps * 16, .pro = &pro, .epi = &e,
        .dx = din, .dw = dw, .in_h = d->in_h, .in_w = d->in_w, .out_h = d->out_h, .out_w = d->out_w, .step = d->in_step, .piece = d->in_piece,
        .kernel = (int)d->kernel[0], .stride = (int)d->stride[0], .stream = job->stream && ((uintptr_t)din & 63) == 0, .begins = begins, .ends = ends,
        .work = s->row0};
    return job->k->depthwise->sweep_back(&b);
}

/* Input rows [r0, r1) of a plane: din (NULL: not wanted) is that plane. */
static void back_rows(const back_job *job, ring *s, const gap_prologue *pro, int64_t n, int64_t block, float *din, float *dw, int64_t r0, int64_t r1) {
    const gap_depthwise *d = job->d;
    const float *dy = job->dy->x + n * gap_source_image(job->dy) + block * job->dy->plane, *w = job->w + block * d->taps * 16;
    const int64_t reach = (d->kernel[0] - 1) * d->dilation[0], sh = d->stride[0], sw = d->stride[1], lo = floor_div(r0 + d->pad[0] - reach, sh);
    ring_fill(s, dy, pro, lo, floor_div(r1 - 1 + d->pad[0], sh) + 1);
    const float *x = dw ? back_input(job, s, n, block, r0, r1) : NULL;
    int64_t taps = 0, seen = 0;
    for (int64_t a = 0; a < sh; a++)
        for (int64_t b = 0; b < sw; b++) {
            const gap_depthwise_phase h = phase_of(d, 0, a), v = phase_of(d, 1, b);
            gap_depthwise_ahead ahead = {.n = 0};
            back_ahead(job, s, pro, dy, din, n, block, r1, seen, &ahead);
            seen += back_phase(job, s, r0, r1, lo, a, b, x, din ? din + r0 * d->in_w * 16 : NULL, w + taps * 16, dw ? dw + taps * 16 : NULL, &h, &v, &ahead);
            taps += h.n * v.n;
        }
}

static void back_plane(const back_job *job, ring *s, int64_t n, int64_t block, float *dw) {
    const gap_depthwise *d = job->d;
    float *din = job->din ? job->din->y + n * gap_sink_image(job->din) + block * job->din->plane : NULL;
    const gap_prologue pro = gap_source_at(job->dy, n, block);
    s->loaded = 0;
    for (int64_t piece = 0, r0 = 0, r1; r0 < d->in_h; piece++, r0 = r1) {
        r1 = gap_min64(d->in_h, r0 + d->in_piece);
        for (int64_t r = r0; r < r1; r += d->in_step) back_rows(job, s, &pro, n, block, din, dw, r, gap_min64(r1, r + d->in_step));
        if (din) finish(job->k->stream, job->din, n, block, piece, r0, d->in_w, r1 - r0);
    }
}

/* A chunk of images against a group of blocks, in the order in which they lie in memory. */
static void back_chunk(void *arg, int64_t unit, int thread) {
    back_job *job = arg;
    const gap_depthwise *d = job->d;
    const int64_t group = unit % d->groups, chunk = unit / d->groups, b0 = d->blocks * group / d->groups, b1 = d->blocks * (group + 1) / d->groups;
    float *dw = job->parts ? job->parts + chunk * part_floats(d) : NULL; /* (blocks, taps, 16) */
    int64_t begin, end;
    int slot;
    gap_reduce_range(job->capacity, d->chunks, (int)chunk, job->n, &begin, &end);
    if (dw) memset(dw + b0 * d->taps * 16, 0, (size_t)((b1 - b0) * d->taps * 16) * sizeof *dw);
    if (begin >= end) return;
    void *scratch = gap_scratch_take(&job->scratch, thread, &slot);
    ring s = ring_begin(&d->dout, job->k->stream, scratch, x_pixels(d), d->out_h, d->out_w);
    for (int64_t n = begin; n < end; n++)
        for (int64_t b = b0; b < b1; b++) {
            float *to = dw ? dw + b * d->taps * 16 : NULL;
            if (job->whole && sweep_back(job, &s, n, b, to, n == begin && b == b0, n == end - 1 && b == b1 - 1)) continue;
            back_plane(job, &s, n, b, to);
        }
    gap_scratch_give(&job->scratch, slot);
}

/* Adds the chunks of a block and writes its channels in the store's order. */
static void back_sum(void *arg, int64_t block, int thread) {
    (void)thread;
    const back_job *job = arg;
    const gap_depthwise *d = job->d;
    const int64_t part = part_floats(d), channels = gap_min64(16, d->c - block * 16);
    float *sum = job->parts + block * d->taps * 16; /* (taps, 16) */
    float *dw = job->dw + block * 16 * d->taps;     /* (16, kh, kw) */
    job->k->depthwise->add(sum, sum + part, part, d->chunks - 1, d->taps);
    for (int64_t c = 0; c < channels; c++, dw += d->taps)
        for (int64_t t = 0; t < d->taps; t++) {
            float *to = dw + job->place[t];
            *to = job->dw_add ? *to + sum[t * 16 + c] : sum[t * 16 + c];
        }
}

/* x and the mask are formed of the same values in the same way. */
static bool whole(const gap_depthwise *d, const gap_source *x, const gap_sink *din) {
    const gap_prologue *p = &x->pro;
    const gap_epilogue *e = &din->epi;
    return (plain(d, 1) || plain(d, 2)) && e->kind == GAP_EPILOGUE_MASK && e->sums && e->z == x->x && !e->out && !e->z2 &&
           e->scale && !din->add && e->scale == p->scale && e->shift == p->shift && e->act == p->act && !p->z && !p->residual && !p->gate;
}

gap_status gap_depthwise_back(const gap_depthwise *d, const gap_op_ctx *ctx, const void *derived, const gap_source *x, const gap_source *dy,
                              const gap_sink *din, float *dw, bool dw_add, int slots) {
    const float *base = derived;
    const sections s = sections_of(d);
    unsigned char *work = ctx->workspace;
    back_job job = {.d = d, .k = ctx->kernels, .x = x, .dy = dy, .din = din, .w = base + s.back,
                    .place = (const int32_t *)(const void *)(base + s.place), .parts = dw ? (float *)(void *)work : NULL, .dw = dw, .dw_add = dw_add, .n = ctx->n, .capacity = ctx->capacity};
    if (!din && !dw) return GAP_OK;
    job.whole = din && dw && whole(d, x, din);
    job.stream = din && ctx->n * din->blocks * (din->plane + dy->plane) * (int64_t)sizeof(float) >= STREAMED / 2;
    gap_scratch_begin(&job.scratch, work + parts_bytes(d), back_bytes(d), slots);
    const gap_status st = gap_parallel(d->chunks * d->groups, back_chunk, &job);
    return st == GAP_OK && dw ? gap_parallel(d->blocks, back_sum, &job) : st;
}

#include "harness.h"
#include "kernels/act.h"
#include "kernels/kernels.h"
#include "kernels/stream.h"
#include "ops/source.h"

enum { H = 7, W = 6, PIXELS = H * W, FLOATS = PIXELS * 16, ACTS = GAP_ACT_HARDSIGMOID + 1 };
static const float SLOPE = 0.125f; /* of LeakyReLU */

/* ---- the reference: kernels/fuse.h in double ---- */

static double act_of(gap_act act, double x) {
    const double ramp = fmin(6, fmax(0, x + 3));
    switch (act) {
    case GAP_ACT_RELU: return fmax(0, x);
    case GAP_ACT_RELU6: return fmin(6, fmax(0, x));
    case GAP_ACT_LEAKY_RELU: return x > 0 ? x : x * (double)SLOPE;
    case GAP_ACT_TANH: return tanh(x);
    case GAP_ACT_SIGMOID: return 1 / (1 + exp(-x));
    case GAP_ACT_SILU: return x / (1 + exp(-x));
    case GAP_ACT_HARDSWISH: return x * ramp / 6;
    case GAP_ACT_HARDSIGMOID: return ramp / 6;
    case GAP_ACT_NONE: break;
    }
    return x;
}

static double slope_of(gap_act act, double x) {
    const double s = 1 / (1 + exp(-x));
    switch (act) {
    case GAP_ACT_RELU: return x > 0;
    case GAP_ACT_RELU6: return x > 0 && x < 6;
    case GAP_ACT_LEAKY_RELU: return x > 0 ? 1 : (double)SLOPE;
    case GAP_ACT_TANH: return 1 - tanh(x) * tanh(x);
    case GAP_ACT_SIGMOID: return s * (1 - s);
    case GAP_ACT_SILU: return s * (1 + x * (1 - s));
    case GAP_ACT_HARDSWISH: return x >= 3 ? 1 : x > -3 ? x / 3 + 0.5 : 0;
    case GAP_ACT_HARDSIGMOID: return x > -3 && x < 3 ? 1.0 / 6 : 0;
    case GAP_ACT_NONE: break;
    }
    return 1;
}

static double at(const float *p, int64_t k) { return (double)p[k]; }

/* v of pixel element k in a plane that begins where the prologue's planes do. */
static double prologue_of(const gap_prologue *f, const float *x, int64_t k) {
    const int64_t l = k % 16;
    double u = at(x, k);
    if (f->z) u = u * at(f->scale, l) + ((at(f->z, k) - at(f->mean, l)) * at(f->b, l) + at(f->c, l));
    else if (f->scale) u = u * at(f->scale, l) + at(f->shift, l);
    if (f->residual) u += f->residual_scale ? at(f->residual, k) * at(f->residual_scale, l) + at(f->residual_shift, l) : at(f->residual, k);
    const double v = act_of(f->act, u);
    return f->gate ? v * at(f->gate, l) : v;
}

/* ---- data and forms ---- */

static float x[FLOATS], z[FLOATS], z2[FLOATS], residual[FLOATS], behind[FLOATS];
static float vector[9][16]; /* scale, shift, mean, b, c, residual's scale and shift, gate, mean2 */
static const gap_kernels *set[4];
static int n_sets;

static void make_data(void) {
    static const char *const names[] = {"ref", "avx2", "avx512", "neon"};
    float *const planes[] = {x, z, z2, residual, behind};
    n_sets = 0;
    for (int k = 0; k < GAP_COUNTOF(names); k++)
        if (gap_kernels_find(&set[n_sets], names[k]) == GAP_OK) n_sets++;
    for (int k = 0; k < GAP_COUNTOF(planes); k++) {
        harness_fill(planes[k], FLOATS, 11 + (uint32_t)k);
        for (int i = 0; k != 4 && i < FLOATS; i++) planes[k][i] *= 4; /* reaches every piece of every activation */
    }
    for (int k = 0; k < GAP_COUNTOF(vector); k++) {
        harness_fill(vector[k], 16, 21 + (uint32_t)k);
        for (int l = 0; l < 16; l++) vector[k][l] *= 2;
    }
}

enum { FORMS = 18 };

static gap_prologue form(int k, gap_act act) {
    gap_prologue f = {.act = act, .act_arg = SLOPE};
    const int base = k % 3, joined = k / 3 % 3;
    if (base > 0) f.scale = vector[0], f.shift = vector[1];
    if (base == 2) f.z = z, f.mean = vector[2], f.b = vector[3], f.c = vector[4];
    if (joined > 0) f.residual = residual;
    if (joined == 2) f.residual_scale = vector[5], f.residual_shift = vector[6];
    if (k / 9) f.gate = vector[7];
    return f;
}

static gap_prologue form_from(gap_prologue f, int64_t pixel) {
    f.z = gap_shift_(f.z, pixel * 16), f.residual = gap_shift_(f.residual, pixel * 16);
    return f;
}

static bool near(double a, double b) { return fabs(a - b) <= 4e-6 * fmax(4, fabs(b)); }

static bool same(const char *what, int s, const float *a, const float *b, size_t n) {
    if (memcmp(a, b, n * sizeof *a) == 0) return true;
    for (size_t k = 0; k < n; k++)
        if (memcmp(a + k, b + k, sizeof *a) != 0) {
            printf("%s, set %d: element %zu is %.9g, not %.9g\n", what, s, k, (double)a[k], (double)b[k]);
            break;
        }
    return false;
}

/* ---- map and load ---- */

static void test_stream_map_is_the_prologue(void) {
    make_data();
    for (int k = 0; k < FORMS * ACTS * 2; k++) {
        const gap_prologue f = form(k / 2 % FORMS, (gap_act)(k / 2 / FORMS));
        const bool add = k % 2;
        float first[FLOATS], y[FLOATS], cut[FLOATS];
        for (int s = 0; s < n_sets; s++) {
            const gap_stream_kernels *stream = set[s]->stream;
            memcpy(y, behind, sizeof y), memcpy(cut, behind, sizeof cut);
            stream->map(PIXELS, x, &f, y, add);
            if (s == 0) memcpy(first, y, sizeof y);
            CHECK(same("map", s, y, first, FLOATS));
            for (int64_t p = 0, n; p < PIXELS; p += n) { /* anywhere cut */
                const gap_prologue part = form_from(f, p);
                n = p + 11 < PIXELS ? 11 : PIXELS - p;
                stream->map(n, x + p * 16, &part, cut + p * 16, add);
            }
            CHECK(same("map cut", s, cut, first, FLOATS));
            if (add) continue;
            memcpy(y, x, sizeof y);
            stream->map(PIXELS, y, &f, y, false);
            CHECK(same("map in place", s, y, first, FLOATS));
        }
        for (int i = 0; i < FLOATS; i++) {
            const double want = prologue_of(&f, x, i) + (add ? at(behind, i) : 0);
            if (!near((double)first[i], want)) printf("form %d, act %d, element %d: %g, expected %g\n", k / 2 % FORMS, f.act, i, (double)first[i], want);
            CHECK(near((double)first[i], want));
        }
    }
}

typedef struct { int64_t row0, rows, col0, cols, gap; } window;

static void check_window(const window *v, const gap_prologue *f, int s) {
    enum { MOST = 16 * 16 * 16 + 64 };
    float dst[MOST], mapped[FLOATS];
    const int64_t row = v->cols * 16 + v->gap;
    for (int k = 0; k < MOST; k++) dst[k] = 77;
    set[s]->stream->map(PIXELS, x, f, mapped, false);
    const gap_stream_load l = {.x = x, .h = H, .w = W, .lanes = 16, .dst = dst, .dst_row = row, .rows = v->rows, .cols = v->cols,
                               .row0 = v->row0, .col0 = v->col0, .pro = *f};
    set[s]->stream->load(&l);
    for (int64_t k = 0; k < MOST; k++) {
        const int64_t r = k / row, c = k % row / 16, ir = r + v->row0, ic = c + v->col0;
        static const float zero = 0, untouched = 77;
        const float *want = &untouched;
        if (r < v->rows && k % row < v->cols * 16)
            want = ir >= 0 && ir < H && ic >= 0 && ic < W ? mapped + (ir * W + ic) * 16 + k % row % 16 : &zero;
        if (!same("load", s, dst + k, want, 1)) { /* zeros of a halo are +0 */
            printf("  rows %lld..+%lld, columns %lld..+%lld, row %lld\n", (long long)v->row0, (long long)v->rows, (long long)v->col0, (long long)v->cols, (long long)r);
            CHECK(!"load is map inside and 0 outside");
            return;
        }
    }
}

static void test_stream_load_is_map_inside_and_zero_outside(void) {
    static const window windows[] = {
        {0, H, 0, W, 0},   {-1, H + 2, -1, W + 2, 0}, {-3, 12, -2, 11, 16}, {2, 3, 1, 4, 32}, {H, 2, 0, W, 0},  {-4, 3, 0, W, 0},
        {0, H, W, 3, 0},   {0, H, -5, 4, 0},          {0, 1, 0, 1, 0},      {6, 4, 5, 6, 0},  {-1, 1, -1, 1, 0}, {3, 2, -4, 14, 16},
    };
    make_data();
    for (int s = 0; s < n_sets; s++)
        for (int k = 0; k < FORMS * ACTS; k++) {
            const gap_prologue f = form(k % FORMS, (gap_act)(k / FORMS));
            for (int w = 0; w < GAP_COUNTOF(windows); w++) check_window(&windows[w], &f, s);
        }
}

static void test_stream_load_of_pixels_with_few_lanes(void) {
    make_data();
    for (int s = 0; s < n_sets; s++)
        for (int64_t lanes = 1; lanes <= 5; lanes++) {
            float dst[(H + 2) * (W + 2) * 5];
            memset(dst, 0xff, sizeof dst);
            const gap_stream_load l = {.x = x, .h = H, .w = W, .lanes = lanes, .dst = dst, .dst_row = (W + 2) * lanes, .rows = H + 2,
                                       .cols = W + 2, .row0 = -1, .col0 = -1};
            set[s]->stream->load(&l);
            for (int64_t r = 0; r < H + 2; r++)
                for (int64_t c = 0; c < (W + 2) * lanes; c++) {
                    const bool inside = r > 0 && r <= H && c >= lanes && c < (W + 1) * lanes;
                    const float want = inside ? x[(r - 1) * W * lanes + c - lanes] : 0.0f;
                    CHECK(memcmp(&dst[r * (W + 2) * lanes + c], &want, sizeof want) == 0);
                }
        }
}

/* ---- finish ---- */

enum { PIECES = 8, SECOND = 32, PIECE_STRIDE = 80, SUMS = PIECES * PIECE_STRIDE };

/* The documented order, written out: within a piece pixel p goes to chain p mod 4, added as (0+1) + (2+3). first: sums of
 * d; second: of d*e, one fma each. */
static void order_of_sums(const float *d, const float *e, int64_t pixels, int64_t piece, float *sums) {
    for (int64_t begin = 0; begin < pixels; begin += piece, sums += PIECE_STRIDE)
        for (int64_t l = 0; l < 16; l++) {
            float s[4] = {0}, q[4] = {0};
            for (int64_t p = begin; p < begin + piece && p < pixels; p++) {
                const int64_t chain = (p - begin) % 4, k = p * 16 + l;
                s[chain] = s[chain] + d[k];
                if (e) q[chain] = fmaf(d[k], e[k], q[chain]);
            }
            sums[l] = (s[0] + s[1]) + (s[2] + s[3]);
            if (e) sums[SECOND + l] = (q[0] + q[1]) + (q[2] + q[3]);
        }
}

static void minus(const float *a, const float *v, float *d) {
    for (int k = 0; k < FLOATS; k++) d[k] = v ? a[k] - v[k % 16] : a[k];
}

static void untouched(float *sums) {
    for (int k = 0; k < SUMS; k++) sums[k] = 55;
}

static gap_epilogue epilogue_from(gap_epilogue e, int64_t pixel, int64_t piece) {
    const int64_t k = pixel * 16;
    e.residual = gap_shift_(e.residual, k), e.out = gap_shift_(e.out, k), e.z = gap_shift_(e.z, k), e.z2 = gap_shift_(e.z2, k);
    if (e.sums) e.sums += piece * PIECE_STRIDE;
    if (e.sums2) e.sums2 += piece * PIECE_STRIDE;
    return e;
}

/* Runs it whole, or as two calls cut before piece `cut`. */
static void finish(int s, float *y, const float *from, int64_t piece, const gap_epilogue *e, int64_t cut) {
    const int64_t first = cut > 0 ? cut * piece : PIXELS;
    gap_stream_finish f = {.y = y, .from = from, .pixels = first, .piece = piece, .epi = *e};
    set[s]->stream->finish(&f);
    if (first >= PIXELS) return;
    f.y = y + first * 16, f.from = gap_shift_(from, first * 16), f.pixels = PIXELS - first, f.epi = epilogue_from(*e, first, cut);
    set[s]->stream->finish(&f);
}

/* SUMS, written out: about the first pixel of a piece, then about the pivot and about its mean. */
static void moments_of(const float *y, const float *pivot, int64_t piece, float *sums) {
    float d[FLOATS];
    for (int k = 0; k < FLOATS; k++) d[k] = y[k] - y[k / 16 / piece * piece * 16 + k % 16];
    untouched(sums);
    order_of_sums(d, d, PIXELS, piece, sums);
    for (int64_t begin = 0; begin < PIXELS; begin += piece, sums += PIECE_STRIDE)
        for (int64_t l = 0; l < 16; l++) {
            const float n = (float)gap_min64(piece, PIXELS - begin), sum = sums[l];
            sums[l] = fmaf(n, y[begin * 16 + l] - (pivot ? pivot[l] : 0), sum);
            sums[SECOND + l] = fmaf(-(sum / n), sum, sums[SECOND + l]);
        }
}

static const int64_t pieces[] = {16, 7, PIXELS, 64, 4};

static int64_t cut_of(int64_t piece) { return piece < PIXELS ? 1 : 0; }

static void test_stream_sums_follow_the_documented_order(void) {
    make_data();
    for (int k = 0; k < GAP_COUNTOF(pieces) * 2; k++) {
        const int64_t piece = gap_max64(pieces[k / 2], gap_ceil_div(PIXELS, PIECES));
        const float *pivot = k % 2 ? vector[2] : NULL;
        float want[SUMS], got[SUMS], y[FLOATS];
        moments_of(x, pivot, piece, want);
        for (int s = 0; s < n_sets; s++)
            for (int64_t cut = 0; cut <= cut_of(piece); cut++) {
                const gap_epilogue e = {.kind = GAP_EPILOGUE_SUMS, .pivot = pivot, .sums = got, .sums_piece = PIECE_STRIDE, .sums_second = SECOND};
                untouched(got), memcpy(y, x, sizeof y);
                finish(s, y, NULL, piece, &e, cut);
                CHECK(same("sums", s, got, want, SUMS));
                CHECK(same("y of sums", s, y, x, FLOATS));
            }
    }
}

/* Far from 0 and from the pivot the variance keeps its digits. */
static void test_stream_sums_of_what_is_far_from_zero(void) {
    make_data();
    float y[FLOATS], sums[SUMS];
    for (int k = 0; k < FLOATS; k++) y[k] = 1000 + x[k] / 4;
    for (int s = 0; s < n_sets; s++) {
        const gap_epilogue e = {.kind = GAP_EPILOGUE_SUMS, .sums = sums, .sums_piece = PIECE_STRIDE, .sums_second = SECOND};
        finish(s, y, NULL, PIXELS, &e, 0);
        for (int64_t l = 0; l < 16; l++) {
            double mean = 0, squares = 0;
            for (int64_t p = 0; p < PIXELS; p++) mean += at(y, p * 16 + l) / PIXELS;
            for (int64_t p = 0; p < PIXELS; p++) squares += (at(y, p * 16 + l) - mean) * (at(y, p * 16 + l) - mean);
            CHECK(fabs((double)sums[l] / PIXELS - mean) <= 1e-7 * mean);
            CHECK(fabs((double)sums[SECOND + l] - squares) <= 1e-5 * squares);
        }
    }
}

static void test_stream_apply_is_affine_shortcut_and_activation(void) {
    make_data();
    for (int k = 0; k < ACTS * 2; k++) {
        const gap_epilogue e = {.kind = GAP_EPILOGUE_APPLY, .scale = vector[0], .shift = vector[1], .residual = k % 2 ? residual : NULL,
                                .act = (gap_act)(k / 2), .act_arg = SLOPE};
        const gap_prologue f = {.scale = e.scale, .shift = e.shift, .residual = e.residual, .act = e.act, .act_arg = SLOPE};
        float first[FLOATS], y[FLOATS];
        for (int s = 0; s < n_sets; s++)
            for (int64_t cut = 0; cut < 2; cut++) {
                memcpy(y, x, sizeof y);
                finish(s, y, NULL, 16, &e, cut);
                if (s == 0 && cut == 0) memcpy(first, y, sizeof y);
                CHECK(same("apply", s, y, first, FLOATS));
            }
        for (int i = 0; i < FLOATS; i++) CHECK(near((double)first[i], prologue_of(&f, x, i)));
    }
}

static void test_stream_nothing_is_nothing(void) {
    make_data();
    for (int s = 0; s < n_sets; s++) {
        float y[FLOATS];
        const gap_epilogue e = {.kind = GAP_EPILOGUE_NONE};
        memcpy(y, x, sizeof y);
        finish(s, y, NULL, 16, &e, 0);
        CHECK(same("none", s, y, x, FLOATS));
    }
}

typedef struct { bool out, affine, z2, sums, from; gap_act act; int64_t piece; } mask_case;

/* z means u itself or x of an affine; out is act(u) where that tells the gradient. */
static void check_mask(const mask_case *c) {
    const gap_prologue forward = {.scale = c->affine ? vector[0] : NULL, .shift = c->affine ? vector[1] : NULL, .act = c->act, .act_arg = SLOPE};
    float out[FLOATS], e1[FLOATS], e2[FLOATS], first[FLOATS], y[FLOATS], want[SUMS], want2[SUMS], sums[SUMS], sums2[SUMS];
    set[0]->stream->map(PIXELS, z, &forward, out, false);
    gap_epilogue e = {.kind = GAP_EPILOGUE_MASK, .act = c->act, .act_arg = SLOPE, .z = z, .mean = vector[2], .sums_piece = PIECE_STRIDE, .sums_second = SECOND};
    if (c->out) e.out = out;
    if (c->affine) e.scale = vector[0], e.shift = vector[1];
    if (c->z2) e.z2 = z2, e.mean2 = vector[8], e.sums2 = sums2;
    if (c->sums) e.sums = sums;
    for (int s = 0; s < n_sets; s++)
        for (int64_t cut = 0; cut <= cut_of(c->piece); cut++) {
            untouched(sums), untouched(sums2);
            if (c->from) memset(y, 0xff, sizeof y);
            else memcpy(y, behind, sizeof y);
            finish(s, y, c->from ? behind : NULL, c->piece, &e, cut);
            if (s == 0 && cut == 0) {
                memcpy(first, y, sizeof y);
                minus(z, vector[2], e1), minus(z2, vector[8], e2), untouched(want), untouched(want2);
                if (c->sums) order_of_sums(y, e1, PIXELS, c->piece, want);
                if (c->z2) order_of_sums(y, e2, PIXELS, c->piece, want2);
            }
            CHECK(same("mask", s, y, first, FLOATS));
            CHECK(same("sums of mask", s, sums, want, SUMS));
            CHECK(same("second sums of mask", s, sums2, want2, SUMS));
        }
    for (int k = 0; k < FLOATS; k++) {
        const double u = c->affine ? at(z, k) * at(vector[0], k % 16) + at(vector[1], k % 16) : at(z, k), want_y = at(behind, k) * slope_of(c->act, u);
        if (!near((double)first[k], want_y)) printf("act %d, out %d, affine %d: %g, expected %g at u = %g\n", c->act, c->out, c->affine, (double)first[k], want_y, u);
        CHECK(near((double)first[k], want_y));
    }
}

static void test_stream_mask_is_the_gradient_before_the_activation(void) {
    make_data();
    for (int k = 0; k < ACTS * 32; k++) {
        const mask_case c = {.act = (gap_act)(k / 32), .out = k & 1, .affine = k & 2, .z2 = k & 4, .sums = k & 8, .from = k & 16, .piece = k % 5 ? 16 : 9};
        if (c.out && !gap_act_from_output(c.act)) continue; /* the output does not tell */
        check_mask(&c);
    }
    for (int k = 0; k < GAP_COUNTOF(pieces); k++) {
        const mask_case c = {.act = GAP_ACT_SILU, .affine = true, .z2 = true, .sums = true, .piece = gap_max64(pieces[k], gap_ceil_div(PIXELS, PIECES))};
        check_mask(&c);
    }
}

/* A mask from the output alone, with no sums that need z. */
static void test_stream_mask_from_the_output_alone(void) {
    make_data();
    for (int act = 0; act < ACTS; act++) {
        const gap_prologue forward = {.act = (gap_act)act, .act_arg = SLOPE};
        float out[FLOATS], y[FLOATS], sums[SUMS], want[SUMS];
        if (!gap_act_from_output((gap_act)act)) continue;
        for (int s = 0; s < n_sets; s++) {
            set[s]->stream->map(PIXELS, z, &forward, out, false);
            const gap_epilogue e = {.kind = GAP_EPILOGUE_MASK, .act = (gap_act)act, .act_arg = SLOPE, .out = out, .sums = sums,
                                    .sums_piece = PIECE_STRIDE, .sums_second = SECOND};
            memcpy(y, behind, sizeof y), untouched(sums), untouched(want);
            finish(s, y, NULL, 16, &e, 0);
            order_of_sums(y, NULL, PIXELS, 16, want);
            CHECK(same("sums of g alone", s, sums, want, SUMS));
            for (int k = 0; k < FLOATS; k++) CHECK(near((double)y[k], at(behind, k) * slope_of((gap_act)act, at(z, k))));
        }
    }
}

/* A NaN in is a NaN out, of a prologue and of the gradient: no activation may hide it. */
static void test_stream_keeps_nan(void) {
    make_data();
    for (int s = 0; s < n_sets; s++)
        for (int act = 0; act < ACTS; act++) {
            float y[FLOATS];
            const gap_prologue f = {.scale = vector[0], .shift = vector[1], .act = (gap_act)act, .act_arg = SLOPE};
            memcpy(y, x, sizeof y);
            y[5] = NAN;
            set[s]->stream->map(PIXELS, y, &f, y, false);
            CHECK(isnan(y[5]));
        }
}

/* ---- ops/source.h ---- */

static void test_source_pieces_cover_a_plane_in_whole_rows(void) {
    for (int64_t h = 1; h < 70; h++)
        for (int64_t w = 1; w < 300; w += w < 20 ? 1 : 37) {
            const int64_t rows = gap_piece_rows(h, w), n = gap_pieces(h, w);
            CHECK(rows >= 1 && rows <= h && (n - 1) * rows < h && n * rows >= h);
            if (n > 1) CHECK(rows % 4 == 0 && rows * w >= 256);
        }
}

static void test_source_and_sink_find_their_plane(void) {
    enum { BLOCKS = 3, PLANE = 64, N = 2 };
    static float t[N * BLOCKS * PLANE], v[5 * BLOCKS * 16], sums[N * 4 * 2 * BLOCKS * 16];
    const gap_source s = {.x = t, .plane = PLANE, .blocks = BLOCKS, .pro = {.scale = v, .shift = v, .z = t, .mean = v, .b = v, .c = v, .residual = t,
                          .residual_scale = v, .residual_shift = v, .gate = v}};
    const gap_prologue p = gap_source_at(&s, 1, 2);
    const float *const plane = t + (1 * BLOCKS + 2) * PLANE, *const channels = v + 32;
    CHECK(p.z == plane && p.residual == plane);
    CHECK(p.scale == channels && p.shift == channels && p.mean == channels && p.b == channels && p.c == channels);
    CHECK(p.residual_scale == channels && p.residual_shift == channels && p.gate == v + BLOCKS * 16 + 32);
    CHECK(!gap_source_plain(&s) && gap_source_plain(&(gap_source){.x = t, .plane = PLANE, .blocks = BLOCKS}));
    const gap_sink k = {.y = t, .plane = PLANE, .blocks = BLOCKS, .pieces = 4, .epi = {.pivot = v, .scale = v, .shift = v, .mean = v, .mean2 = v,
                        .residual = t, .out = t, .z = t, .z2 = t, .sums = sums, .sums2 = sums}};
    const gap_epilogue e = gap_sink_at(&k, 1, 2, 3, 2);
    CHECK(e.residual == plane + 32 && e.out == plane + 32 && e.z == plane + 32 && e.z2 == plane + 32);
    CHECK(e.pivot == channels && e.scale == channels && e.shift == channels && e.mean == channels && e.mean2 == channels);
    CHECK(e.sums == sums + ((1 * 4 + 3) * 2) * BLOCKS * 16 + 32 && e.sums2 == e.sums);
    CHECK(e.sums_piece == 2 * BLOCKS * 16 && e.sums_second == BLOCKS * 16);
    const gap_sink none = {.y = t, .plane = PLANE, .blocks = BLOCKS, .pieces = 4};
    const gap_epilogue n = gap_sink_at(&none, 1, 1, 1, 1);
    CHECK(!n.sums && !n.sums2 && !n.z && !n.out && !n.scale && !n.residual);
}

int main(void) {
    RUN(test_stream_map_is_the_prologue);
    RUN(test_stream_load_is_map_inside_and_zero_outside);
    RUN(test_stream_load_of_pixels_with_few_lanes);
    RUN(test_stream_sums_follow_the_documented_order);
    RUN(test_stream_sums_of_what_is_far_from_zero);
    RUN(test_stream_apply_is_affine_shortcut_and_activation);
    RUN(test_stream_nothing_is_nothing);
    RUN(test_stream_mask_is_the_gradient_before_the_activation);
    RUN(test_stream_mask_from_the_output_alone);
    RUN(test_stream_keeps_nan);
    RUN(test_source_pieces_cover_a_plane_in_whole_rows);
    RUN(test_source_and_sink_find_their_plane);
    return harness_end();
}

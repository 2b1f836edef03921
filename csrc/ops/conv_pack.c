/* conv_pack.c — weights between torch's order (OIHW) and the passes' own. */
#include "ops/conv_plan.h"

#include <string.h>

/* Taps of a phase along one axis. */
static int64_t axis_taps(const conv_pass *p, int axis, int64_t phase) {
    int64_t n = 0, at;
    for (int64_t k = 0; k < p->kernel[axis]; k++) n += gap_conv_tap(p, axis, phase, k, &at);
    return n;
}

/* Offsets of the taps in the padded plane, and their places in the packed weights, phase by phase. */
static void list_taps(const conv_pass *p, int64_t *off, conv_place *place) {
    const int64_t phases_h = p->backward ? p->stride[0] : 1, phases_w = p->backward ? p->stride[1] : 1;
    const int64_t row = p->cols * p->lanes, block = p->entries == p->taps ? p->run * 16 : p->lanes * 16;
    int64_t n = 0, at_h, at_w;
    for (int64_t ph = 0; ph < phases_h; ph++)
        for (int64_t pw = 0; pw < phases_w; pw++) {
            const int64_t in_phase = axis_taps(p, 0, ph) * axis_taps(p, 1, pw), start = n;
            for (int64_t kh = 0; kh < p->kernel[0]; kh++) {
                if (!gap_conv_tap(p, 0, ph, kh, &at_h)) continue;
                for (int64_t j = 0; j < p->kernel[1]; j++) {
                    const int64_t kw = p->group && p->backward ? p->kernel[1] - 1 - j : j; /* groups: by growing offset */
                    if (!gap_conv_tap(p, 1, pw, kw, &at_w)) continue;
                    conv_place *to = &place[kh * p->kernel[1] + kw];
                    *to = (conv_place){start * p->range * block + (n - start) * block, in_phase * block};
                    const int64_t here = (at_h - p->origin[0]) * row + (at_w - p->origin[1]) * p->lanes;
                    if (p->entries == p->taps) off[n] = here;
                    else if (kw == 0) off[kh] = here;
                    n++;
                }
            }
        }
}

typedef struct {
    const conv_pass *p;
    const conv_place *place;
    const float *weight, *bias;
    float *w, *packed_bias;      /* derive: to write */
    float *dw, *parts;           /* unpack: OIHW, and the packed sums */
    bool add;
    int n_parts;
    int64_t part;
} pack_job;

/* First element of the pair's taps in OIHW; per_* are those of the pass, so that backward's output channel is O's input. */
static int64_t pair_at(const conv_pass *p, int64_t oc, int64_t ic) {
    const int64_t per_out = p->out_c / p->groups, per_in = p->in_c / p->groups;
    return p->backward ? (ic * per_out + oc % per_out) * p->taps : (oc * per_in + ic % per_in) * p->taps;
}

/* One pair of input block r with output channel oc: connected channels [c0, c1), their first tap in OIHW, the step to the next
 * channel, and the place of the first one's lane beside the taps'. */
typedef struct { int64_t c0, c1, from, step, lane; } pair_run;

static pair_run connected(const conv_pass *p, int64_t lo, int64_t r, int64_t oc) {
    const int64_t per_out = p->out_c / p->groups, per_in = p->in_c / p->groups, group = oc / per_out;
    pair_run c = {.step = p->backward ? per_out * p->taps : p->taps};
    const int64_t first = (lo + r) * p->lanes;
    c.c0 = first > group * per_in ? first : group * per_in;
    c.c1 = gap_min64(first + p->lanes, (group + 1) * per_in);
    c.lane = (p->group ? 0 : (c.c0 - first) * 16) + oc % 16;
    c.from = c.c0 < c.c1 ? pair_at(p, oc, c.c0) : 0;
    return c;
}

static void derive_block(void *arg, int64_t o, int thread) {
    (void)thread;
    const pack_job *job = arg;
    const conv_pass *p = job->p;
    const int64_t lo = gap_conv_lo(p, o), oc1 = gap_min64(p->out_c, o * 16 + 16);
    float *w = job->w + o * p->w_oc; /* (phase, in block, tap, in channel, 16) */
    memset(w, 0, (size_t)p->w_oc * sizeof *w);
    for (int64_t r = 0; r < p->range; r++)
        for (int64_t oc = o * 16; oc < oc1; oc++) {
            const pair_run c = connected(p, lo, r, oc);
            for (int64_t t = 0; t < p->taps; t++) {
                const float *from = job->weight + c.from + t;
                float *to = w + c.lane + job->place[t].base + r * job->place[t].block;
                for (int64_t k = 0; k < c.c1 - c.c0; k++) to[k * 16] = from[k * c.step];
            }
        }
    if (!job->packed_bias) return;
    for (int64_t oc = o * 16; oc < o * 16 + 16; oc++) job->packed_bias[oc] = job->bias && oc < p->out_c ? job->bias[oc] : 0.0f;
}

void gap_conv_derive_lists(const conv_pass *p, const conv_derived *d, unsigned char *derived) {
    list_taps(p, (int64_t *)(void *)(derived + d->off), (conv_place *)(void *)(derived + d->place));
}

gap_status gap_conv_derive(const conv_pass *p, const conv_derived *d, unsigned char *derived, const float *weight, const float *bias) {
    const conv_place *place = (const conv_place *)(void *)(derived + d->place);
    gap_conv_derive_lists(p, d, derived);
    pack_job job = {.p = p, .place = place, .weight = weight, .bias = bias, .w = (float *)(void *)(derived + d->w)};
    if (!p->backward) job.packed_bias = (float *)(void *)(derived + d->bias);
    return gap_parallel(p->out_blocks, derive_block, &job);
}

static void unpack_block(void *arg, int64_t o, int thread) {
    (void)thread;
    const pack_job *job = arg;
    const conv_pass *p = job->p;
    const int64_t lo = gap_conv_lo(p, o), oc1 = gap_min64(p->out_c, o * 16 + 16);
    float *sum = job->parts + o * p->w_oc; /* (in block, tap, in channel, 16) */
    for (int k = 1; k < job->n_parts; k++) {
        const float *more = sum + k * job->part;
        for (int64_t i = 0; i < p->w_oc; i++) sum[i] += more[i];
    }
    for (int64_t r = 0; r < p->range; r++)
        for (int64_t oc = o * 16; oc < oc1; oc++) {
            const pair_run c = connected(p, lo, r, oc);
            for (int64_t t = 0; t < p->taps; t++) {
                const float *from = sum + c.lane + job->place[t].base + r * job->place[t].block;
                float *to = job->dw + c.from + t;
                if (job->add) for (int64_t k = 0; k < c.c1 - c.c0; k++) to[k * c.step] += from[k * 16];
                else for (int64_t k = 0; k < c.c1 - c.c0; k++) to[k * c.step] = from[k * 16];
            }
        }
}

gap_status gap_conv_unpack(const conv_pass *p, const conv_place *place, float *dw, bool add, float *parts, int n_parts, int64_t part) {
    pack_job job = {.p = p, .place = place, .dw = dw, .add = add, .parts = parts, .n_parts = n_parts, .part = part};
    return gap_parallel(p->out_blocks, unpack_block, &job);
}

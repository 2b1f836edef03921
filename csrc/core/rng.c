#include "core/rng.h"

#define M0 0xD2511F53u
#define M1 0xCD9E8D57u
#define W0 0x9E3779B9u
#define W1 0xBB67AE85u

void gap_rng_block(const gap_rng *r, uint32_t draw, uint32_t out[4]) {
    uint32_t k0 = (uint32_t)r->seed, k1 = (uint32_t)(r->seed >> 32) ^ (r->stream * W0);
    uint32_t c0 = r->epoch, c1 = r->sample, c2 = r->op, c3 = draw;
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)M0 * c0, p1 = (uint64_t)M1 * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
        k0 += W0, k1 += W1;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

void gap_draws_begin(gap_draws *d, const gap_rng *place) {
    d->place = *place;
    d->next = 0;
    d->have = 0;
}

uint32_t gap_draws_u32(gap_draws *d) {
    if (d->have == 0) {
        gap_rng_block(&d->place, d->next++, d->word);
        d->have = 4;
    }
    return d->word[4 - d->have--];
}

double gap_draws_uniform(gap_draws *d) {
    uint64_t hi = gap_draws_u32(d) >> 5, lo = gap_draws_u32(d) >> 6; /* 27 + 26 bits, as in MT19937's genrand_res53 */
    return ((double)hi * 67108864.0 + (double)lo) / 9007199254740992.0;
}

int64_t gap_draws_below(gap_draws *d, int64_t n) {
    /* Lemire 2019, "Fast random integer generation in an interval": reject the short part, so that no k is favoured. */
    uint64_t range = (uint64_t)n, threshold = ((uint64_t)1 << 32) % range;
    for (;;) {
        uint64_t m = (uint64_t)gap_draws_u32(d) * range;
        if ((m & 0xFFFFFFFFu) >= threshold) return (int64_t)(m >> 32);
    }
}

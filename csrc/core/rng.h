/* rng.h — randomness as a function: Philox4x32-10 (Salmon et al. 2011), key (seed, stream), counter (epoch, sample, op, draw).
 *
 * No state is carried anywhere: the same coordinates give the same numbers on every machine, in any order, in any thread.
 */
#ifndef GAP_CORE_RNG_H
#define GAP_CORE_RNG_H

#include <stdint.h>

/* Streams: fixed for ever, stored files depend on them. */
typedef enum { GAP_STREAM_INIT = 0, GAP_STREAM_SHUFFLE = 1, GAP_STREAM_AUGMENT = 2, GAP_STREAM_DROPOUT = 3,
               GAP_STREAM_MIX = 4, GAP_STREAM_SPLIT = 5, GAP_STREAM_USER = 6 } gap_stream;

/* The place of a family of draws. `draw` counts blocks of four 32-bit words. */
typedef struct {
    uint64_t seed;
    uint32_t stream;
    uint32_t epoch, sample, op;
} gap_rng;

/* out[0..4): block number `draw` at this place. Key words: low32(seed), high32(seed) ^ stream * 0x9E3779B9. */
void gap_rng_block(const gap_rng *r, uint32_t draw, uint32_t out[4]);

/* A cursor over the draws of one place, for code that takes one number after the other. */
typedef struct {
    gap_rng place;
    uint32_t next;      /* block to come */
    uint32_t word[4];
    int have;           /* words left in `word` */
} gap_draws;

void gap_draws_begin(gap_draws *d, const gap_rng *place);
uint32_t gap_draws_u32(gap_draws *d);
double gap_draws_uniform(gap_draws *d);                       /* [0, 1), 53 bits, two words */
int64_t gap_draws_below(gap_draws *d, int64_t n);             /* 0 <= k < n, unbiased (rejection); n in [1, 2^32] */

/* Word -> float in [0, 1) with 24 bits: the same expression everywhere. */
static inline float gap_u32_to_unit(uint32_t w) { return (float)(w >> 8) * (1.0f / 16777216.0f); }

#endif

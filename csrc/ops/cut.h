/* cut.h — work without sums, cut into chunks of about the same number of floats. Where the cuts lie changes no bit. */
#ifndef GAP_OPS_CUT_H
#define GAP_OPS_CUT_H

#include <stdint.h>

#define GAP_CUT_FLOATS 32768 /* 128 KB: some 10 us of streaming, far above the price of claiming a chunk */

typedef struct { int64_t units, per_chunk; } gap_cut;

/* `units` pieces (elements, planes, samples) of `floats` each. */
static inline gap_cut gap_cut_of(int64_t units, int64_t floats) {
    int64_t per_chunk = GAP_CUT_FLOATS / (floats < 1 ? 1 : floats);
    gap_cut c = {units, per_chunk < 1 ? 1 : per_chunk};
    return c;
}
static inline int64_t gap_cut_chunks(gap_cut c) { return (c.units + c.per_chunk - 1) / c.per_chunk; }
static inline int64_t gap_cut_begin(gap_cut c, int64_t chunk) { return chunk * c.per_chunk; }
static inline int64_t gap_cut_end(gap_cut c, int64_t chunk) {
    int64_t end = (chunk + 1) * c.per_chunk;
    return end < c.units ? end : c.units;
}

#endif

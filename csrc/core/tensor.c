#include "core/tensor.h"

#include <stdio.h>

size_t gap_dtype_bytes(gap_dtype t) {
    switch (t) {
    case GAP_F32:
    case GAP_I32: return 4;
    case GAP_BF16: return 2;
    case GAP_U8: return 1;
    }
    return 0;
}

int64_t gap_block_width(gap_dtype t, int64_t channels) {
    (void)channels;
    return t == GAP_BF16 ? 32 : 16;
}

gap_desc gap_desc_image(int64_t c, int64_t h, int64_t w) {
    gap_desc d = {.dtype = GAP_F32, .layout = GAP_BLOCKED, .ndim = 3, .dim = {c, h, w}};
    d.cb = gap_block_width(GAP_F32, c);
    return d;
}

gap_desc gap_desc_vector(int64_t n) {
    gap_desc d = {.dtype = GAP_F32, .layout = GAP_PLAIN, .ndim = 1, .dim = {n}};
    return d;
}

int64_t gap_desc_count(const gap_desc *d) {
    int64_t n = 1;
    for (int k = 0; k < d->ndim; k++) n *= d->dim[k];
    return n;
}

int64_t gap_desc_blocks(const gap_desc *d) { return d->layout == GAP_BLOCKED ? (d->dim[0] + d->cb - 1) / d->cb : 0; }

int64_t gap_desc_stored(const gap_desc *d) {
    return d->layout == GAP_BLOCKED ? gap_desc_blocks(d) * d->cb * d->dim[1] * d->dim[2] : gap_desc_count(d);
}

int64_t gap_desc_step(const gap_desc *d) { return gap_desc_stored(d) + d->skip; }

size_t gap_desc_bytes(const gap_desc *d) { return (size_t)gap_desc_stored(d) * gap_dtype_bytes(d->dtype); }

bool gap_desc_equal(const gap_desc *a, const gap_desc *b) {
    if (a->dtype != b->dtype || a->layout != b->layout || a->ndim != b->ndim || a->cb != b->cb || a->per_batch != b->per_batch)
        return false;
    for (int k = 0; k < a->ndim; k++)
        if (a->dim[k] != b->dim[k]) return false;
    return true;
}

const char *gap_desc_text(const gap_desc *d, char text[96]) {
    int used = snprintf(text, 96, "(");
    for (int k = 0; k < d->ndim && used < 90; k++)
        used += snprintf(text + used, (size_t)(96 - used), k ? ", %lld" : "%lld", (long long)d->dim[k]);
    if (used < 95) snprintf(text + used, (size_t)(96 - used), ")");
    return text;
}

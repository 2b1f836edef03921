#if defined(__x86_64__)
#include <string.h>

#include "kernels/image.h"
#include "kernels/isa_avx2.h"

typedef struct { __m256i lo, hi; } lanes;

static inline __m256i widen(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)); }

static inline lanes lanes_half(void) {
    __m256i half = _mm256_set1_epi32(1 << (GAP_IMAGE_BITS - 1));
    return (lanes){half, half};
}

static inline lanes lanes_add(lanes acc, const uint8_t *p, int32_t k) {
    __m256i kk = _mm256_set1_epi32(k);
    acc.lo = _mm256_add_epi32(acc.lo, _mm256_mullo_epi32(widen(p), kk));
    acc.hi = _mm256_add_epi32(acc.hi, _mm256_mullo_epi32(widen(p + 8), kk));
    return acc;
}

static inline void lanes_store(uint8_t *p, lanes acc) {
    __m256i lo = _mm256_srai_epi32(acc.lo, GAP_IMAGE_BITS), hi = _mm256_srai_epi32(acc.hi, GAP_IMAGE_BITS);
    __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xD8); /* packs works within halves */
    _mm_storeu_si128((__m128i *)(void *)p, _mm_packus_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
}

#include "kernels/image_x86.inc"
#include "kernels/image.inc"

const gap_image_kernels gap_image_avx2 = {resample_rows, resample_column, mirror_row};
#include "kernels/isa_end.h"
#endif

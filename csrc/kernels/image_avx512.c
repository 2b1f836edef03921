#if defined(__x86_64__)
#include <string.h>

#include "kernels/image.h"
#include "kernels/isa_avx512.h"

typedef __m512i lanes;

static inline lanes lanes_half(void) { return _mm512_set1_epi32(1 << (GAP_IMAGE_BITS - 1)); }

static inline lanes lanes_add(lanes acc, const uint8_t *p, int32_t k) {
    __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm512_add_epi32(acc, _mm512_mullo_epi32(x, _mm512_set1_epi32(k)));
}

static inline void lanes_store(uint8_t *p, lanes acc) {
    __m512i v = _mm512_max_epi32(_mm512_srai_epi32(acc, GAP_IMAGE_BITS), _mm512_setzero_si512());
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtusepi32_epi8(v));
}

#include "kernels/image_x86.inc"
#include "kernels/image.inc"

const gap_image_kernels gap_image_avx512 = {resample_rows, resample_column, mirror_row};
#include "kernels/isa_end.h"
#endif

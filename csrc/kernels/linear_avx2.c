#include "kernels/linear.h"

#include "kernels/isa_avx2.h"
#ifdef GAP_ISA
/* Four sums by the tree of vf_sum at once. */
#define GAP_SUM4
GAP_INLINE void sum4(const vf *a, float out[4]) {
    __m256 s[4];
    for (int k = 0; k < 4; k++) s[k] = _mm256_add_ps(a[k].lo, a[k].hi); /* l + l+8 */
    __m256 u = _mm256_add_ps(_mm256_permute2f128_ps(s[0], s[1], 0x20), _mm256_permute2f128_ps(s[0], s[1], 0x31)); /* l + l+4 */
    __m256 v = _mm256_add_ps(_mm256_permute2f128_ps(s[2], s[3], 0x20), _mm256_permute2f128_ps(s[2], s[3], 0x31));
    __m256 t = _mm256_add_ps(_mm256_shuffle_ps(u, v, 0x44), _mm256_shuffle_ps(u, v, 0xEE)); /* of 0 2 | 1 3: l + l+2 */
    t = _mm256_add_ps(_mm256_shuffle_ps(t, t, 0x88), _mm256_shuffle_ps(t, t, 0xDD));         /* l + l+1 */
    _mm_storeu_ps(out, _mm_unpacklo_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1)));
}
/* Six accumulators of 16 lanes are all that the registers hold. */
#define DOT_M 2
#define DOT_TILES(DO) DO(1, 4) DO(1, 1) DO(2, 2) DO(2, 1)
#define DOT_TABLE(DO) DO(1, 4), DO(2, 2)
#define PRODUCT_TILES(DO) DO(1, 4) DO(2, 2) DO(1, 1) DO(2, 1) DO(3, 1) DO(4, 1) DO(5, 1) DO(6, 1)
#define PRODUCT_WIDE(DO) DO(1, 4) DO(2, 2) DO(3, 1) DO(4, 1) DO(5, 1) DO(6, 1)
#define PRODUCT_ONE(DO) DO(1, 1) DO(2, 1) DO(3, 1) DO(4, 1) DO(5, 1) DO(6, 1)
#define PRODUCT_NBS 4, 2, 1, 1, 1, 1 /* the same from 3 on: several tiles have 3 rows or more */
#include "kernels/linear.inc"
#include "kernels/isa_end.h"
#endif

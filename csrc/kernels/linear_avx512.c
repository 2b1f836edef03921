#include "kernels/linear.h"

#include "kernels/isa_avx512.h"
#ifdef GAP_ISA
/* Four sums by the tree of vf_sum at once. */
#define GAP_SUM4
GAP_INLINE void sum4(const vf *a, float out[4]) {
    __m512 u = _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[1], 0x44), _mm512_shuffle_f32x4(a[0], a[1], 0xEE)); /* l + l+8 */
    __m512 v = _mm512_add_ps(_mm512_shuffle_f32x4(a[2], a[3], 0x44), _mm512_shuffle_f32x4(a[2], a[3], 0xEE));
    __m512 t = _mm512_add_ps(_mm512_shuffle_f32x4(u, v, 0x88), _mm512_shuffle_f32x4(u, v, 0xDD));             /* l + l+4 */
    t = _mm512_add_ps(t, _mm512_permute_ps(t, 0x4E));                                                         /* l + l+2 */
    t = _mm512_add_ps(t, _mm512_permute_ps(t, 0xB1));                                                         /* l + l+1 */
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), t)));
}
#define DOT_M 6
#define DOT_TILES(DO) DO(1, 8) DO(2, 8) DO(3, 8) DO(4, 4) DO(5, 4) DO(6, 4) DO(1, 1) DO(2, 1) DO(3, 1) DO(4, 1) DO(5, 1) DO(6, 1)
#define DOT_TABLE(DO) DO(1, 8), DO(2, 8), DO(3, 8), DO(4, 4), DO(5, 4), DO(6, 4)
#define PRODUCT_TILES(DO) \
    DO(1, 8) DO(2, 8) DO(3, 4) DO(4, 4) DO(5, 4) DO(6, 4) DO(1, 1) DO(2, 1) DO(3, 1) DO(4, 1) DO(5, 1) DO(6, 1)
#define PRODUCT_WIDE(DO) DO(1, 8) DO(2, 8) DO(3, 4) DO(4, 4) DO(5, 4) DO(6, 4)
#define PRODUCT_ONE(DO) DO(1, 1) DO(2, 1) DO(3, 1) DO(4, 1) DO(5, 1) DO(6, 1)
#define PRODUCT_NBS 8, 8, 4, 4, 4, 4 /* the same from 3 on: several tiles have 3 rows or more */
#include "kernels/linear.inc"
#include "kernels/isa_end.h"
#endif

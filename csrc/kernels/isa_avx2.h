/* isa_avx2.h — the vocabulary of isa_ref.h (its contract) in AVX2 and FMA: two ymm registers are 16 lanes. */
#ifndef GAP_KERNELS_ISA_AVX2_H
#define GAP_KERNELS_ISA_AVX2_H

#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define GAP_ISA avx2
#define GAP_ISA_AVX2 1
#define GAP_ISA_NAME(x) x##_avx2
#define GAP_INLINE static inline __attribute__((always_inline))
#define GAP_UNROLL _Pragma("GCC unroll 32")
#define VLANES 16

typedef struct { __m256 lo, hi; } vf;
typedef struct { __m256i lo, hi; } vi;
typedef struct { __m256 lo, hi; } vm; /* all bits of a lane set or clear */
typedef __m256 vh;

GAP_INLINE vf gap_vf_(__m256 lo, __m256 hi) { vf r = {lo, hi}; return r; }
GAP_INLINE vi gap_vi_(__m256i lo, __m256i hi) { vi r = {lo, hi}; return r; }
GAP_INLINE vm gap_vm_(__m256 lo, __m256 hi) { vm r = {lo, hi}; return r; }

GAP_INLINE __m256i gap_first8_(int k) { /* lanes 0..k-1 of eight; any k */
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(k), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
GAP_INLINE vm vm_first(int k) { return gap_vm_(_mm256_castsi256_ps(gap_first8_(k)), _mm256_castsi256_ps(gap_first8_(k - 8))); }
GAP_INLINE vf vf_load(const float *p) { return gap_vf_(_mm256_load_ps(p), _mm256_load_ps(p + 8)); }
GAP_INLINE vf vf_loadu(const float *p) { return gap_vf_(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
GAP_INLINE vf vf_held(vf a) { __asm__("" : "+x"(a.lo), "+x"(a.hi)); return a; }
GAP_INLINE vf vf_load_part(const float *p, int k) {
    return gap_vf_(_mm256_maskload_ps(p, gap_first8_(k)), k > 8 ? _mm256_maskload_ps(p + 8, gap_first8_(k - 8)) : _mm256_setzero_ps());
}
GAP_INLINE vf vf_load_spread(const float *p, int group, int k) {
    if (group == 8) return gap_vf_(_mm256_set1_ps(p[k]), _mm256_set1_ps(p[8 + k]));
    const __m256i each = _mm256_set1_epi32(k);
    return gap_vf_(_mm256_permutevar_ps(_mm256_loadu_ps(p), each), _mm256_permutevar_ps(_mm256_loadu_ps(p + 8), each));
}
GAP_INLINE void vf_store(float *p, vf a) { _mm256_store_ps(p, a.lo), _mm256_store_ps(p + 8, a.hi); }
GAP_INLINE void vf_storeu(float *p, vf a) { _mm256_storeu_ps(p, a.lo), _mm256_storeu_ps(p + 8, a.hi); }
GAP_INLINE void vf_stream(float *p, vf a) { _mm256_stream_ps(p, a.lo), _mm256_stream_ps(p + 8, a.hi); }
GAP_INLINE void vf_stream_end(void) { _mm_sfence(); }
GAP_INLINE void vf_store_part(float *p, int k, vf a) {
    _mm256_maskstore_ps(p, gap_first8_(k), a.lo);
    if (k > 8) _mm256_maskstore_ps(p + 8, gap_first8_(k - 8), a.hi);
}
GAP_INLINE vf vf_zero(void) { return gap_vf_(_mm256_setzero_ps(), _mm256_setzero_ps()); }
GAP_INLINE vf vf_set1(float x) { return gap_vf_(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
GAP_INLINE vf vf_load_u8(const uint8_t *p) {
    __m128i b = _mm_loadu_si128((const __m128i *)(const void *)p);
    return gap_vf_(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b)), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(b, 8))));
}

GAP_INLINE vf vf_add(vf a, vf b) { return gap_vf_(_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)); }
GAP_INLINE vf vf_sub(vf a, vf b) { return gap_vf_(_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)); }
GAP_INLINE vf vf_mul(vf a, vf b) { return gap_vf_(_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)); }
GAP_INLINE vf vf_div(vf a, vf b) { return gap_vf_(_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)); }
GAP_INLINE vf vf_sqrt(vf a) { return gap_vf_(_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)); }
GAP_INLINE vf vf_fma(vf a, vf b, vf c) { return gap_vf_(_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)); }
GAP_INLINE vf vf_fnma(vf a, vf b, vf c) { return gap_vf_(_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)); }
GAP_INLINE vf vf_max(vf a, vf b) { return gap_vf_(_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)); }
GAP_INLINE vf vf_min(vf a, vf b) { return gap_vf_(_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)); }
GAP_INLINE vf vf_neg(vf a) { __m256 s = _mm256_set1_ps(-0.0f); return gap_vf_(_mm256_xor_ps(a.lo, s), _mm256_xor_ps(a.hi, s)); }
GAP_INLINE vf vf_abs(vf a) { __m256 s = _mm256_set1_ps(-0.0f); return gap_vf_(_mm256_andnot_ps(s, a.lo), _mm256_andnot_ps(s, a.hi)); }
#define GAP_RN_ (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define GAP_RM_ (_MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)
GAP_INLINE vf vf_round(vf a) { return gap_vf_(_mm256_round_ps(a.lo, GAP_RN_), _mm256_round_ps(a.hi, GAP_RN_)); }
GAP_INLINE vf vf_floor(vf a) { return gap_vf_(_mm256_round_ps(a.lo, GAP_RM_), _mm256_round_ps(a.hi, GAP_RM_)); }
#undef GAP_RN_
#undef GAP_RM_

GAP_INLINE vh vh_loadu(const float *p) { return _mm256_loadu_ps(p); }
GAP_INLINE vh vh_set1(float x) { return _mm256_set1_ps(x); }
GAP_INLINE vh vh_lower(vf a) { return a.lo; }
GAP_INLINE vf vh_wide(vh a) { return gap_vf_(a, _mm256_setzero_ps()); }
GAP_INLINE vh vh_fma(vh a, vh b, vh c) { return _mm256_fmadd_ps(a, b, c); }

#define GAP_CMP_(how) return gap_vm_(_mm256_cmp_ps(a.lo, b.lo, how), _mm256_cmp_ps(a.hi, b.hi, how))
GAP_INLINE vm vf_lt(vf a, vf b) { GAP_CMP_(_CMP_LT_OQ); }
GAP_INLINE vm vf_le(vf a, vf b) { GAP_CMP_(_CMP_LE_OQ); }
GAP_INLINE vm vf_gt(vf a, vf b) { GAP_CMP_(_CMP_GT_OQ); }
GAP_INLINE vm vf_ge(vf a, vf b) { GAP_CMP_(_CMP_GE_OQ); }
GAP_INLINE vm vf_eq(vf a, vf b) { GAP_CMP_(_CMP_EQ_OQ); }
GAP_INLINE vm vf_ne(vf a, vf b) { GAP_CMP_(_CMP_NEQ_UQ); }
#undef GAP_CMP_
GAP_INLINE vm vf_isnan(vf a) { return vf_ne(a, a); }
GAP_INLINE vm gap_vm_of_(__m256i lo, __m256i hi) { return gap_vm_(_mm256_castsi256_ps(lo), _mm256_castsi256_ps(hi)); }
GAP_INLINE vm vi_eq(vi a, vi b) { return gap_vm_of_(_mm256_cmpeq_epi32(a.lo, b.lo), _mm256_cmpeq_epi32(a.hi, b.hi)); }
GAP_INLINE vm vi_gt(vi a, vi b) { return gap_vm_of_(_mm256_cmpgt_epi32(a.lo, b.lo), _mm256_cmpgt_epi32(a.hi, b.hi)); }
GAP_INLINE vm vm_and(vm a, vm b) { return gap_vm_(_mm256_and_ps(a.lo, b.lo), _mm256_and_ps(a.hi, b.hi)); }
GAP_INLINE vm vm_or(vm a, vm b) { return gap_vm_(_mm256_or_ps(a.lo, b.lo), _mm256_or_ps(a.hi, b.hi)); }
GAP_INLINE vm vm_not(vm a) {
    __m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    return gap_vm_(_mm256_xor_ps(a.lo, ones), _mm256_xor_ps(a.hi, ones));
}
GAP_INLINE uint32_t vm_bits(vm a) { return (uint32_t)_mm256_movemask_ps(a.lo) | (uint32_t)_mm256_movemask_ps(a.hi) << 8; }
GAP_INLINE vf vf_select(vm m, vf a, vf b) { return gap_vf_(_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)); }
GAP_INLINE vf vf_keep(vm m, vf a) { return gap_vf_(_mm256_and_ps(a.lo, m.lo), _mm256_and_ps(a.hi, m.hi)); }

GAP_INLINE vi vi_set1(int32_t x) { return gap_vi_(_mm256_set1_epi32(x), _mm256_set1_epi32(x)); }
GAP_INLINE vi vi_loadu(const int32_t *p) {
    return gap_vi_(_mm256_loadu_si256((const __m256i *)(const void *)p), _mm256_loadu_si256((const __m256i *)(const void *)(p + 8)));
}
GAP_INLINE void vi_storeu(int32_t *p, vi a) {
    _mm256_storeu_si256((__m256i *)(void *)p, a.lo), _mm256_storeu_si256((__m256i *)(void *)(p + 8), a.hi);
}
GAP_INLINE vi vi_add(vi a, vi b) { return gap_vi_(_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)); }
GAP_INLINE vi vi_sub(vi a, vi b) { return gap_vi_(_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)); }
GAP_INLINE vi vi_mul(vi a, vi b) { return gap_vi_(_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)); }
GAP_INLINE vi vi_and(vi a, vi b) { return gap_vi_(_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)); }
GAP_INLINE vi vi_or(vi a, vi b) { return gap_vi_(_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)); }
GAP_INLINE vi vi_xor(vi a, vi b) { return gap_vi_(_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)); }
GAP_INLINE vi vi_max(vi a, vi b) { return gap_vi_(_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)); }
GAP_INLINE vi vi_min(vi a, vi b) { return gap_vi_(_mm256_min_epi32(a.lo, b.lo), _mm256_min_epi32(a.hi, b.hi)); }
GAP_INLINE vi vi_sll(vi a, int n) { __m128i s = _mm_cvtsi32_si128(n); return gap_vi_(_mm256_sll_epi32(a.lo, s), _mm256_sll_epi32(a.hi, s)); }
GAP_INLINE vi vi_srl(vi a, int n) { __m128i s = _mm_cvtsi32_si128(n); return gap_vi_(_mm256_srl_epi32(a.lo, s), _mm256_srl_epi32(a.hi, s)); }
GAP_INLINE vi vi_sra(vi a, int n) { __m128i s = _mm_cvtsi32_si128(n); return gap_vi_(_mm256_sra_epi32(a.lo, s), _mm256_sra_epi32(a.hi, s)); }
GAP_INLINE vi vf_as_vi(vf a) { return gap_vi_(_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)); }
GAP_INLINE vf vi_as_vf(vi a) { return gap_vf_(_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)); }
GAP_INLINE vi vf_to_vi(vf a) { return gap_vi_(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)); }
GAP_INLINE vf vi_to_vf(vi a) { return gap_vf_(_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)); }
GAP_INLINE vi vi_select(vm m, vi a, vi b) { return vf_as_vi(vf_select(m, vi_as_vf(a), vi_as_vf(b))); }

GAP_INLINE float vf_sum(vf a) {
    __m256 s = _mm256_add_ps(a.lo, a.hi);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
GAP_INLINE float vf_hmax(vf a) {
    __m256 s = _mm256_max_ps(a.lo, a.hi);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

#endif
#endif

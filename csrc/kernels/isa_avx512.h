/* isa_avx512.h — the vocabulary of isa_ref.h (its contract) in AVX-512 F, BW, DQ, VL: one zmm register is 16 lanes. */
#ifndef GAP_KERNELS_ISA_AVX512_H
#define GAP_KERNELS_ISA_AVX512_H

#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif

#define GAP_ISA avx512
#define GAP_ISA_AVX512 1
#define GAP_ISA_NAME(x) x##_avx512
#define GAP_INLINE static inline __attribute__((always_inline))
#define GAP_UNROLL _Pragma("GCC unroll 32")
#define VLANES 16

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;
typedef __m256 vh;

GAP_INLINE vm vm_first(int k) { return (vm)((1u << k) - 1u); }
GAP_INLINE vf vf_load(const float *p) { return _mm512_load_ps(p); }
GAP_INLINE vf vf_loadu(const float *p) { return _mm512_loadu_ps(p); }
GAP_INLINE vf vf_held(vf a) { __asm__("" : "+v"(a)); return a; }
GAP_INLINE vf vf_load_part(const float *p, int k) { return _mm512_maskz_loadu_ps(vm_first(k), p); }
GAP_INLINE vf vf_load_spread(const float *p, int group, int k) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutexvar_ps(_mm512_add_epi32(_mm512_and_si512(lane, _mm512_set1_epi32(-group)), _mm512_set1_epi32(k)), _mm512_loadu_ps(p));
}
GAP_INLINE void vf_store(float *p, vf a) { _mm512_store_ps(p, a); }
GAP_INLINE void vf_storeu(float *p, vf a) { _mm512_storeu_ps(p, a); }
GAP_INLINE void vf_stream(float *p, vf a) { _mm512_stream_ps(p, a); }
GAP_INLINE void vf_stream_end(void) { _mm_sfence(); }
GAP_INLINE void vf_store_part(float *p, int k, vf a) { _mm512_mask_storeu_ps(p, vm_first(k), a); }
GAP_INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }
GAP_INLINE vf vf_set1(float x) { return _mm512_set1_ps(x); }
GAP_INLINE vf vf_load_u8(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

GAP_INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
GAP_INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
GAP_INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
GAP_INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
GAP_INLINE vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
GAP_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
GAP_INLINE vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
GAP_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
GAP_INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
GAP_INLINE vf vf_neg(vf a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
GAP_INLINE vf vf_abs(vf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
GAP_INLINE vf vf_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
GAP_INLINE vf vf_floor(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }

GAP_INLINE vh vh_loadu(const float *p) { return _mm256_loadu_ps(p); }
GAP_INLINE vh vh_set1(float x) { return _mm256_set1_ps(x); }
GAP_INLINE vh vh_lower(vf a) { return _mm512_castps512_ps256(a); }
GAP_INLINE vf vh_wide(vh a) { return _mm512_zextps256_ps512(a); }
GAP_INLINE vh vh_fma(vh a, vh b, vh c) { return _mm256_fmadd_ps(a, b, c); }

GAP_INLINE vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
GAP_INLINE vm vf_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
GAP_INLINE vm vf_gt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
GAP_INLINE vm vf_ge(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
GAP_INLINE vm vf_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
GAP_INLINE vm vf_ne(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
GAP_INLINE vm vf_isnan(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
GAP_INLINE vm vi_eq(vi a, vi b) { return _mm512_cmpeq_epi32_mask(a, b); }
GAP_INLINE vm vi_gt(vi a, vi b) { return _mm512_cmpgt_epi32_mask(a, b); }
GAP_INLINE vm vm_and(vm a, vm b) { return (vm)(a & b); }
GAP_INLINE vm vm_or(vm a, vm b) { return (vm)(a | b); }
GAP_INLINE vm vm_not(vm a) { return (vm)~a; }
GAP_INLINE uint32_t vm_bits(vm a) { return a; }
GAP_INLINE vf vf_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
GAP_INLINE vf vf_keep(vm m, vf a) { return _mm512_maskz_mov_ps(m, a); }
GAP_INLINE vi vi_select(vm m, vi a, vi b) { return _mm512_mask_blend_epi32(m, b, a); }

GAP_INLINE vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
GAP_INLINE vi vi_loadu(const int32_t *p) { return _mm512_loadu_si512(p); }
GAP_INLINE void vi_storeu(int32_t *p, vi a) { _mm512_storeu_si512(p, a); }
GAP_INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
GAP_INLINE vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
GAP_INLINE vi vi_mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
GAP_INLINE vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
GAP_INLINE vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
GAP_INLINE vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
GAP_INLINE vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
GAP_INLINE vi vi_min(vi a, vi b) { return _mm512_min_epi32(a, b); }
GAP_INLINE vi vi_sll(vi a, int n) { return _mm512_sll_epi32(a, _mm_cvtsi32_si128(n)); }
GAP_INLINE vi vi_srl(vi a, int n) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)); }
GAP_INLINE vi vi_sra(vi a, int n) { return _mm512_sra_epi32(a, _mm_cvtsi32_si128(n)); }
GAP_INLINE vi vf_as_vi(vf a) { return _mm512_castps_si512(a); }
GAP_INLINE vf vi_as_vf(vi a) { return _mm512_castsi512_ps(a); }
GAP_INLINE vi vf_to_vi(vf a) { return _mm512_cvtps_epi32(a); }
GAP_INLINE vf vi_to_vf(vi a) { return _mm512_cvtepi32_ps(a); }

/* The last three levels of the tree, on 8 lanes. */
GAP_INLINE float gap_sum8_(__m256 s) {
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
GAP_INLINE float gap_max8_(__m256 s) {
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
GAP_INLINE float vf_sum(vf a) { return gap_sum8_(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1))); }
GAP_INLINE float vf_hmax(vf a) { return gap_max8_(_mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1))); }

#endif
#endif

/* isa_ref.h — the 16-lane vocabulary in plain C; and the contract that isa_avx2.h, isa_avx512.h and isa_neon.h keep.
 *
 * Include it last, after every other header (the others begin a target pragma), then a `.inc` body that uses only it.
 * The table of a family is then `const gap_<op>_kernels GAP_ISA_NAME(gap_<op>) = {…};`. Files for another machine see no
 * GAP_ISA and must be empty: `#ifdef GAP_ISA` around the body.
 *
 *   vf  16 floats     vi  16 int32     vm  16 truth values     vh  8 floats: lanes 0..7
 *
 * Every function gives the same bits in every file, lane by lane: fma rounds once, div and sqrt are exact IEEE results,
 * nothing is approximate. vf_max(a, b) is a > b ? a : b and vf_min(a, b) is a < b ? a : b (b where one is NaN).
 * Comparisons with NaN are false; vf_ne and vf_isnan are true there. The sign of a NaN result is not part of the contract.
 */
#ifndef GAP_KERNELS_ISA_REF_H
#define GAP_KERNELS_ISA_REF_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define GAP_ISA ref
#define GAP_ISA_REF 1
#define GAP_ISA_NAME(x) x##_ref
#define GAP_INLINE static inline __attribute__((always_inline))
#define GAP_UNROLL _Pragma("GCC unroll 32")
#define VLANES 16

typedef struct { float v[VLANES]; } vf;
typedef struct { int32_t v[VLANES]; } vi;
typedef struct { uint32_t v[VLANES]; } vm; /* 0 or ~0 */
typedef struct { float v[VLANES / 2]; } vh;

#define GAP_EACH for (int l_ = 0; l_ < VLANES; l_++)

/* Load and store. Without `u`: aligned to 64 bytes. `_part`: lanes k..15 are not touched, and load as 0; 0 <= k <= 16. */
GAP_INLINE vf vf_load(const float *p) { vf r; memcpy(&r, p, sizeof r); return r; }
GAP_INLINE vf vf_loadu(const float *p) { vf r; memcpy(&r, p, sizeof r); return r; }
GAP_INLINE vf vf_held(vf a) { return a; } /* a; but the compiler keeps it in a register instead of loading it again for each use */
GAP_INLINE vf vf_load_part(const float *p, int k) { vf r = {{0}}; memcpy(&r, p, (size_t)k * 4); return r; }
/* Lane l becomes p[l / group * group + k]; group is 4 or 8 and constant, k < group. */
GAP_INLINE vf vf_load_spread(const float *p, int group, int k) { vf r; GAP_EACH r.v[l_] = p[l_ / group * group + k]; return r; }
GAP_INLINE void vf_store(float *p, vf a) { memcpy(p, &a, sizeof a); }
GAP_INLINE void vf_storeu(float *p, vf a) { memcpy(p, &a, sizeof a); }
/* As vf_store, past the caches where the machine can: for what is not read soon. vf_stream_end: after the last of them. */
GAP_INLINE void vf_stream(float *p, vf a) { vf_store(p, a); }
GAP_INLINE void vf_stream_end(void) {}
GAP_INLINE void vf_store_part(float *p, int k, vf a) { memcpy(p, &a, (size_t)k * 4); }
GAP_INLINE vf vf_zero(void) { vf r = {{0}}; return r; }
GAP_INLINE vf vf_set1(float x) { vf r; GAP_EACH r.v[l_] = x; return r; }
GAP_INLINE vf vf_load_u8(const uint8_t *p) { vf r; GAP_EACH r.v[l_] = (float)p[l_]; return r; } /* 16 bytes */

GAP_INLINE vf vf_add(vf a, vf b) { GAP_EACH a.v[l_] += b.v[l_]; return a; }
GAP_INLINE vf vf_sub(vf a, vf b) { GAP_EACH a.v[l_] -= b.v[l_]; return a; }
GAP_INLINE vf vf_mul(vf a, vf b) { GAP_EACH a.v[l_] *= b.v[l_]; return a; }
GAP_INLINE vf vf_div(vf a, vf b) { GAP_EACH a.v[l_] /= b.v[l_]; return a; }
GAP_INLINE vf vf_sqrt(vf a) { GAP_EACH a.v[l_] = sqrtf(a.v[l_]); return a; }
GAP_INLINE vf vf_fma(vf a, vf b, vf c) { GAP_EACH c.v[l_] = fmaf(a.v[l_], b.v[l_], c.v[l_]); return c; }   /* a*b + c */
GAP_INLINE vf vf_fnma(vf a, vf b, vf c) { GAP_EACH c.v[l_] = fmaf(-a.v[l_], b.v[l_], c.v[l_]); return c; } /* c - a*b */
GAP_INLINE vf vf_max(vf a, vf b) { GAP_EACH b.v[l_] = a.v[l_] > b.v[l_] ? a.v[l_] : b.v[l_]; return b; }
GAP_INLINE vf vf_min(vf a, vf b) { GAP_EACH b.v[l_] = a.v[l_] < b.v[l_] ? a.v[l_] : b.v[l_]; return b; }
GAP_INLINE vf vf_neg(vf a) { GAP_EACH a.v[l_] = -a.v[l_]; return a; }
GAP_INLINE vf vf_abs(vf a) { GAP_EACH a.v[l_] = fabsf(a.v[l_]); return a; }
GAP_INLINE vf vf_round(vf a) { GAP_EACH a.v[l_] = rintf(a.v[l_]); return a; } /* to nearest, ties to even */
GAP_INLINE vf vf_floor(vf a) { GAP_EACH a.v[l_] = floorf(a.v[l_]); return a; }

/* Half vectors. vh_lower: lanes 0..7; vh_wide: with lanes 8..15 that are 0. */
GAP_INLINE vh vh_loadu(const float *p) { vh r; memcpy(&r, p, sizeof r); return r; }
GAP_INLINE vh vh_set1(float x) { vh r; for (int l = 0; l < VLANES / 2; l++) r.v[l] = x; return r; }
GAP_INLINE vh vh_lower(vf a) { vh r; memcpy(&r, &a, sizeof r); return r; }
GAP_INLINE vf vh_wide(vh a) { vf r = {{0}}; memcpy(&r, &a, sizeof a); return r; }
GAP_INLINE vh vh_fma(vh a, vh b, vh c) { for (int l = 0; l < VLANES / 2; l++) c.v[l] = fmaf(a.v[l], b.v[l], c.v[l]); return c; }

/* Compare and select. */
#define GAP_CMP_(op) vm r; GAP_EACH r.v[l_] = a.v[l_] op b.v[l_] ? ~0u : 0u; return r
GAP_INLINE vm vf_lt(vf a, vf b) { GAP_CMP_(<); }
GAP_INLINE vm vf_le(vf a, vf b) { GAP_CMP_(<=); }
GAP_INLINE vm vf_gt(vf a, vf b) { GAP_CMP_(>); }
GAP_INLINE vm vf_ge(vf a, vf b) { GAP_CMP_(>=); }
GAP_INLINE vm vf_eq(vf a, vf b) { GAP_CMP_(==); }
GAP_INLINE vm vf_ne(vf a, vf b) { GAP_CMP_(!=); }
GAP_INLINE vm vi_eq(vi a, vi b) { GAP_CMP_(==); }
GAP_INLINE vm vi_gt(vi a, vi b) { GAP_CMP_(>); }
#undef GAP_CMP_
GAP_INLINE vm vf_isnan(vf a) { return vf_ne(a, a); }
GAP_INLINE vm vm_and(vm a, vm b) { GAP_EACH a.v[l_] &= b.v[l_]; return a; }
GAP_INLINE vm vm_or(vm a, vm b) { GAP_EACH a.v[l_] |= b.v[l_]; return a; }
GAP_INLINE vm vm_not(vm a) { GAP_EACH a.v[l_] = ~a.v[l_]; return a; }
GAP_INLINE uint32_t vm_bits(vm a) { uint32_t r = 0; GAP_EACH r |= (a.v[l_] & 1u) << l_; return r; } /* lane l in bit l */
GAP_INLINE vm vm_first(int k) { vm r; GAP_EACH r.v[l_] = l_ < k ? ~0u : 0u; return r; }             /* lanes 0..k-1 */
GAP_INLINE vf vf_select(vm m, vf a, vf b) { GAP_EACH b.v[l_] = m.v[l_] ? a.v[l_] : b.v[l_]; return b; } /* m ? a : b */
GAP_INLINE vf vf_keep(vm m, vf a) { GAP_EACH a.v[l_] = m.v[l_] ? a.v[l_] : 0.0f; return a; }            /* m ? a : +0 */
GAP_INLINE vi vi_select(vm m, vi a, vi b) { GAP_EACH b.v[l_] = m.v[l_] ? a.v[l_] : b.v[l_]; return b; }

/* Integers; arithmetic wraps. Shifts: 0 <= n <= 31. */
#define GAP_INT_(op) GAP_EACH a.v[l_] = (int32_t)((uint32_t)a.v[l_] op (uint32_t)b.v[l_]); return a
GAP_INLINE vi vi_set1(int32_t x) { vi r; GAP_EACH r.v[l_] = x; return r; }
GAP_INLINE vi vi_loadu(const int32_t *p) { vi r; memcpy(&r, p, sizeof r); return r; }
GAP_INLINE void vi_storeu(int32_t *p, vi a) { memcpy(p, &a, sizeof a); }
GAP_INLINE vi vi_add(vi a, vi b) { GAP_INT_(+); }
GAP_INLINE vi vi_sub(vi a, vi b) { GAP_INT_(-); }
GAP_INLINE vi vi_mul(vi a, vi b) { GAP_INT_(*); } /* low 32 bits */
GAP_INLINE vi vi_and(vi a, vi b) { GAP_INT_(&); }
GAP_INLINE vi vi_or(vi a, vi b) { GAP_INT_(|); }
GAP_INLINE vi vi_xor(vi a, vi b) { GAP_INT_(^); }
#undef GAP_INT_
GAP_INLINE vi vi_max(vi a, vi b) { GAP_EACH a.v[l_] = a.v[l_] > b.v[l_] ? a.v[l_] : b.v[l_]; return a; }
GAP_INLINE vi vi_min(vi a, vi b) { GAP_EACH a.v[l_] = a.v[l_] < b.v[l_] ? a.v[l_] : b.v[l_]; return a; }
GAP_INLINE vi vi_sll(vi a, int n) { GAP_EACH a.v[l_] = (int32_t)((uint32_t)a.v[l_] << n); return a; }
GAP_INLINE vi vi_srl(vi a, int n) { GAP_EACH a.v[l_] = (int32_t)((uint32_t)a.v[l_] >> n); return a; }
GAP_INLINE vi vi_sra(vi a, int n) { GAP_EACH a.v[l_] = a.v[l_] >> n; return a; }

/* Between them. vf_as_vi, vi_as_vf: the same bits. vf_to_vi: to nearest, ties to even; |a| < 2^31 or the result is unspecified. */
GAP_INLINE vi vf_as_vi(vf a) { vi r; memcpy(&r, &a, sizeof r); return r; }
GAP_INLINE vf vi_as_vf(vi a) { vf r; memcpy(&r, &a, sizeof r); return r; }
GAP_INLINE vi vf_to_vi(vf a) { vi r; GAP_EACH r.v[l_] = (int32_t)rintf(a.v[l_]); return r; }
GAP_INLINE vf vi_to_vf(vi a) { vf r; GAP_EACH r.v[l_] = (float)a.v[l_]; return r; }

/* Across lanes, by a fixed tree: l with l+8, then l+4, l+2, l+1. */
GAP_INLINE float vf_sum(vf a) {
    for (int half = VLANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++) a.v[l] = a.v[l] + a.v[l + half];
    return a.v[0];
}
GAP_INLINE float vf_hmax(vf a) {
    for (int half = VLANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++) a.v[l] = a.v[l] > a.v[l + half] ? a.v[l] : a.v[l + half];
    return a.v[0];
}
#undef GAP_EACH

#endif

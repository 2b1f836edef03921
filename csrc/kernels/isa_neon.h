/* isa_neon.h — the vocabulary of isa_ref.h (its contract) in AArch64 NEON: four q registers are 16 lanes. */
#ifndef GAP_KERNELS_ISA_NEON_H
#define GAP_KERNELS_ISA_NEON_H

#if defined(__aarch64__)
#include <arm_neon.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define GAP_ISA neon
#define GAP_ISA_NEON 1
#define GAP_ISA_NAME(x) x##_neon
#define GAP_INLINE static inline __attribute__((always_inline))
#define GAP_UNROLL _Pragma("GCC unroll 32")
#define VLANES 16

typedef struct { float32x4_t q[4]; } vf;
typedef struct { int32x4_t q[4]; } vi;
typedef struct { uint32x4_t q[4]; } vm; /* all bits of a lane set or clear */
typedef struct { float32x4_t q[2]; } vh;

#define GAP_Q GAP_UNROLL for (int q_ = 0; q_ < 4; q_++)

GAP_INLINE vf vf_loadu(const float *p) { vf r; GAP_Q r.q[q_] = vld1q_f32(p + 4 * q_); return r; }
GAP_INLINE void vf_storeu(float *p, vf a) { GAP_Q vst1q_f32(p + 4 * q_, a.q[q_]); }
GAP_INLINE vf vf_load(const float *p) { return vf_loadu(p); }
GAP_INLINE void vf_store(float *p, vf a) { vf_storeu(p, a); }
GAP_INLINE vf vf_held(vf a) { return a; }
GAP_INLINE vf vf_load_part(const float *p, int k) { float t[VLANES] = {0}; memcpy(t, p, (size_t)k * 4); return vf_loadu(t); }
GAP_INLINE vf vf_load_spread(const float *p, int group, int k) { vf r; GAP_Q r.q[q_] = vdupq_n_f32(p[4 * q_ / group * group + k]); return r; }
GAP_INLINE void vf_stream(float *p, vf a) { vf_store(p, a); }
GAP_INLINE void vf_stream_end(void) {}
GAP_INLINE void vf_store_part(float *p, int k, vf a) { float t[VLANES]; vf_storeu(t, a); memcpy(p, t, (size_t)k * 4); }
GAP_INLINE vf vf_set1(float x) { vf r; GAP_Q r.q[q_] = vdupq_n_f32(x); return r; }
GAP_INLINE vf vf_zero(void) { return vf_set1(0.0f); }
GAP_INLINE vf vf_load_u8(const uint8_t *p) {
    uint8x16_t b = vld1q_u8(p);
    uint16x8_t lo = vmovl_u8(vget_low_u8(b)), hi = vmovl_u8(vget_high_u8(b));
    vf r;
    r.q[0] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(lo))), r.q[1] = vcvtq_f32_u32(vmovl_u16(vget_high_u16(lo)));
    r.q[2] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(hi))), r.q[3] = vcvtq_f32_u32(vmovl_u16(vget_high_u16(hi)));
    return r;
}

GAP_INLINE vf vf_add(vf a, vf b) { vf r; GAP_Q r.q[q_] = vaddq_f32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vf vf_sub(vf a, vf b) { vf r; GAP_Q r.q[q_] = vsubq_f32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vf vf_mul(vf a, vf b) { vf r; GAP_Q r.q[q_] = vmulq_f32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vf vf_div(vf a, vf b) { vf r; GAP_Q r.q[q_] = vdivq_f32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vf vf_sqrt(vf a) { vf r; GAP_Q r.q[q_] = vsqrtq_f32(a.q[q_]); return r; }
GAP_INLINE vf vf_fma(vf a, vf b, vf c) { GAP_Q c.q[q_] = vfmaq_f32(c.q[q_], a.q[q_], b.q[q_]); return c; }
GAP_INLINE vf vf_fnma(vf a, vf b, vf c) { GAP_Q c.q[q_] = vfmsq_f32(c.q[q_], a.q[q_], b.q[q_]); return c; }
GAP_INLINE vf vf_neg(vf a) { vf r; GAP_Q r.q[q_] = vnegq_f32(a.q[q_]); return r; }
GAP_INLINE vf vf_abs(vf a) { vf r; GAP_Q r.q[q_] = vabsq_f32(a.q[q_]); return r; }
GAP_INLINE vf vf_round(vf a) { vf r; GAP_Q r.q[q_] = vrndnq_f32(a.q[q_]); return r; }
GAP_INLINE vf vf_floor(vf a) { vf r; GAP_Q r.q[q_] = vrndmq_f32(a.q[q_]); return r; }

GAP_INLINE vh vh_loadu(const float *p) { vh r = {{vld1q_f32(p), vld1q_f32(p + 4)}}; return r; }
GAP_INLINE vh vh_set1(float x) { vh r = {{vdupq_n_f32(x), vdupq_n_f32(x)}}; return r; }
GAP_INLINE vh vh_lower(vf a) { vh r = {{a.q[0], a.q[1]}}; return r; }
GAP_INLINE vf vh_wide(vh a) { vf r = {{a.q[0], a.q[1], vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)}}; return r; }
GAP_INLINE vh vh_fma(vh a, vh b, vh c) { GAP_UNROLL for (int q = 0; q < 2; q++) c.q[q] = vfmaq_f32(c.q[q], a.q[q], b.q[q]); return c; }

GAP_INLINE vm vf_lt(vf a, vf b) { vm r; GAP_Q r.q[q_] = vcltq_f32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vm vf_le(vf a, vf b) { vm r; GAP_Q r.q[q_] = vcleq_f32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vm vf_gt(vf a, vf b) { vm r; GAP_Q r.q[q_] = vcgtq_f32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vm vf_ge(vf a, vf b) { vm r; GAP_Q r.q[q_] = vcgeq_f32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vm vf_eq(vf a, vf b) { vm r; GAP_Q r.q[q_] = vceqq_f32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vm vi_eq(vi a, vi b) { vm r; GAP_Q r.q[q_] = vceqq_s32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vm vi_gt(vi a, vi b) { vm r; GAP_Q r.q[q_] = vcgtq_s32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vm vm_and(vm a, vm b) { vm r; GAP_Q r.q[q_] = vandq_u32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vm vm_or(vm a, vm b) { vm r; GAP_Q r.q[q_] = vorrq_u32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vm vm_not(vm a) { vm r; GAP_Q r.q[q_] = vmvnq_u32(a.q[q_]); return r; }
GAP_INLINE vm vf_ne(vf a, vf b) { return vm_not(vf_eq(a, b)); }
GAP_INLINE vm vf_isnan(vf a) { return vf_ne(a, a); }
GAP_INLINE vm vm_first(int k) {
    static const uint32_t lane[4] = {0, 1, 2, 3};
    vm r;
    GAP_Q r.q[q_] = vcltq_u32(vaddq_u32(vld1q_u32(lane), vdupq_n_u32(4u * (uint32_t)q_)), vdupq_n_u32((uint32_t)k));
    return r;
}
GAP_INLINE uint32_t vm_bits(vm a) {
    static const uint32_t bit[4] = {1, 2, 4, 8};
    uint32_t r = 0;
    GAP_Q r |= vaddvq_u32(vandq_u32(a.q[q_], vld1q_u32(bit))) << (4 * q_);
    return r;
}
GAP_INLINE vf vf_select(vm m, vf a, vf b) { GAP_Q b.q[q_] = vbslq_f32(m.q[q_], a.q[q_], b.q[q_]); return b; }
GAP_INLINE vf vf_keep(vm m, vf a) { return vf_select(m, a, vf_zero()); }
GAP_INLINE vi vi_select(vm m, vi a, vi b) { GAP_Q b.q[q_] = vbslq_s32(m.q[q_], a.q[q_], b.q[q_]); return b; }
GAP_INLINE vf vf_max(vf a, vf b) { return vf_select(vf_gt(a, b), a, b); } /* NEON's own maximum treats NaN otherwise */
GAP_INLINE vf vf_min(vf a, vf b) { return vf_select(vf_lt(a, b), a, b); }

GAP_INLINE vi vi_set1(int32_t x) { vi r; GAP_Q r.q[q_] = vdupq_n_s32(x); return r; }
GAP_INLINE vi vi_loadu(const int32_t *p) { vi r; GAP_Q r.q[q_] = vld1q_s32(p + 4 * q_); return r; }
GAP_INLINE void vi_storeu(int32_t *p, vi a) { GAP_Q vst1q_s32(p + 4 * q_, a.q[q_]); }
GAP_INLINE vi vi_add(vi a, vi b) { vi r; GAP_Q r.q[q_] = vaddq_s32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vi vi_sub(vi a, vi b) { vi r; GAP_Q r.q[q_] = vsubq_s32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vi vi_mul(vi a, vi b) { vi r; GAP_Q r.q[q_] = vmulq_s32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vi vi_and(vi a, vi b) { vi r; GAP_Q r.q[q_] = vandq_s32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vi vi_or(vi a, vi b) { vi r; GAP_Q r.q[q_] = vorrq_s32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vi vi_xor(vi a, vi b) { vi r; GAP_Q r.q[q_] = veorq_s32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vi vi_max(vi a, vi b) { vi r; GAP_Q r.q[q_] = vmaxq_s32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vi vi_min(vi a, vi b) { vi r; GAP_Q r.q[q_] = vminq_s32(a.q[q_], b.q[q_]); return r; }
GAP_INLINE vi vi_sll(vi a, int n) { GAP_Q a.q[q_] = vshlq_s32(a.q[q_], vdupq_n_s32(n)); return a; }
GAP_INLINE vi vi_sra(vi a, int n) { GAP_Q a.q[q_] = vshlq_s32(a.q[q_], vdupq_n_s32(-n)); return a; }
GAP_INLINE vi vi_srl(vi a, int n) {
    GAP_Q a.q[q_] = vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a.q[q_]), vdupq_n_s32(-n)));
    return a;
}
GAP_INLINE vi vf_as_vi(vf a) { vi r; GAP_Q r.q[q_] = vreinterpretq_s32_f32(a.q[q_]); return r; }
GAP_INLINE vf vi_as_vf(vi a) { vf r; GAP_Q r.q[q_] = vreinterpretq_f32_s32(a.q[q_]); return r; }
GAP_INLINE vi vf_to_vi(vf a) { vi r; GAP_Q r.q[q_] = vcvtnq_s32_f32(a.q[q_]); return r; }
GAP_INLINE vf vi_to_vf(vi a) { vf r; GAP_Q r.q[q_] = vcvtq_f32_s32(a.q[q_]); return r; }

GAP_INLINE float vf_sum(vf a) {
    float32x4_t q = vaddq_f32(vaddq_f32(a.q[0], a.q[2]), vaddq_f32(a.q[1], a.q[3]));
    float32x2_t d = vadd_f32(vget_low_f32(q), vget_high_f32(q));
    return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}
GAP_INLINE float vf_hmax(vf a) {
    float t[VLANES];
    vf_storeu(t, a);
    for (int half = VLANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++) t[l] = t[l] > t[l + half] ? t[l] : t[l + half];
    return t[0];
}
#undef GAP_Q

#endif
#endif

#define _GNU_SOURCE
#include "core/cpu.h"

#include <stdio.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

unsigned gap_cpu_flags(void) {
    unsigned flags = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) flags |= GAP_CPU_AVX2;
    if ((flags & GAP_CPU_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        flags |= GAP_CPU_AVX512;
#elif defined(__aarch64__)
    flags |= GAP_CPU_NEON; /* part of the base architecture */
#endif
    return flags;
}

const char *gap_kernel_set_name(gap_kernel_set_id id) {
    static const char *const names[GAP_SET_COUNT] = {"avx512", "avx2", "neon", "blas", "ref"};
    return id >= 0 && id < GAP_SET_COUNT ? names[id] : "unknown";
}

unsigned gap_kernel_set_needs(gap_kernel_set_id id) {
    static const unsigned needs[GAP_SET_COUNT] = {GAP_CPU_AVX512, GAP_CPU_AVX2, GAP_CPU_NEON, 0, 0};
    return needs[id];
}

unsigned gap_cpu_flush_denormals(void) {
#if defined(__x86_64__)
    unsigned old = _mm_getcsr();
    _mm_setcsr(old | 0x8040u); /* FTZ (bit 15) and DAZ (bit 6) */
    return old;
#elif defined(__aarch64__)
    unsigned long old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(old | (1ul << 24)));
    return (unsigned)old;
#else
    return 0;
#endif
}

void gap_cpu_restore(unsigned state) {
#if defined(__x86_64__)
    _mm_setcsr(state);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"((unsigned long)state));
#else
    (void)state;
#endif
}

/* A container's CPU quota (cgroup v2), rounded up; 0 when there is none. */
static int quota_cpus(void) {
    long long quota = 0, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (f == NULL) return 0;
    int got = fscanf(f, "%lld %lld", &quota, &period); /* "max 100000" gives 0 items: no quota */
    fclose(f);
    return got == 2 && quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

int gap_cpu_count(void) {
    int n = 0;
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
#endif
    if (n < 1) n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    int quota = quota_cpus();
    if (quota > 0 && quota < n) n = quota;
    return n < 1 ? 1 : n;
}

/* cpu.h — what this processor and operating system can do, by CPUID bits and never by model number. */
#ifndef GAP_CORE_CPU_H
#define GAP_CORE_CPU_H

#include <stdbool.h>

typedef enum {
    GAP_CPU_AVX2 = 1 << 0,   /* AVX2 and FMA, and the system saves ymm */
    GAP_CPU_AVX512 = 1 << 1, /* AVX-512 F, BW, DQ, VL, and the system saves zmm */
    GAP_CPU_NEON = 1 << 2
} gap_cpu_flag;

unsigned gap_cpu_flags(void);

/* Kernel sets, best first. A set may be used when (flags & needed) == needed. */
typedef enum { GAP_SET_AVX512, GAP_SET_AVX2, GAP_SET_NEON, GAP_SET_BLAS, GAP_SET_REF, GAP_SET_COUNT } gap_kernel_set_id;
const char *gap_kernel_set_name(gap_kernel_set_id id);
unsigned gap_kernel_set_needs(gap_kernel_set_id id);

/* Flush-to-zero and denormals-are-zero for this thread; returns the state to give back to gap_cpu_restore. */
unsigned gap_cpu_flush_denormals(void);
void gap_cpu_restore(unsigned state);

int gap_cpu_count(void); /* CPUs that this process may use (affinity, cgroup quota rounded up), at least 1 */

#endif

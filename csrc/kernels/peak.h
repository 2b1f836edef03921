/* peak.h — what the machine can do at most: the two limits that every layer's speed is a share of. */
#ifndef GAP_KERNELS_PEAK_H
#define GAP_KERNELS_PEAK_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t fmas;                                                          /* lane-wise multiply-adds in one round of `fma` */
    float (*fma)(int64_t rounds, float m, float b);                        /* independent chains a = a*m + b; their sum, so that they are computed */
    void (*triad)(size_t n, const float *a, const float *b, float s, float *y); /* y = a + s*b; STREAM's triad; n a multiple of 16, aligned */
} gap_peak_kernels;

#endif

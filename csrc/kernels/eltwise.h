/* eltwise.h — sums and products of tensors. Elementwise functions: any cut of a range gives the same bits; outputs may be
 * an input. Sums have the order of norm.h: pieces of 256 vectors, two fp32 chains in a piece, double across pieces. */
#ifndef GAP_KERNELS_ELTWISE_H
#define GAP_KERNELS_ELTWISE_H

#include <stdbool.h>
#include <stddef.h>

#define GAP_ELTWISE_PIECE 256

typedef struct {
    void (*add)(size_t n, const float *a, const float *b, float *y);                   /* y = a + b */
    void (*copy)(size_t n, const float *a, float *y, bool add);                        /* y = a, or y + a */
    void (*mul)(size_t n, const float *a, const float *b, float *y, bool add);         /* y = a*b, or fma(a, b, y) */
    /* On a block of `pixels` vectors of 16 channels, gate (16): y = a*gate, or fma(a, gate, y). */
    void (*gate)(size_t pixels, const float *a, const float *gate, float *y, bool add);
    void (*sum)(size_t pixels, const float *a, double *s);                             /* s[l] += sum of a */
    void (*dot)(size_t pixels, const float *a, const float *b, double *s);             /* s[l] += sum of a*b (fma chains) */
    void (*fill)(size_t pixels, const float *v, float *y, bool add);                   /* every vector = v (16), or y + v */
} gap_eltwise_kernels;

#endif

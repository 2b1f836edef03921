/* linear.h — the two products of a layer on vectors, on matrices that lie as the store has them: nothing is packed beforehand.
 *
 * Every output element is a sum of chains of fused multiply-adds in the order given below; tiles decide only when an element
 * is computed. No function allocates, fails or starts threads. Strides are in floats. Pointers need 4-byte alignment.
 */
#ifndef GAP_KERNELS_LINEAR_H
#define GAP_KERNELS_LINEAR_H

#include <stdbool.h>
#include <stdint.h>

#define GAP_LINEAR_DEPTH 512  /* most inputs of one call of dot: a tile of samples stays in the first cache */
#define GAP_LINEAR_CHAIN 128  /* most terms of a chain of product */

/* y[n][o] = start + the sum of x[n][k] * w[o][k]: 16 chains, k mod 16, each in rising k; then the fixed tree across lanes
 * (l with l+8, +4, +2, +1). start: what y holds (keep), or bias[o], or 0. */
typedef struct {
    const float *x;      /* (n, depth) */
    int64_t x_row;
    const float *w;      /* (out, depth) */
    int64_t w_row;
    float *y;            /* (n, out) */
    int64_t y_row;
    int64_t n, out, depth;
    bool keep;
    const float *bias;   /* (out) or NULL */
} gap_linear_dot;

/* c[i][f] = the chain over j of a[i*a_i + j*a_j] * b[j][f], or that added to what c holds (keep). Lanes are f. */
typedef struct {
    const float *a;
    int64_t a_i, a_j;
    const float *b;      /* (depth, cols) */
    int64_t b_row;
    float *c;            /* (rows, cols) */
    int64_t c_row;
    int64_t rows, depth, cols;
    bool keep;
} gap_linear_product;

typedef struct {
    void (*dot)(const gap_linear_dot *d);
    void (*product)(const gap_linear_product *p);
    /* s[o] = the sum over n of d[n][o], a chain in rising n, for o < out; d's rows lie `row` apart. add: s + that. */
    void (*columns)(int64_t n, int64_t out, const float *d, int64_t row, float *s, bool add);
} gap_linear_kernels;

#endif

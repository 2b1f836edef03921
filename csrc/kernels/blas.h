/* blas.h — what the kernel set `blas` has beyond the best native set: one single-threaded sgemm.
 *
 * Its bits depend on the CPU model that OpenBLAS picks; the record names it. Calls are thread safe.
 */
#ifndef GAP_KERNELS_BLAS_H
#define GAP_KERNELS_BLAS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct gap_blas_kernels {
    /* c (m x n, rows ldc apart) = op(a) * op(b) + (add ? c : 0); op(a) is m x k: a as it lies (rows lda apart), or transposed.
     * All sizes must fit an int. */
    void (*sgemm)(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                  int64_t ldb, bool add, float *c, int64_t ldc);
    const char *(*corename)(void); /* the core that OpenBLAS chose: "Zen", "SkylakeX", … */
} gap_blas_kernels;

#endif

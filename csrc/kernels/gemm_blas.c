/* gemm_blas.c — the only file that names cblas; empty in a build without OpenBLAS. */
#if defined(GAP_WITH_BLAS)

#include <assert.h>
#include <limits.h>
#include <pthread.h>

#include "gen/blas_symbols.h" /* renames the functions below to those of the build's own copy */
#include "kernels/blas.h"

enum { ROW_MAJOR = 101, AS_IT_LIES = 111, TRANSPOSED = 112 }; /* cblas.h's values, fixed by its ABI */
void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                 float beta, float *c, int ldc);
void openblas_set_num_threads(int n);
char *openblas_get_corename(void);

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Our pool cuts the work; a second pool below it would only contend, and its thread count would enter the bits. */
static void one_thread(void) { openblas_set_num_threads(1); }

static void blas_sgemm(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                       int64_t ldb, bool add, float *c, int64_t ldc) {
    assert(m <= INT_MAX && n <= INT_MAX && k <= INT_MAX && lda <= INT_MAX && ldb <= INT_MAX && ldc <= INT_MAX);
    pthread_once(&once, one_thread);
    cblas_sgemm(ROW_MAJOR, a_transposed ? TRANSPOSED : AS_IT_LIES, b_transposed ? TRANSPOSED : AS_IT_LIES, (int)m, (int)n, (int)k, 1.0f, a,
                (int)lda, b, (int)ldb, add ? 1.0f : 0.0f, c, (int)ldc);
}

static const char *blas_corename(void) { return openblas_get_corename(); }

extern const gap_blas_kernels gap_blas;
const gap_blas_kernels gap_blas = {blas_sgemm, blas_corename};

#else
typedef int gap_gemm_blas_is_absent; /* ISO C wants a declaration in every file */
#endif

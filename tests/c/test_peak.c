#include "ops/peak.h"

#include <math.h>

#include "core/memory.h"
#include "core/threads.h"
#include "harness.h"

/* What the kernels compute, against the formula; how fast they do it is no test's business. */
static void test_peak_kernels_compute_what_they_say(void) {
    for (int id = 0; id < GAP_SET_COUNT; id++) {
        const gap_kernels *k = NULL;
        _Alignas(64) float a[48], b[48], y[48];
        if (!gap_kernels_available((gap_kernel_set_id)id)) continue;
        CHECK_OK(gap_kernels_find(&k, gap_kernel_set_name((gap_kernel_set_id)id)));
        for (int i = 0; i < 48; i++) a[i] = (float)i, b[i] = (float)(i % 7), y[i] = -1.0f;
        k->peak->triad(32, a, b, 3.0f, y);
        for (int i = 0; i < 48; i++) CHECK(y[i] == (i < 32 ? a[i] + 3.0f * b[i] : -1.0f));
        CHECK(k->peak->fmas > 0 && k->peak->fmas % 16 == 0);
        double n = (double)k->peak->fmas; /* chains begin as 0, 1, 2, …; two rounds of a -> a/2 + 1 */
        CHECK(fabs((double)k->peak->fma(2, 0.5f, 1.0f) - (n * (n - 1) / 2 / 4 + 1.5 * n)) < 1e-3 * n);
    }
}

static void test_peak_measures_something(void) {
    const gap_kernels *k = NULL;
    double rate = 0;
    CHECK_OK(gap_threads_set(2));
    CHECK_OK(gap_kernels_find(&k, NULL));
    CHECK_OK(gap_peak_fma(k, &rate));
    CHECK(rate > 0 && isfinite(rate));
    rate = 0;
    CHECK_OK(gap_peak_triad(k, 3 * 4 * 100000, &rate)); /* a last chunk that is not whole */
    CHECK(rate > 0 && isfinite(rate));
    CHECK_FAILS(gap_peak_triad(k, 191, &rate), GAP_ERR_VALUE);
}

static void test_peak_leaves_nothing_behind_when_memory_ends(void) {
    const gap_kernels *k = NULL;
    double rate;
    CHECK_OK(gap_kernels_find(&k, NULL));
    int64_t live = gap_memory_live();
    for (int at = 1; at <= 3; at++) {
        gap_memory_fail_after(at);
        CHECK_FAILS(gap_peak_triad(k, 4096, &rate), GAP_ERR_MEMORY);
        CHECK(gap_memory_live() == live);
    }
    gap_memory_fail_after(1);
    CHECK_FAILS(gap_peak_fma(k, &rate), GAP_ERR_MEMORY);
    gap_memory_fail_after(0);
    CHECK(gap_memory_live() == live);
}

int main(void) {
    RUN(test_peak_kernels_compute_what_they_say);
    RUN(test_peak_measures_something);
    RUN(test_peak_leaves_nothing_behind_when_memory_ends);
    return harness_end();
}

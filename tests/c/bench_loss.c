/* bench_loss.c — what the loss costs a training step: milliseconds of cross-entropy with its gradient, one thread. */
#include <time.h>

#include "harness.h"
#include "losses/loss.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void bench(int64_t n, int64_t k, double smoothing) {
    const gap_kernels *kernels = NULL;
    const gap_loss_def *def = gap_loss_find("CrossEntropy");
    gap_value cfg[GAP_PARAM_MAX];
    float *z = NULL, *g = NULL, *loss = NULL, *class_of = NULL;
    double *term = NULL;
    int32_t *pred = NULL;
    int64_t *offsets = NULL;
    CHECK_OK(GAP_NEW_ARRAY(z, n * k));
    CHECK_OK(GAP_NEW_ARRAY(g, n * k));
    CHECK_OK(GAP_NEW_ARRAY(loss, n));
    CHECK_OK(GAP_NEW_ARRAY(class_of, n));
    CHECK_OK(GAP_NEW_ARRAY(pred, n));
    CHECK_OK(GAP_NEW_ARRAY(term, n));
    CHECK_OK(gap_kernels_find(&kernels, NULL));
    CHECK_OK(GAP_NEW_ARRAY(offsets, n + 1));
    harness_fill(z, (size_t)(n * k), 1);
    for (int64_t s = 0; s < n; s++) class_of[s] = (float)(s * 7 % k), offsets[s + 1] = s + 1;
    gap_config_defaults(def->params, def->n_params, cfg);
    cfg[1].f[0] = smoothing;
    const gap_targets y = {.n = n, .values = class_of, .offsets = offsets};
    const gap_desc desc = gap_desc_vector(k);
    const float *out = z;
    const gap_loss_call call = {.cfg = cfg, .desc = &desc, .kernels = kernels, .output = &out, .y = &y, .share = 1.0 / (double)n,
                                .term = term, .loss = loss, .pred = pred, .gradient = &g};
    double best = 1e9;
    for (int rep = 0; rep < 30; rep++) {
        const double start = now();
        def->forward(&call, 0, n);
        if (now() - start < best) best = now() - start;
    }
    printf("batch %4lld, %5lld classes, smoothing %.1f: %8.3f ms, %6.2f ns a logit\n", (long long)n, (long long)k, smoothing, best * 1e3,
           best * 1e9 / (double)(n * k));
    gap_free(z), gap_free(g), gap_free(loss), gap_free(class_of), gap_free(pred), gap_free(term), gap_free(offsets);
}

int main(void) {
    bench(128, 10, 0), bench(128, 1000, 0), bench(128, 1000, 0.1), bench(16, 1000, 0.1);
    return harness_end();
}

#include "losses/loss.h"

#include "core/shape.h"
#include "harness.h"

#define N 5
#define K 7
enum { WEIGHT, SMOOTHING };

extern const gap_loss_def gap_loss_cross_entropy;
static const gap_loss_def *ce = &gap_loss_cross_entropy;
static const gap_kernels *kernels;
static const double class_weight[K] = {1, 0.5, 2, 0, 1.5, 1, 3};

/* The loss in double: torch's formulas, class by class. */
static double exact(const double *z, const float *values, const int64_t *offset, const double *w, double eps, double *per_sample) {
    double total = 0, divisor = 0;
    for (int s = 0; s < N; s++) {
        const float *y = values + offset[s];
        bool soft = offset[s + 1] - offset[s] > 1;
        double sum = 0, most = -INFINITY, loss = 0;
        for (int c = 0; c < K; c++) most = fmax(most, z[s * K + c]);
        for (int c = 0; c < K; c++) sum += exp(z[s * K + c] - most);
        for (int c = 0; c < K; c++) {
            double t = soft ? (double)y[c] : c == (int)y[0] ? 1 : 0;
            loss -= (w != NULL ? w[c] : 1) * ((1 - eps) * t + eps / K) * (z[s * K + c] - most - log(sum));
        }
        per_sample[s] = loss;
        total += loss;
        divisor += soft || w == NULL ? 1 : w[(int)y[0]];
    }
    return total / divisor;
}

typedef struct {
    float z[N * K], loss[N], gradient[N * K];
    int32_t pred[N];
    gap_value cfg[2];
    gap_desc desc;
    float values[N * K];
    int64_t offset[N + 1];
    gap_targets y;
} bench;

static void begin(bench *b, bool soft, bool weighted, double eps) {
    uint32_t seed = 3;
    memset(b, 0, sizeof *b);
    gap_config_defaults(ce->params, ce->n_params, b->cfg);
    b->cfg[SMOOTHING].f[0] = eps;
    if (weighted) b->cfg[WEIGHT].none = false, b->cfg[WEIGHT].n = K, b->cfg[WEIGHT].list = class_weight;
    b->desc = gap_desc_vector(K);
    for (int k = 0; k < N * K; k++) b->z[k] = 4.0f * harness_uniform(&seed);
    for (int s = 0; s < N; s++) {
        float *v = b->values + b->offset[s], sum = 0;
        int n = soft ? K : 1;
        for (int c = 0; c < n; c++) v[c] = soft ? harness_uniform(&seed) + 1.0f : (float)(s * 3 % K), sum += v[c];
        for (int c = 0; c < n && soft; c++) v[c] /= sum;
        b->offset[s + 1] = b->offset[s] + n;
    }
    b->y = (gap_targets){.n = N, .values = b->values, .offsets = b->offset};
}

static double forward(bench *b, bool training) {
    const float *outputs[1] = {b->z};
    float *gradients[1] = {b->gradient};
    CHECK_OK(ce->check(b->cfg, &b->desc, 1));
    CHECK_OK(ce->check_targets(b->cfg, &b->desc, &b->y));
    double term[N];
    gap_loss_call call = {.cfg = b->cfg, .desc = &b->desc, .kernels = kernels, .output = outputs, .y = &b->y,
                          .share = ce->share(b->cfg, &b->y, training), .term = term, .loss = b->loss, .pred = b->pred,
                          .gradient = training ? gradients : NULL};
    ce->forward(&call, 0, N / 2), ce->forward(&call, N / 2, N); /* as chunks do */
    return gap_loss_total(&call);
}

static void check_training(bool soft, bool weighted, double eps) {
    bench b;
    double z[N * K], per_sample[N];
    const double *w = weighted ? class_weight : NULL;
    begin(&b, soft, weighted, eps);
    double mean = forward(&b, true);
    for (int k = 0; k < N * K; k++) z[k] = (double)b.z[k];
    CHECK_NEAR(mean, exact(z, b.values, b.offset, w, eps, per_sample), 1e-6);
    for (int s = 0; s < N; s++) CHECK_NEAR((double)b.loss[s], per_sample[s], 1e-6);
    for (int k = 0; k < N * K; k++) {
        double step = 1e-5, old = z[k], up, down;
        z[k] = old + step, up = exact(z, b.values, b.offset, w, eps, per_sample);
        z[k] = old - step, down = exact(z, b.values, b.offset, w, eps, per_sample);
        z[k] = old;
        CHECK_NEAR((double)b.gradient[k], (up - down) / (2 * step), 1e-6);
    }
}

static void test_cross_entropy_training(void) {
    for (int soft = 0; soft < 2; soft++)
        for (int weighted = 0; weighted < 2; weighted++)
            for (int smooth = 0; smooth < 2; smooth++) check_training(soft, weighted, smooth ? 0.1 : 0.0);
}

/* Smoothing and weights belong to training: evaluation is plain, and the same for both. */
static void test_cross_entropy_evaluation_is_plain(void) {
    bench a, b;
    begin(&a, false, false, 0.0), begin(&b, false, true, 0.3);
    double plain = forward(&a, false), other = forward(&b, false);
    CHECK(plain == other && memcmp(a.loss, b.loss, sizeof a.loss) == 0);
    for (int k = 0; k < N * K; k++) CHECK(b.gradient[k] == 0.0f);
}

static void test_cross_entropy_prediction_ties_go_to_the_lower_class(void) {
    bench b;
    begin(&b, false, false, 0.0);
    for (int k = 0; k < N * K; k++) b.z[k] = 0.5f;
    b.z[K + 2] = b.z[K + 5] = 2.0f;
    double mean = forward(&b, false);
    CHECK(b.pred[0] == 0 && b.pred[1] == 2);
    CHECK_NEAR((double)b.loss[0], log(K), 1e-6);
    CHECK(isfinite(mean));
}

/* A confident prediction's loss and gradient keep their digits, and far logits neither overflow nor give NaN. */
static void test_cross_entropy_extremes(void) {
    bench b;
    begin(&b, false, false, 0.0);
    memset(b.z, 0, sizeof b.z);
    b.z[0] = 20.0f;                      /* sample 0 has class 0 */
    b.z[K + 3] = 3e38f, b.z[K] = -3e38f; /* sample 1 has class 3 */
    b.z[2 * K] = 1000.0f;                /* sample 2 has class 6 */
    CHECK(isfinite(forward(&b, true)));
    CHECK(fabs((double)b.loss[0] / (6 * exp(-20.0)) - 1) < 1e-5);
    CHECK(fabs((double)b.gradient[0] / (-6 * exp(-20.0) / N) - 1) < 1e-5);
    CHECK(b.loss[1] == 0.0f && b.loss[2] == 1000.0f);
    b.z[0] = NAN;
    CHECK(isnan(forward(&b, true)) && isnan(b.loss[0]) && !isnan(b.loss[1]));
}

/* A sample's loss is the same at any place of any batch. */
static void test_cross_entropy_sample_does_not_depend_on_the_batch(void) {
    bench b;
    begin(&b, false, false, 0.0);
    forward(&b, false);
    for (int s = 0; s < N; s++) {
        int64_t offset[2] = {0, 1};
        const float *outputs[1] = {b.z + s * K};
        gap_targets y = {.n = 1, .values = b.values + s, .offsets = offset};
        float loss;
        int32_t pred;
        double term;
        gap_loss_call call = {.cfg = b.cfg, .desc = &b.desc, .kernels = kernels, .output = outputs, .y = &y,
                              .share = ce->share(b.cfg, &y, false), .term = &term, .loss = &loss, .pred = &pred};
        ce->forward(&call, 0, 1);
        CHECK(memcmp(&loss, &b.loss[s], sizeof loss) == 0 && pred == b.pred[s]);
    }
}

static void test_cross_entropy_bad_targets_name_their_place(void) {
    const float bad[] = {-1.0f, 7.0f, 2.5f, NAN};
    bench b;
    for (int k = 0; k < GAP_COUNTOF(bad); k++) {
        begin(&b, false, false, 0.0);
        b.values[3] = bad[k];
        CHECK_FAILS(ce->check_targets(b.cfg, &b.desc, &b.y), GAP_ERR_VALUE);
        CHECK(strstr(gap_error_message(), "position 3") != NULL);
    }
    begin(&b, true, false, 0.0);
    b.values[2 * K] += 0.5f;
    CHECK_FAILS(ce->check_targets(b.cfg, &b.desc, &b.y), GAP_ERR_VALUE);
    CHECK(strstr(gap_error_message(), "position 2") != NULL);
    begin(&b, true, false, 0.0);
    b.offset[N]--;
    CHECK_FAILS(ce->check_targets(b.cfg, &b.desc, &b.y), GAP_ERR_SHAPE);
    CHECK_OK(ce->check_targets(b.cfg, &b.desc, &(gap_targets){.n = 0}));
}

static void test_cross_entropy_checks_its_output(void) {
    bench b;
    begin(&b, false, true, 0.0);
    gap_desc two[2] = {b.desc, b.desc}, image = gap_desc_image(K, 1, 1);
    CHECK_FAILS(ce->check(b.cfg, two, 2), GAP_ERR_SHAPE);
    CHECK_FAILS(ce->check(b.cfg, &image, 1), GAP_ERR_SHAPE);
    b.cfg[WEIGHT].n = K - 1;
    CHECK_FAILS(ce->check(b.cfg, &b.desc, 1), GAP_ERR_VALUE);
}

/* Lists longer than a value holds itself. */
static void test_long_lists_are_checked_like_short_ones(void) {
    static double many[1000];
    bench b;
    begin(&b, false, false, 0.0);
    gap_value *v = &b.cfg[WEIGHT];
    for (int k = 0; k < 1000; k++) many[k] = 1.0;
    v->none = false, v->n = 1000, v->list = many;
    CHECK_OK(gap_config_check("CrossEntropy", ce->params, ce->n_params, b.cfg));
    many[999] = -1.0;
    CHECK_FAILS(gap_config_check("CrossEntropy", ce->params, ce->n_params, b.cfg), GAP_ERR_VALUE);
    v->list = NULL;
    CHECK_FAILS(gap_config_check("CrossEntropy", ce->params, ce->n_params, b.cfg), GAP_ERR_VALUE);
}

/* Every kernel set gives the bits of ref, cut anywhere, with one class or a thousand. */
static void test_cross_entropy_sets_and_cuts_agree(void) {
    static float z[6 * 1000], loss[2][6], gradient[2][6 * 1000], values[6] = {0, 5, 999, 17, 16, 64};
    static double term[2][6];
    static int32_t pred[2][6];
    const int64_t offset[7] = {0, 1, 2, 3, 4, 5, 6};
    const gap_desc desc = gap_desc_vector(1000);
    const gap_targets y = {.n = 6, .values = values, .offsets = offset};
    const float *output[1] = {z};
    harness_fill(z, GAP_COUNTOF(z), 5);
    z[1000] = INFINITY, z[2000 + 999] = 40.0f;
    for (int id = 0; id < GAP_SET_COUNT; id++) {
        if (!gap_kernels_available((gap_kernel_set_id)id)) continue;
        gap_value cfg[2];
        gap_config_defaults(ce->params, ce->n_params, cfg);
        for (int k = 0; k < 2; k++) {
            const gap_kernels *set;
            float *g[1] = {gradient[k]};
            CHECK_OK(gap_kernels_find(&set, k == 0 ? "ref" : gap_kernel_set_name((gap_kernel_set_id)id)));
            gap_loss_call call = {.cfg = cfg, .desc = &desc, .kernels = set, .output = output, .y = &y, .share = ce->share(cfg, &y, true),
                                  .term = term[k], .loss = loss[k], .pred = pred[k], .gradient = g};
            for (int64_t at = 0; at < 6; at += k + 2) ce->forward(&call, at, gap_min64(at + k + 2, 6));
        }
        CHECK(memcmp(term[0], term[1], sizeof term[0]) == 0 && memcmp(loss[0], loss[1], sizeof loss[0]) == 0);
        CHECK(memcmp(pred[0], pred[1], sizeof pred[0]) == 0 && memcmp(gradient[0], gradient[1], sizeof gradient[0]) == 0);
    }
}

int main(void) {
    CHECK_OK(gap_kernels_find(&kernels, NULL));
    RUN(test_cross_entropy_training);
    RUN(test_cross_entropy_evaluation_is_plain);
    RUN(test_cross_entropy_prediction_ties_go_to_the_lower_class);
    RUN(test_cross_entropy_extremes);
    RUN(test_cross_entropy_sample_does_not_depend_on_the_batch);
    RUN(test_cross_entropy_sets_and_cuts_agree);
    RUN(test_cross_entropy_bad_targets_name_their_place);
    RUN(test_cross_entropy_checks_its_output);
    RUN(test_long_lists_are_checked_like_short_ones);
    return harness_end();
}

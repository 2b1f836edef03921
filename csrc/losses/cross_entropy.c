/*doc
Cross-entropy of softmax(logits) against a class or a distribution:  loss = -sum_c t_c * log softmax(z)_c.

In training t is smoothed, t = (1 - label_smoothing) * y + label_smoothing / K, and each class's term is multiplied by
its weight; the batch's loss is the sum divided by the sum of the targets' weights (classes) or by n (soft targets). In
evaluation, the loss is the plain one on the given targets.

Shapes: logits (K), not softmax-ed; target: a class 0 <= y < K, or K numbers >= 0 that add up to 1.
Gradient, with respect to the logits: softmax(z)_c * sum(t) - t_c over the same divisor, weights included in t.
Agrees with: torch.nn.CrossEntropyLoss (weight, label_smoothing, class and probability targets), 1e-6 in float32.
Source: Szegedy et al. 2016, section 7 (smoothing).
*/
#include <math.h>

#include "core/cpu.h"
#include "gen/docs.h"
#include "kernels/math.h"
#include "losses/loss.h"

enum { WEIGHT, LABEL_SMOOTHING };

static const gap_param params[] = {
    {"weight", GAP_FLOATS, .optional = true, .dflt_none = true, .max_n = 65536, .lo = 0, .hi = INFINITY,
     .doc = "a factor per class, for unbalanced data; None: 1 for each"},
    {"label_smoothing", GAP_FLOAT, .dflt = 0, .lo = 0, .hi = 1, .doc = "share of the target spread evenly over all classes, in training"},
};

/* One sample's target: a class, or K numbers. */
typedef struct {
    int64_t cls;            /* -1: soft */
    const float *soft;      /* (K) */
} target;

/* What training adds to the plain loss. */
typedef struct {
    const double *weight;   /* (K) or NULL */
    double smoothing;
} terms;

static target target_of(const gap_targets *y, int64_t s) {
    const float *v = y->values + y->offsets[s];
    target t = {.cls = -1, .soft = v};
    if (y->offsets[s + 1] - y->offsets[s] == 1) t.cls = (int64_t)v[0];
    return t;
}

/* The factor of -log softmax(z)_c in the sample's loss. */
static double coefficient(const target *t, const terms *e, int64_t k, int64_t c) {
    double y = t->cls >= 0 ? (c == t->cls ? 1.0 : 0.0) : (double)t->soft[c];
    if (e->smoothing > 0) y = (1.0 - e->smoothing) * y + e->smoothing / (double)k;
    return e->weight != NULL ? y * e->weight[c] : y;
}

static int64_t largest(const float *z, int64_t k) {
    int64_t best = 0;
    for (int64_t c = 1; c < k; c++)
        if (z[c] > z[best]) best = c;
    return best;
}

/* Loss of one sample; with e_out (K): exp(z - max), and *rest: their sum without the largest's 1. All sums in class order.
 * log(1 + rest) keeps its digits where the largest class has nearly everything: 1 + rest would round them away. */
static double sample_loss(const float *z, int64_t k, int64_t top, const target *t, const terms *e, float *e_out, double *rest) {
    double sum = 0;
    for (int64_t c = 0; c < k; c++) {
        float x = c == top ? 1.0f : gap_expf(z[c] - z[top]);
        if (e_out != NULL) e_out[c] = x;
        if (c != top) sum += (double)x;
    }
    float u = (float)(1.0 + sum);
    double log_sum = (double)gap_logf(u) + (sum - ((double)u - 1.0)) / (double)u;
    bool spread = t->cls < 0 || e->smoothing > 0;
    double loss = 0;
    for (int64_t c = spread ? 0 : t->cls; c < (spread ? k : t->cls + 1); c++) {
        double a = coefficient(t, e, k, c);
        if (a > 0) loss += a * (log_sum - ((double)z[c] - (double)z[top]));
    }
    *rest = sum;
    return loss;
}

/* exp(z - max) in g becomes the gradient, scaled by `share`. */
static void sample_gradient(float *g, int64_t k, const target *t, const terms *e, double rest, double share) {
    double total = 0;
    for (int64_t c = 0; c < k; c++) total += coefficient(t, e, k, c);
    double scale = total / (1.0 + rest);
    for (int64_t c = 0; c < k; c++) g[c] = (float)(((double)g[c] * scale - coefficient(t, e, k, c)) * share);
}

static double divisor(const gap_targets *y, const terms *e) {
    double sum = 0;
    for (int64_t s = 0; s < y->n; s++) {
        target t = target_of(y, s);
        sum += t.cls >= 0 && e->weight != NULL ? e->weight[t.cls] : 1.0;
    }
    return sum;
}

static gap_status check(const gap_value *cfg, const gap_desc *outputs, int n_outputs) {
    char text[96];
    if (n_outputs != 1) return gap_fail(GAP_ERR_SHAPE, "CrossEntropy: takes one output, got %d", n_outputs);
    if (outputs[0].ndim != 1)
        return gap_fail(GAP_ERR_SHAPE, "CrossEntropy: the output must be a vector of logits, got %s: put Flatten and Linear at the end",
                        gap_desc_text(&outputs[0], text));
    if (!cfg[WEIGHT].none && cfg[WEIGHT].n != outputs[0].dim[0])
        return gap_fail(GAP_ERR_VALUE, "CrossEntropy: weight must have one number per class, %lld, got %d", (long long)outputs[0].dim[0], cfg[WEIGHT].n);
    return GAP_OK;
}

static gap_status check_soft(const float *v, int64_t k, int64_t s) {
    double sum = 0;
    for (int64_t c = 0; c < k; c++) {
        if (!(v[c] >= 0 && v[c] <= 1.001f))
            return gap_fail(GAP_ERR_VALUE, "target: soft target at position %lld must be in [0, 1], got %g", (long long)s, (double)v[c]);
        sum += (double)v[c];
    }
    if (!(fabs(sum - 1.0) <= 1e-3))
        return gap_fail(GAP_ERR_VALUE, "target: soft target at position %lld must add up to 1, got %g", (long long)s, sum);
    return GAP_OK;
}

static gap_status check_targets(const gap_value *cfg, const gap_desc *outputs, const gap_targets *y) {
    (void)cfg;
    int64_t k = outputs[0].dim[0];
    for (int64_t s = 0; s < y->n; s++) {
        int64_t n = y->offsets[s + 1] - y->offsets[s];
        const float *v = y->values + y->offsets[s];
        if (n != 1 && n != k)
            return gap_fail(GAP_ERR_SHAPE, "target: position %lld must hold a class or %lld probabilities, got %lld numbers", (long long)s,
                            (long long)k, (long long)n);
        if (n == 1 && !(v[0] >= 0 && v[0] < (float)k && floorf(v[0]) >= v[0]))
            return gap_fail(GAP_ERR_VALUE, "target: class at position %lld must be a whole number in [0, %lld), got %g", (long long)s,
                            (long long)k, (double)v[0]);
        gap_status st = n == 1 ? GAP_OK : check_soft(v, k, s);
        if (st != GAP_OK) return st;
    }
    return GAP_OK;
}

/* Serial, and not through gap_parallel, which may be told to stop: a loss cannot fail. */
static double forward(const gap_value *cfg, const gap_desc *desc, const float *const *outputs, const gap_targets *y, float *loss,
                      int32_t *pred, float *const *gradient) {
    unsigned state = gap_cpu_flush_denormals();
    int64_t k = desc[0].dim[0];
    bool training = gradient != NULL;
    terms e = {.weight = training && !cfg[WEIGHT].none ? gap_value_floats(&cfg[WEIGHT]) : NULL,
               .smoothing = training ? cfg[LABEL_SMOOTHING].f[0] : 0.0};
    double div = divisor(y, &e), share = div > 0 ? 1.0 / div : 0.0, total = 0; /* all weights 0: nothing is learnt */
    for (int64_t s = 0; s < y->n; s++) {
        const float *z = outputs[0] + s * k; /* (K) */
        float *g = training ? gradient[0] + s * k : NULL;
        target t = target_of(y, s);
        int64_t top = largest(z, k);
        double rest, l = sample_loss(z, k, top, &t, &e, g, &rest);
        if (training) sample_gradient(g, k, &t, &e, rest, share);
        loss[s] = (float)l;
        pred[s] = (int32_t)top;
        total += l;
    }
    gap_cpu_restore(state);
    return total * share;
}

const gap_loss_def gap_loss_cross_entropy = {
    .name = "CrossEntropy", .doc = gap_loss_cross_entropy_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .check = check, .check_targets = check_targets, .forward = forward,
};

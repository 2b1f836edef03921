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

#include "core/shape.h"
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

/* Sum of exp(z - z[top]) in class order, without the largest's 1; with e (K) also the terms themselves, the largest's too. */
static double exp_sum(const gap_kernels *kernels, const float *z, int64_t k, int64_t top, float *e) {
    float part[64];
    double sum = 0;
    for (int64_t at = 0; at < k; at += (int64_t)GAP_COUNTOF(part)) {
        const int64_t n = gap_min64(k - at, (int64_t)GAP_COUNTOF(part));
        float *to = e != NULL ? e + at : part; /* (n) */
        kernels->act->exp_from((size_t)n, z[top], z + at, to);
        for (int64_t c = 0; c < n; c++)
            if (at + c != top) sum += (double)to[c];
    }
    if (e != NULL) e[top] = 1.0f; /* also where the largest is infinite */
    return sum;
}

/* Loss of one sample from `rest`, what exp_sum gave. All sums in class order.
 * log(1 + rest) keeps its digits where the largest class has nearly everything: 1 + rest would round them away. */
static double sample_loss(const float *z, int64_t k, int64_t top, const target *t, const terms *e, double rest) {
    float u = (float)(1.0 + rest);
    double log_sum = (double)gap_logf(u) + (rest - ((double)u - 1.0)) / (double)u;
    bool spread = t->cls < 0 || e->smoothing > 0;
    double loss = 0;
    for (int64_t c = spread ? 0 : t->cls; c < (spread ? k : t->cls + 1); c++) {
        double a = coefficient(t, e, k, c);
        if (a > 0) loss += a * (log_sum - ((double)z[c] - (double)z[top]));
    }
    return loss;
}

/* exp(z - max) in g becomes the gradient, scaled by `share`. */
static void sample_gradient(float *g, int64_t k, const target *t, const terms *e, double rest, double share) {
    if (t->cls >= 0 && e->smoothing <= 0) { /* one class has it all: the others' coefficients are 0 */
        const double own = coefficient(t, e, k, t->cls), scale = own / (1.0 + rest), mine = (double)g[t->cls];
        for (int64_t c = 0; c < k; c++) g[c] = (float)((double)g[c] * scale * share);
        g[t->cls] = (float)((mine * scale - own) * share);
        return;
    }
    double total = 0;
    for (int64_t c = 0; c < k; c++) total += coefficient(t, e, k, c);
    double scale = total / (1.0 + rest);
    for (int64_t c = 0; c < k; c++) g[c] = (float)(((double)g[c] * scale - coefficient(t, e, k, c)) * share);
}

static terms terms_of(const gap_value *cfg, bool training) {
    return (terms){.weight = training && !cfg[WEIGHT].none ? gap_value_floats(&cfg[WEIGHT]) : NULL,
                   .smoothing = training ? cfg[LABEL_SMOOTHING].f[0] : 0.0};
}

static double share(const gap_value *cfg, const gap_targets *y, bool training) {
    const terms e = terms_of(cfg, training);
    double sum = 0;
    for (int64_t s = 0; s < y->n; s++) {
        target t = target_of(y, s);
        sum += t.cls >= 0 && e.weight != NULL ? e.weight[t.cls] : 1.0;
    }
    return sum > 0 ? 1.0 / sum : 0.0; /* all weights 0: nothing is learnt */
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

static void forward(const gap_loss_call *call, int64_t begin, int64_t end) {
    const int64_t k = call->desc[0].dim[0];
    const terms e = terms_of(call->cfg, call->gradient != NULL);
    for (int64_t s = begin; s < end; s++) {
        const float *z = call->output[0] + s * k;                             /* (K) */
        float *g = call->gradient != NULL ? call->gradient[0] + s * k : NULL; /* (K) */
        const target t = target_of(call->y, s);
        const int64_t top = largest(z, k);
        const double rest = exp_sum(call->kernels, z, k, top, g);
        call->term[s] = sample_loss(z, k, top, &t, &e, rest);
        call->loss[s] = (float)call->term[s];
        call->pred[s] = (int32_t)top;
        if (g != NULL) sample_gradient(g, k, &t, &e, rest, call->share);
    }
}

const gap_loss_def gap_loss_cross_entropy = {
    .name = "CrossEntropy", .doc = gap_loss_cross_entropy_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .check = check, .check_targets = check_targets, .share = share, .forward = forward,
};

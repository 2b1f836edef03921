/*doc
Normalise each channel over the batch:  y = (x - mean) / sqrt(var + eps) * weight + bias.

In training, mean and var are the batch's (var biased, divided by n); the running statistics move by `momentum` towards
them (there var is unbiased, divided by n - 1). In evaluation, and in training where the layer is frozen, they are the
running statistics, so that what was frozen behaves the same in both.

Shapes: x, y (num_features, H, W); weight, bias, running_mean, running_var (num_features).
Gradient: through the batch statistics in training: dx = weight / sqrt(var + eps) * (dy - mean(dy) - xhat * mean(dy * xhat)),
dweight = sum(dy * xhat), dbias = sum(dy). A batch with one value per channel is an error.
Agrees with: torch.nn.BatchNorm2d, 1e-5 of the largest element in float32.
Source: Ioffe and Szegedy 2015, algorithms 1 and 2.
*/
#include <math.h>

#include "gen/docs.h"
#include "layers/_input.h"

enum { NUM_FEATURES, EPS, MOMENTUM };

static const gap_param params[] = {
    {"num_features", GAP_INT, .required = true, .lo = 1, .hi = INFINITY, .doc = "channels"},
    {"eps", GAP_FLOAT, .dflt = 1e-5, .lo = 0, .hi = INFINITY, .lo_open = true, .doc = "added to the variance"},
    {"momentum", GAP_FLOAT, .dflt = 0.1, .lo = 0, .hi = 1, .doc = "weight of the new batch in the running statistics"},
};

static gap_status weights(const gap_value *cfg, gap_weight_decl *out, int *n) {
    int64_t c = cfg[NUM_FEATURES].i;
    out[0] = (gap_weight_decl){"weight", GAP_WEIGHT_PARAM, true, 1, {c}, GAP_INIT_ONE, 0};
    out[1] = (gap_weight_decl){"bias", GAP_WEIGHT_PARAM, true, 1, {c}, GAP_INIT_ZERO, 0};
    out[2] = (gap_weight_decl){"running_mean", GAP_WEIGHT_BUFFER, true, 1, {c}, GAP_INIT_ZERO, 0};
    out[3] = (gap_weight_decl){"running_var", GAP_WEIGHT_BUFFER, true, 1, {c}, GAP_INIT_ONE, 0};
    *n = 4;
    return GAP_OK;
}

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    gap_status st = gap_layer_want_image(self, list, in[0], "num_features", self->cfg[NUM_FEATURES].i);
    if (st != GAP_OK) return st;
    gap_norm_attr attr = {.momentum = self->cfg[MOMENTUM].f[0], .eps = self->cfg[EPS].f[0], .frozen = self->frozen};
    const int *w = self->weight;
    return gap_emit_batch_norm(list, self->who, in[0], &attr, w[0], w[1], w[2], w[3], out);
}

const gap_layer_def gap_layer_batch_norm2d = {
    .name = "BatchNorm2d", .doc = gap_layer_batch_norm2d_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .min_in = 1, .max_in = 1, .weights = weights, .lower = lower,
};

/*doc
Multiply by a learned matrix:  y = weight x + bias.

Shapes: x (in_features), y (out_features); weight (out_features, in_features), bias (out_features).
Gradient: dx = weight^T dy, dweight = dy x^T, dbias = dy, the last two summed over the batch.
Initial values: weight and bias U(-k, k), k = 1 / sqrt(in_features), as torch's.
Agrees with: torch.nn.Linear, 1e-5 of the largest element in float32.
Source: the affine map; initial values LeCun et al. 1998, sec. 4.6.
*/
#include <math.h>

#include "core/shape.h"
#include "gen/docs.h"
#include "layers/_input.h"

enum { IN_FEATURES, OUT_FEATURES, BIAS };

static const gap_param params[] = {
    {"in_features", GAP_INT, .required = true, .lo = 1, .hi = INFINITY, .doc = "numbers in"},
    {"out_features", GAP_INT, .required = true, .lo = 1, .hi = INFINITY, .doc = "numbers out"},
    {"bias", GAP_BOOL, .dflt = 1, .lo = 0, .hi = 1, .doc = "add a learned number per output"},
};

static gap_status weights(const gap_value *cfg, gap_weight_decl *out, int *n) {
    int64_t in = cfg[IN_FEATURES].i, of = cfg[OUT_FEATURES].i, total;
    gap_status st = gap_size_mul(&total, in, of);
    if (st != GAP_OK) return st;
    double bound = 1.0 / sqrt((double)in);
    out[0] = (gap_weight_decl){"weight", GAP_WEIGHT_PARAM, false, 2, {of, in}, GAP_INIT_UNIFORM, bound};
    out[1] = (gap_weight_decl){"bias", GAP_WEIGHT_PARAM, true, 1, {of}, GAP_INIT_UNIFORM, bound};
    *n = cfg[BIAS].i ? 2 : 1;
    return GAP_OK;
}

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    gap_status st = gap_layer_want_vector(self, list, in[0], self->cfg[IN_FEATURES].i);
    if (st != GAP_OK) return st;
    return gap_emit_linear(list, self->who, in[0], self->cfg[OUT_FEATURES].i, self->weight[0], self->weight[1], out);
}

const gap_layer_def gap_layer_linear = {
    .name = "Linear", .doc = gap_layer_linear_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .min_in = 1, .max_in = 1, .weights = weights, .lower = lower,
};

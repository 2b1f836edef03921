/*doc
Normalise groups of channels of one image:  y = (x - mean) / sqrt(var + eps) * weight + bias, mean and var per group.

The same in training and evaluation: an image never sees the others of its batch.

Shapes: x, y (num_channels, H, W); weight, bias (num_channels).
Gradient: dx = (g - mean(g) - xhat * mean(g * xhat)) / sqrt(var + eps) with g = dy * weight, means per image and group;
dweight = sum(dy * xhat), dbias = sum(dy).
Agrees with: torch.nn.GroupNorm, 1e-5 of the largest element in float32.
Source: Wu and He 2018, sec. 3.
*/
#include <math.h>

#include "gen/docs.h"
#include "layers/_input.h"

enum { NUM_GROUPS, NUM_CHANNELS, EPS };

static const gap_param params[] = {
    {"num_groups", GAP_INT, .required = true, .lo = 1, .hi = INFINITY, .doc = "groups of channels; must divide num_channels"},
    {"num_channels", GAP_INT, .required = true, .lo = 1, .hi = INFINITY, .doc = "channels"},
    {"eps", GAP_FLOAT, .dflt = 1e-5, .lo = 0, .hi = INFINITY, .lo_open = true, .doc = "added to the variance"},
};

static gap_status weights(const gap_value *cfg, gap_weight_decl *out, int *n) {
    int64_t groups = cfg[NUM_GROUPS].i, c = cfg[NUM_CHANNELS].i;
    if (c % groups != 0)
        return gap_fail(GAP_ERR_VALUE, "GroupNorm: num_groups must divide num_channels, got num_groups=%lld, num_channels=%lld",
                        (long long)groups, (long long)c);
    out[0] = (gap_weight_decl){"weight", GAP_WEIGHT_PARAM, true, 1, {c}, GAP_INIT_ONE, 0};
    out[1] = (gap_weight_decl){"bias", GAP_WEIGHT_PARAM, true, 1, {c}, GAP_INIT_ZERO, 0};
    *n = 2;
    return GAP_OK;
}

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    const gap_value *c = self->cfg;
    gap_status st = gap_layer_want_image(self, list, in[0], "num_channels", c[NUM_CHANNELS].i);
    if (st != GAP_OK) return st;
    return gap_emit_group_norm(list, self->who, in[0], c[NUM_GROUPS].i, c[EPS].f[0], self->weight[0], self->weight[1], out);
}

const gap_layer_def gap_layer_group_norm = {
    .name = "GroupNorm", .doc = gap_layer_group_norm_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .min_in = 1, .max_in = 1, .weights = weights, .lower = lower,
};

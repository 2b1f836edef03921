/*doc
Scale negative inputs by a small slope:  y = x if x > 0 else negative_slope * x.

Shapes: x, y (any).  Gradient: dx = dy * (x > 0 ? 1 : negative_slope).
Agrees with: torch.nn.LeakyReLU, exact in float32.  Source: Maas et al. 2013, sec. 2.
*/
#include "gen/docs.h"
#include "layers/layer.h"

static const gap_param params[] = {
    {"negative_slope", GAP_FLOAT, .dflt = 0.01, .lo = 0, .hi = 1, .doc = "slope for x < 0, no unit"},
};

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    return gap_emit_act(list, self->who, in[0], GAP_ACT_LEAKY_RELU, (float)self->cfg[0].f[0], out);
}

const gap_layer_def gap_layer_leaky_relu = {
    .name = "LeakyReLU", .doc = gap_layer_leaky_relu_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .min_in = 1, .max_in = 1, .lower = lower,
};

/*doc
Average each channel over the whole image:  y[c] = mean of x[c].

Shapes: x (C, H, W), y (C, 1, 1); output_size must be 1.
Gradient: dx = dy / (H * W) everywhere.
Agrees with: torch.nn.AdaptiveAvgPool2d(1), 1e-6 of the largest element in float32.
Source: Lin et al. 2013, sec. 3.2.
*/
#include "gen/docs.h"
#include "layers/_input.h"

static const gap_param params[] = {
    {"output_size", GAP_PAIR, .required = true, .lo = 1, .hi = 1, .doc = "height and width of the output, pixels; only 1"},
};

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    gap_status st = gap_layer_want_image(self, list, in[0], "", 0);
    if (st != GAP_OK) return st;
    return gap_emit_global_avg_pool(list, self->who, in[0], out);
}

const gap_layer_def gap_layer_adaptive_avg_pool2d = {
    .name = "AdaptiveAvgPool2d", .doc = gap_layer_adaptive_avg_pool2d_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .min_in = 1, .max_in = 1, .lower = lower,
};

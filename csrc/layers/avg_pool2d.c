/*doc
Average each window:  y = mean of x over the window.

The padding's zeros are counted in the mean unless `count_include_pad` is False.

Shapes: x (C, H, W), y (C, H', W') with H' = floor((H + 2*padding - kernel_size) / stride) + 1.
Gradient: dy, divided by the same count, goes to every position of its window.
Agrees with: torch.nn.AvgPool2d, 1e-6 of the largest element in float32.
Source: LeCun et al. 1989 (subsampling).
*/
#include <math.h>

#include "gen/docs.h"
#include "layers/_pool.h"

enum { CEIL_MODE = GAP_POOL_OWN, COUNT_INCLUDE_PAD };

static const gap_param params[] = {
    {"kernel_size", GAP_PAIR, .required = true, .lo = 1, .hi = INFINITY, .doc = "height and width of the window, pixels"},
    {"stride", GAP_PAIR, .optional = true, .dflt_none = true, .lo = 1, .hi = INFINITY,
     .doc = "step of the window, pixels; None: kernel_size"},
    {"padding", GAP_PAIR, .dflt = 0, .lo = 0, .hi = INFINITY, .doc = "zeros on each side, pixels; at most half the window"},
    {"ceil_mode", GAP_BOOL, .dflt = 0, .lo = 0, .hi = 1, .doc = "round the output size up"},
    {"count_include_pad", GAP_BOOL, .dflt = 1, .lo = 0, .hi = 1, .doc = "count the padding in the mean"},
};

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    const gap_value *c = self->cfg;
    gap_pool_attr attr;
    gap_status st = gap_layer_pool_window(self, list, in[0], &attr);
    if (st != GAP_OK) return st;
    attr.ceil_mode = c[CEIL_MODE].i != 0;
    attr.count_include_pad = c[COUNT_INCLUDE_PAD].i != 0;
    return gap_emit_avg_pool(list, self->who, in[0], &attr, out);
}

const gap_layer_def gap_layer_avg_pool2d = {
    .name = "AvgPool2d", .doc = gap_layer_avg_pool2d_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .min_in = 1, .max_in = 1, .lower = lower,
};

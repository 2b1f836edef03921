/*doc
Keep the largest value of each window:  y = max of x over the window.

Padding never wins; of equal values the first in row order takes the gradient; a NaN in the window is the output.
With `ceil_mode` the output size is rounded up, but the last window still starts inside the image or its left padding.

Shapes: x (C, H, W), y (C, H', W') with H' = floor((H + 2*padding - dilation*(kernel_size - 1) - 1) / stride) + 1.
Gradient: dy goes to the position that won.
Agrees with: torch.nn.MaxPool2d, exact in float32.
Source: Ranzato et al. 2007.
*/
#include <math.h>

#include "gen/docs.h"
#include "layers/_pool.h"

enum { DILATION = GAP_POOL_OWN, CEIL_MODE };

static const gap_param params[] = {
    {"kernel_size", GAP_PAIR, .required = true, .lo = 1, .hi = INFINITY, .doc = "height and width of the window, pixels"},
    {"stride", GAP_PAIR, .optional = true, .dflt_none = true, .lo = 1, .hi = INFINITY,
     .doc = "step of the window, pixels; None: kernel_size"},
    {"padding", GAP_PAIR, .dflt = 0, .lo = 0, .hi = INFINITY, .doc = "pixels added on each side; at most half the window"},
    {"dilation", GAP_PAIR, .dflt = 1, .lo = 1, .hi = INFINITY, .doc = "distance of the window's taps, pixels"},
    {"ceil_mode", GAP_BOOL, .dflt = 0, .lo = 0, .hi = 1, .doc = "round the output size up"},
};

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    const gap_value *c = self->cfg;
    gap_pool_attr attr;
    gap_status st = gap_layer_pool_window(self, list, in[0], &attr);
    if (st != GAP_OK) return st;
    attr.dilation[0] = c[DILATION].i, attr.dilation[1] = c[DILATION].i2;
    attr.ceil_mode = c[CEIL_MODE].i != 0;
    return gap_emit_max_pool(list, self->who, in[0], &attr, out);
}

const gap_layer_def gap_layer_max_pool2d = {
    .name = "MaxPool2d", .doc = gap_layer_max_pool2d_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .min_in = 1, .max_in = 1, .lower = lower,
};

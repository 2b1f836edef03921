/*doc
Slide a learned window over the image:  y[o] = bias[o] + sum over c, i, j of weight[o, c, i, j] * x[c, i*dilation, j*dilation].

The window moves by `stride`; `padding` zeros are put on each side. With `groups` > 1 each group of output channels sees
its own group of input channels; groups == in_channels is a depthwise convolution.

Shapes: x (in_channels, H, W), y (out_channels, H', W') with H' = floor((H + 2*padding - dilation*(kernel_size - 1) - 1) / stride) + 1;
weight (out_channels, in_channels / groups, kernel_size, kernel_size), bias (out_channels).
Gradient: dx is the transposed convolution of dy, dweight the correlation of x with dy, dbias the sum of dy.
Initial values: weight and bias U(-k, k), k = 1 / sqrt(in_channels / groups * kernel area), as torch's.
Runs as, by shape and precision (`plan.describe()`): depthwise, pointwise (1x1), Winograd tiles (3x3 at stride 1, 16 channels and
more), else direct. Errors to float64 as parts of the largest element, 64 to 512 channels, forward and input gradient / weight
gradient: direct 4e-7 / 4e-7; "precise", F(2x2, 3x3) 5e-7 / 5e-7; "fast", F(4x4, 3x3) 2.5e-6 / 1.3e-6.
Agrees with: torch.nn.Conv2d, 1e-5 of the largest element in float32, in both precisions.
Source: LeCun et al. 1989; Lavin and Gray 2015, sec. 4 (Winograd).
*/
#include <math.h>

#include "core/shape.h"
#include "gen/docs.h"
#include "layers/_input.h"

enum { IN_CHANNELS, OUT_CHANNELS, KERNEL_SIZE, STRIDE, PADDING, DILATION, GROUPS, BIAS };

static const gap_param params[] = {
    {"in_channels", GAP_INT, .required = true, .lo = 1, .hi = INFINITY, .doc = "channels of the input"},
    {"out_channels", GAP_INT, .required = true, .lo = 1, .hi = INFINITY, .doc = "channels of the output"},
    {"kernel_size", GAP_PAIR, .required = true, .lo = 1, .hi = INFINITY, .doc = "height and width of the window, pixels"},
    {"stride", GAP_PAIR, .dflt = 1, .lo = 1, .hi = INFINITY, .doc = "step of the window, pixels"},
    {"padding", GAP_PAIR, .dflt = 0, .lo = 0, .hi = INFINITY, .doc = "zeros on each side, pixels"},
    {"dilation", GAP_PAIR, .dflt = 1, .lo = 1, .hi = INFINITY, .doc = "distance of the window's taps, pixels"},
    {"groups", GAP_INT, .dflt = 1, .lo = 1, .hi = INFINITY, .doc = "groups of channels that do not see each other"},
    {"bias", GAP_BOOL, .dflt = 1, .lo = 0, .hi = 1, .doc = "add a learned number per output channel"},
};

static gap_status weights(const gap_value *cfg, gap_weight_decl *out, int *n) {
    int64_t ic = cfg[IN_CHANNELS].i, oc = cfg[OUT_CHANNELS].i, groups = cfg[GROUPS].i, fan_in, total;
    if (ic % groups != 0 || oc % groups != 0)
        return gap_fail(GAP_ERR_VALUE, "Conv2d: groups must divide in_channels and out_channels, got groups=%lld, in_channels=%lld, "
                        "out_channels=%lld", (long long)groups, (long long)ic, (long long)oc);
    gap_status st = gap_size_mul(&fan_in, cfg[KERNEL_SIZE].i, cfg[KERNEL_SIZE].i2);
    if (st == GAP_OK) st = gap_size_mul(&fan_in, fan_in, ic / groups);
    if (st == GAP_OK) st = gap_size_mul(&total, fan_in, oc);
    if (st != GAP_OK) return st;
    double bound = 1.0 / sqrt((double)fan_in);
    out[0] = (gap_weight_decl){"weight", GAP_WEIGHT_PARAM, false, 4, {oc, ic / groups, cfg[KERNEL_SIZE].i, cfg[KERNEL_SIZE].i2},
                               GAP_INIT_UNIFORM, bound};
    out[1] = (gap_weight_decl){"bias", GAP_WEIGHT_PARAM, true, 1, {oc}, GAP_INIT_UNIFORM, bound};
    *n = cfg[BIAS].i ? 2 : 1;
    return GAP_OK;
}

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    const gap_value *c = self->cfg;
    gap_status st = gap_layer_want_image(self, list, in[0], "in_channels", c[IN_CHANNELS].i);
    if (st != GAP_OK) return st;
    gap_conv_attr attr = {
        .out_channels = c[OUT_CHANNELS].i,
        .kernel = {c[KERNEL_SIZE].i, c[KERNEL_SIZE].i2},
        .stride = {c[STRIDE].i, c[STRIDE].i2},
        .padding = {c[PADDING].i, c[PADDING].i2},
        .dilation = {c[DILATION].i, c[DILATION].i2},
        .groups = c[GROUPS].i,
    };
    return gap_emit_conv(list, self->who, in[0], &attr, self->weight[0], self->weight[1], out);
}

const gap_layer_def gap_layer_conv2d = {
    .name = "Conv2d", .doc = gap_layer_conv2d_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .min_in = 1, .max_in = 1, .weights = weights, .lower = lower,
};

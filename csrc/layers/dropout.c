/*doc
In training, set each value to zero with probability p and scale the others:  y = x * keep / (1 - p). In evaluation y = x.

What is dropped is a function of (seed, epoch, sample, layer, element): the same whatever the batch, threads or order.

Shapes: x, y (any).  Gradient: dx = dy * keep / (1 - p).
Agrees with: torch.nn.Dropout, in distribution; exact in evaluation.
Source: Srivastava et al. 2014; inverted form.
*/
#include "gen/docs.h"
#include "layers/layer.h"

static const gap_param params[] = {
    {"p", GAP_FLOAT, .dflt = 0.5, .lo = 0, .hi = 1, .hi_open = true, .doc = "probability of dropping a value"},
};

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    double p = self->cfg[0].f[0];
    if (list->training && p > 0) return gap_emit_dropout(list, self->who, in[0], p, out);
    *out = in[0];
    return GAP_OK;
}

const gap_layer_def gap_layer_dropout = {
    .name = "Dropout", .doc = gap_layer_dropout_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .min_in = 1, .max_in = 1, .lower = lower,
};

/*doc
A cheap stand-in for Sigmoid:  y = min(max(x + 3, 0), 6) / 6.

Shapes: x, y (any).  Gradient: dx = dy / 6 where -3 < x < 3, else 0.
Agrees with: torch.nn.Hardsigmoid, 1e-6 in float32.  Source: Howard et al. 2019, sec. 5.2.
*/
#include "gen/docs.h"
#include "layers/layer.h"

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    return gap_emit_act(list, self->who, in[0], GAP_ACT_HARDSIGMOID, 0.0f, out);
}

const gap_layer_def gap_layer_hardsigmoid = {.name = "Hardsigmoid", .doc = gap_layer_hardsigmoid_doc, .min_in = 1, .max_in = 1, .lower = lower};

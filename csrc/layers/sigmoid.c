/*doc
Squash to (0, 1):  y = 1 / (1 + exp(-x)).

Shapes: x, y (any).  Gradient: dx = dy * y * (1 - y).
Agrees with: torch.nn.Sigmoid, 1e-6 in float32.  Source: the logistic function.
*/
#include "gen/docs.h"
#include "layers/layer.h"

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    return gap_emit_act(list, self->who, in[0], GAP_ACT_SIGMOID, 0.0f, out);
}

const gap_layer_def gap_layer_sigmoid = {.name = "Sigmoid", .doc = gap_layer_sigmoid_doc, .min_in = 1, .max_in = 1, .lower = lower};

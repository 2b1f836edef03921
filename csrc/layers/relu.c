/*doc
Cut off below zero:  y = max(x, 0).

Shapes: x, y (any).  Gradient: dx = dy where x > 0, else 0.
Agrees with: torch.nn.ReLU, exact in float32.  Source: Nair and Hinton 2010.
*/
#include "gen/docs.h"
#include "layers/layer.h"

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    return gap_emit_act(list, self->who, in[0], GAP_ACT_RELU, 0.0f, out);
}

const gap_layer_def gap_layer_relu = {.name = "ReLU", .doc = gap_layer_relu_doc, .min_in = 1, .max_in = 1, .lower = lower};

/*doc
Cut off below zero and above six:  y = min(max(x, 0), 6).

Shapes: x, y (any).  Gradient: dx = dy where 0 < x < 6, else 0.
Agrees with: torch.nn.ReLU6, exact in float32.  Source: Krizhevsky 2010, "Convolutional deep belief networks on CIFAR-10".
*/
#include "gen/docs.h"
#include "layers/layer.h"

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    return gap_emit_act(list, self->who, in[0], GAP_ACT_RELU6, 0.0f, out);
}

const gap_layer_def gap_layer_relu6 = {.name = "ReLU6", .doc = gap_layer_relu6_doc, .min_in = 1, .max_in = 1, .lower = lower};

/*doc
Squash to (-1, 1):  y = tanh(x).

Shapes: x, y (any).  Gradient: dx = dy * (1 - y^2).
Agrees with: torch.nn.Tanh, 1e-6 in float32.  Source: LeCun et al. 1998, sec. 4.4.
*/
#include "gen/docs.h"
#include "layers/layer.h"

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    return gap_emit_act(list, self->who, in[0], GAP_ACT_TANH, 0.0f, out);
}

const gap_layer_def gap_layer_tanh = {.name = "Tanh", .doc = gap_layer_tanh_doc, .min_in = 1, .max_in = 1, .lower = lower};

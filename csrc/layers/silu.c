/*doc
Weigh the input by its own sigmoid:  y = x / (1 + exp(-x)).

Shapes: x, y (any).  Gradient: dx = dy * s * (1 + x * (1 - s)) with s = 1 / (1 + exp(-x)).
Agrees with: torch.nn.SiLU, 1e-6 in float32.  Source: Elfwing et al. 2017; Ramachandran et al. 2017 (swish).
*/
#include "gen/docs.h"
#include "layers/layer.h"

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    return gap_emit_act(list, self->who, in[0], GAP_ACT_SILU, 0.0f, out);
}

const gap_layer_def gap_layer_silu = {.name = "SiLU", .doc = gap_layer_silu_doc, .min_in = 1, .max_in = 1, .lower = lower};

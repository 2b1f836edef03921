/*doc
Pass the input on:  y = x.

Shapes: x, y (any).  Gradient: dx = dy.
Agrees with: torch.nn.Identity, exact.  Source: none needed.
*/
#include "gen/docs.h"
#include "layers/layer.h"

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)self, (void)list, (void)n_in;
    *out = in[0]; /* no op at all */
    return GAP_OK;
}

const gap_layer_def gap_layer_identity = {.name = "Identity", .doc = gap_layer_identity_doc, .min_in = 1, .max_in = 1, .lower = lower};

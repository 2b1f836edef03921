/*doc
Add two values of equal shape:  y = a + b. What `+` means in a model's forward.

Shapes: a, b, y (any, equal).  Gradient: da = db = dy.
Agrees with: torch.add, exact in float32.  Source: He et al. 2015 (shortcut connections).
*/
#include "gen/docs.h"
#include "layers/layer.h"

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    return gap_emit_add(list, self->who, in[0], in[1], out);
}

const gap_layer_def gap_layer_add = {.name = "Add", .doc = gap_layer_add_doc, .min_in = 2, .max_in = 2, .lower = lower};

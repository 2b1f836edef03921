/*doc
Multiply two values of equal shape, or an image by a gate per channel:  y = a * b. What `*` means in a model's forward.

Shapes: a, y (any); b as a, or (C, 1, 1) when a is (C, H, W).
Gradient: da = dy * b, db = dy * a (summed over the pixels for a gate).
Agrees with: torch.mul, exact in float32 (forward).  Source: Hu et al. 2017, sec. 3 (scale).
*/
#include "gen/docs.h"
#include "layers/layer.h"

/* The gate may stand on either side, as in torch: ops take it second. */
static bool is_gate(const gap_desc *d, const gap_desc *other) {
    return d->ndim == 3 && d->dim[1] == 1 && d->dim[2] == 1 && other->ndim == 3 && (other->dim[1] != 1 || other->dim[2] != 1);
}

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    bool swap = is_gate(&list->value[in[0]], &list->value[in[1]]);
    return gap_emit_mul(list, self->who, swap ? in[1] : in[0], swap ? in[0] : in[1], out);
}

const gap_layer_def gap_layer_mul = {.name = "Mul", .doc = gap_layer_mul_doc, .min_in = 2, .max_in = 2, .lower = lower};

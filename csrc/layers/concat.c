/*doc
Put values one after the other along the channels:  y = (a, b, …).

Shapes: images (C1, H, W), (C2, H, W), … give (C1 + C2 + …, H, W); vectors (F1), (F2), … give (F1 + F2 + …).
Gradient: each input gets its part of dy.
Agrees with: torch.cat(dim=1), exact.  Source: Szegedy et al. 2014 (inception modules).
*/
#include "gen/docs.h"
#include "layers/layer.h"

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    return gap_emit_concat(list, self->who, in, n_in, out);
}

const gap_layer_def gap_layer_concat = {
    .name = "Concat", .doc = gap_layer_concat_doc, .min_in = 2, .max_in = GAP_OP_MAX_IN, .lower = lower,
};

/*doc
Lay an image out as one vector, channel by channel, row by row.

Shapes: x (C, H, W) or (F), y (C*H*W) or (F).  Gradient: dx = dy in the image's shape.
Agrees with: torch.nn.Flatten, exact.  Source: none needed.
*/
#include "gen/docs.h"
#include "layers/layer.h"

/* torch counts the batch as axis 0; joining only some axes of an image has no use here, and is refused by the ranges. */
static const gap_param params[] = {
    {"start_dim", GAP_INT, .dflt = 1, .lo = 1, .hi = 1, .doc = "first axis to join, the batch being 0; only 1"},
    {"end_dim", GAP_INT, .dflt = -1, .lo = -1, .hi = -1, .doc = "last axis to join; only -1"},
};

static gap_status lower(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out) {
    (void)n_in;
    return gap_emit_flatten(list, self->who, in[0], out);
}

const gap_layer_def gap_layer_flatten = {
    .name = "Flatten", .doc = gap_layer_flatten_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .min_in = 1, .max_in = 1, .lower = lower,
};

/* _input.h — what a layer says about an input that does not suit it. One wording for all of them. */
#ifndef GAP_LAYERS_INPUT_H
#define GAP_LAYERS_INPUT_H

#include "layers/layer.h"

/* Input `value` must be an image (C, H, W); with channels > 0, of that many. `param`: the layer's name for the number. */
GAP_MUST_USE gap_status gap_layer_want_image(const gap_layer *self, const gap_oplist *list, int value, const char *param,
                                             int64_t channels);
/* Input `value` must be a vector of `features`. */
GAP_MUST_USE gap_status gap_layer_want_vector(const gap_layer *self, const gap_oplist *list, int value, int64_t features);

#endif

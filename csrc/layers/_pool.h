/* _pool.h — the window that MaxPool2d and AvgPool2d have in common. */
#ifndef GAP_LAYERS_POOL_H
#define GAP_LAYERS_POOL_H

#include "layers/layer.h"

/* Where both tables have the window's parameters; their own begin at GAP_POOL_OWN. */
enum { GAP_POOL_KERNEL_SIZE, GAP_POOL_STRIDE, GAP_POOL_PADDING, GAP_POOL_OWN };

/* Input `value` must be an image. Gives kernel, stride (None: the kernel) and padding; no dilation, nothing else set. That
 * the padding is at most half of the window is the op's to check. */
GAP_MUST_USE gap_status gap_layer_pool_window(const gap_layer *self, const gap_oplist *list, int value, gap_pool_attr *out);

#endif

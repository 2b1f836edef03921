#include "layers/_pool.h"

#include "layers/_input.h"

gap_status gap_layer_pool_window(const gap_layer *self, const gap_oplist *list, int value, gap_pool_attr *out) {
    const gap_value *kernel = &self->cfg[GAP_POOL_KERNEL_SIZE], *padding = &self->cfg[GAP_POOL_PADDING];
    const gap_value *stride = self->cfg[GAP_POOL_STRIDE].none ? kernel : &self->cfg[GAP_POOL_STRIDE];
    *out = (gap_pool_attr){.kernel = {kernel->i, kernel->i2}, .stride = {stride->i, stride->i2},
                           .padding = {padding->i, padding->i2}, .dilation = {1, 1}};
    return gap_layer_want_image(self, list, value, "", 0);
}

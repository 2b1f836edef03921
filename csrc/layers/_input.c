#include "layers/_input.h"

gap_status gap_layer_want_image(const gap_layer *self, const gap_oplist *list, int value, const char *param, int64_t channels) {
    char shape[96];
    const char *name = self->def->name;
    const gap_desc *d = &list->value[value];
    if (d->ndim != 3)
        return gap_fail(GAP_ERR_SHAPE, "%s: input must be an image (C, H, W), got a vector %s", name, gap_desc_text(d, shape));
    if (channels > 0 && d->dim[0] != channels)
        return gap_fail(GAP_ERR_SHAPE, "%s: %s is %lld, but its input %s has %lld channel%s: write %s=%lld, or change the layer before it",
                        name, param, (long long)channels, gap_desc_text(d, shape), (long long)d->dim[0],
                        d->dim[0] == 1 ? "" : "s", param, (long long)d->dim[0]);
    return GAP_OK;
}

gap_status gap_layer_want_vector(const gap_layer *self, const gap_oplist *list, int value, int64_t features) {
    char shape[96];
    const char *name = self->def->name;
    const gap_desc *d = &list->value[value];
    long long have = (long long)gap_desc_count(d);
    if (d->ndim != 1)
        return gap_fail(GAP_ERR_SHAPE, "%s: input must be a vector, got an image %s: put Flatten before it, and write in_features=%lld",
                        name, gap_desc_text(d, shape), have);
    if (d->dim[0] != features)
        return gap_fail(GAP_ERR_SHAPE, "%s: in_features is %lld, but its input has %lld: write in_features=%lld, or change the layer before it",
                        name, (long long)features, have, have);
    return GAP_OK;
}

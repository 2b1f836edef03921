/* pool_window.h — what max_pool.c and avg_pool.c share: the window's checks, its kernel's arguments, the cut into planes. */
#ifndef GAP_OPS_POOL_WINDOW_H
#define GAP_OPS_POOL_WINDOW_H

#include "core/shape.h"
#include "core/threads.h"
#include "ops/cut.h"
#include "ops/ops.h"
#include "ops/plane.h"

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    gap_pool_shape shape;
    gap_cut cut; /* of planes */
} gap_pool_job;

/* Checks that `in` is an image on which the window fits, padding at most half of it; gives the output's shape. */
static inline gap_status gap_pool_infer(const char *what, const gap_pool_attr *a, const gap_desc *in, gap_desc *out) {
    char text[96];
    int64_t size[2];
    if (in->layout != GAP_BLOCKED)
        return gap_fail(GAP_ERR_SHAPE, "%s: input must be an image (C, H, W), got %s", what, gap_desc_text(in, text));
    for (int k = 0; k < 2; k++) {
        gap_status st = gap_window_size(&size[k], what, in->dim[1 + k], a->kernel[k], a->stride[k], a->padding[k], a->padding[k],
                                        a->dilation[k], a->ceil_mode);
        if (st != GAP_OK) return st;
        if (a->padding[k] > ((a->kernel[k] - 1) * a->dilation[k] + 1) / 2)
            return gap_fail(GAP_ERR_SHAPE, "%s: padding must be at most half of the window, got %lld for a window of %lld", what,
                            (long long)a->padding[k], (long long)((a->kernel[k] - 1) * a->dilation[k] + 1));
    }
    *out = gap_desc_image(in->dim[0], size[0], size[1]);
    return GAP_OK;
}

static inline gap_pool_shape gap_pool_shape_of(const gap_op *op) {
    const gap_pool_attr *a = GAP_ATTR_CONST(op, gap_pool_attr);
    gap_pool_shape g = {
        .h = op->in_desc[0].dim[1], .w = op->in_desc[0].dim[2], .oh = op->out_desc[0].dim[1], .ow = op->out_desc[0].dim[2],
        .kernel = {a->kernel[0], a->kernel[1]}, .stride = {a->stride[0], a->stride[1]}, .pad = {a->padding[0], a->padding[1]},
        .dilation = {a->dilation[0], a->dilation[1]}, .count_include_pad = a->count_include_pad,
    };
    return g;
}

/* Runs `chunk`, which gets a gap_pool_job, over all planes. */
static inline gap_status gap_pool_run(const gap_op *op, const gap_op_ctx *ctx, void (*chunk)(void *job, int64_t chunk, int thread)) {
    const gap_desc *d = &op->in_desc[0];
    gap_pool_job job = {op, ctx, gap_pool_shape_of(op), gap_cut_of(ctx->n * gap_desc_blocks(d), gap_plane_floats(d))};
    return gap_parallel(gap_cut_chunks(job.cut), chunk, &job);
}

#endif

/* fuse_norm.h — the rules about BatchNorm and what stands around it (ops/norm.h), and what a rule sees. */
#ifndef GAP_GRAPH_FUSE_NORM_H
#define GAP_GRAPH_FUSE_NORM_H

#include "ops/op.h"

typedef struct {
    gap_oplist *list;
    int *output;              /* (n_outputs) values that must stay */
    int n_outputs;
    const gap_op_env *env;
} gap_fusion;

int gap_fusion_producer(const gap_fusion *f, int v);    /* the op that makes value v, or -1 */
int gap_fusion_only_reader(const gap_fusion *f, int v); /* the op that alone reads value v, or -1; an output has a reader more */

gap_status gap_fuse_join(gap_fusion *f);     /* affine + add -> affine with a residual */
gap_status gap_fuse_act(gap_fusion *f);      /* affine + act -> affine with an activation */
gap_status gap_fuse_bn_sums(gap_fusion *f);  /* conv + moments -> conv with sums */
gap_status gap_fuse_bn_apply(gap_fusion *f); /* affine + conv -> conv with a prologue; after bn_sums */
gap_status gap_fuse_gate(gap_fusion *f);     /* gate * x -> prologue of the 1x1 convolution that reads it */
gap_status gap_fuse_join_back(gap_fusion *f); /* affine, conv -> affine without a mask, conv with an epilogue on its input's gradient; after the above */
gap_status gap_fuse_bn_fixed(gap_fusion *f); /* conv + affine_fixed [+ add] [+ act] -> conv with an epilogue */

#endif

/* fuse.h — fusion: rewriting a lowered list by a table of rules, before anything is planned.
 *
 * GAPLESS_FUSE=-rule[,-rule…] leaves rules out ("-all": every one). With a rule or without, a plan computes the same up to
 * the rounding of what is no longer stored in between; the order of every sum stays.
 */
#ifndef GAP_GRAPH_FUSE_H
#define GAP_GRAPH_FUSE_H

#include "ops/op.h"

typedef enum {
    GAP_RULE_DEAD,     /* ops whose outputs nobody reads are dropped */
    GAP_RULE_JOIN,     /* BatchNorm's affine and the addition of a shortcut: one op, one pass */
    GAP_RULE_ACT,      /* BatchNorm's affine and the activation behind it likewise */
    GAP_RULE_BN_SUMS,  /* a convolution makes the sums of the BatchNorm behind it, and reads its gradient through it */
    GAP_RULE_BN_APPLY, /* affine and activation are done where the next convolution loads, and are never stored */
    GAP_RULE_GATE,     /* a gate per channel (squeeze-excitation) is applied where the 1x1 convolution behind it loads */
    GAP_RULE_JOIN_BACK, /* who writes the gradient behind an affine last masks it and makes its sums, while it is there (not where ops run twice) */
    GAP_RULE_BN_FIXED, /* evaluation: affine, shortcut and activation are done where the convolution stores */
    GAP_RULE_POOL_ACT, /* a rectifier before a maximum comes after it: the same numbers from a fraction of the pixels */
    GAP_RULE_PIXELS,   /* images of few channels stay (H, W, C) for the convolutions that read them */
    GAP_RULE_BYTES,    /* uint8 images are normalised where those convolutions load them, and never stored as floats */
    GAP_RULE_SLICES,   /* what concat alone reads is made in its place there, and its gradient read there: no copy (not where ops run twice) */
    GAP_RULE_INPLACE,  /* an op may write over an input that nobody reads any more, a gradient over one (layout.c) */
    GAP_RULE_SHARE,    /* buffers that are not alive together may share memory (layout.c) */
    GAP_RULE_COUNT
} gap_rule;

/* Gives a bit per rule that is to be followed, as GAPLESS_FUSE says; GAP_ERR_VALUE when it names one that is not there. */
GAP_MUST_USE gap_status gap_fuse_rules(unsigned *rules);
/* Applies those that rewrite the list, in their order. output[0..n_outputs) are the values that must stay; a rule may
 * renumber them. */
GAP_MUST_USE gap_status gap_fuse(gap_oplist *list, int *output, int n_outputs, const gap_op_env *env, unsigned rules);

#endif

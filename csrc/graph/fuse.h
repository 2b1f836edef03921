/* fuse.h — fusion: rewriting a lowered list by a table of rules, before anything is planned.
 *
 * GAPLESS_FUSE=-rule[,-rule…] leaves rules out ("-all": every one). A rule never changes a bit of what a plan computes.
 */
#ifndef GAP_GRAPH_FUSE_H
#define GAP_GRAPH_FUSE_H

#include "ops/op.h"

/* Applies the rules in their order. output[0..n_outputs) are the values that must stay; a rule may renumber them.
 * GAP_ERR_VALUE when GAPLESS_FUSE names a rule that is not there. */
GAP_MUST_USE gap_status gap_fuse(gap_oplist *list, int *output, int n_outputs);

#endif

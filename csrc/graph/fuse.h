/* fuse.h — fusion: rewriting a lowered list by a table of rules, before anything is planned.
 *
 * GAPLESS_FUSE=-rule[,-rule…] leaves rules out ("-all": every one). A rule never changes a bit of what a plan computes.
 */
#ifndef GAP_GRAPH_FUSE_H
#define GAP_GRAPH_FUSE_H

#include "ops/op.h"

typedef enum {
    GAP_RULE_DEAD,     /* ops whose outputs nobody reads are dropped */
    GAP_RULE_INPLACE,  /* an op may write over an input that nobody reads any more (done by layout.c) */
    GAP_RULE_SHARE,    /* buffers that are not alive together may share memory (done by layout.c) */
    GAP_RULE_COUNT
} gap_rule;

/* Gives a bit per rule that is to be followed, as GAPLESS_FUSE says; GAP_ERR_VALUE when it names one that is not there. */
GAP_MUST_USE gap_status gap_fuse_rules(unsigned *rules);
/* Applies those that rewrite the list, in their order. output[0..n_outputs) are the values that must stay; a rule may
 * renumber them. */
GAP_MUST_USE gap_status gap_fuse(gap_oplist *list, int *output, int n_outputs, unsigned rules);

#endif

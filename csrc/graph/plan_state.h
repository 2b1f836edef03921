/* plan_state.h — what a plan is made of; shared by the files of graph/ that make, run and describe it.
 *
 * Time of a step, in whole numbers, for a list of n ops: forward of op k at k, the loss at n; then, from the last op to the
 * first, the second forward of the segment that ends there, and backward; checks and commits at the end. What is derived once
 * for many steps lives from -1. A buffer's life is an interval of it.
 *
 * Recomputing: the ops of a layer that is named are a segment. What is made within it and read by backward within it alone is
 * not kept: the ops that make it are `again`, and run a second time before the backward of the segment's last op. Everything
 * that they write stands in a second place then, which backward of the segment reads.
 */
#ifndef GAP_GRAPH_PLAN_STATE_H
#define GAP_GRAPH_PLAN_STATE_H

#include <stdatomic.h>

#include "graph/plan.h"

#define GAP_NOWHERE SIZE_MAX        /* offset of what does not exist */
#define GAP_LANE_SAMPLES 2          /* an evaluation of fewer per thread goes op by op, each op over all threads */
#define GAP_UPDATE_CHUNK 16384      /* floats: a chunk of the update phase, whatever the threads */

/* An op's place in the plan. Offsets are into the arena. */
typedef struct {
    bool active;                    /* takes part in backward */
    bool din[GAP_OP_MAX_IN], din_add[GAP_OP_MAX_IN];
    bool dweight[GAP_OP_MAX_WEIGHTS], dweight_add;
    bool again;                     /* forward runs twice */
    int again_from;                 /* before its backward, those of ops [again_from, itself] that are `again` do; -1: none */
    unsigned second;                /* GAP_NEED_IN bits: inputs that have a second place */
    bool fresh;                     /* what it derives is made at each use, and lives for that use */
    size_t workspace, workspace_again, workspace_back, saved, saved_again, derived, derived_again, derived_back;
} gap_plan_op;

/* A value's place in the plan; value 0 is the caller's and has none. */
typedef struct {
    size_t data, again, gradient;
} gap_plan_value;

/* A run of consecutive weights of one entry. */
typedef struct {
    int entry;
    size_t begin, count;            /* in floats, from the start of the plane */
} gap_plan_range;

struct gap_plan {
    gap_graph *graph;               /* borrowed, as is the store */
    gap_store *store;
    gap_plan_options opt;
    unsigned rules;                 /* of fuse.h, a bit each */
    gap_oplist list;
    int output[4];
    gap_desc output_desc[4];
    int64_t batch;                  /* the caller's capacity; opt.capacity is what goes through at once: less, in evaluation */
    int lanes;                      /* passes of an evaluation that go side by side, each in a thread and an arena of its own; 1: none do */
    gap_plan_op *op;                /* (list.n_ops) */
    gap_plan_value *value;          /* (list.n_values) */
    unsigned char *arena;           /* of `lanes` of these, the first: what is derived from the weights is in this one alone */
    size_t arena_bytes, arena_alive; /* of one; and what lives at once at most */
    size_t *gradient;               /* (store->n_entries) place in the arena; GAP_NOWHERE unless the entry learns */
    bool *trainable;                /* (store->n_entries) as they were when the plan was made */
    bool *learns;                   /* (store->n_entries) backward makes a gradient of it */
    int n_ranges;
    gap_plan_range *range;          /* over the entries that learn */
    double *range_sum;              /* (n_ranges) squares */
    int *range_bad;                 /* (n_ranges) holds something not finite */
    float *kept;                    /* the store's buffers as they were before a commit */
    float *loss;                    /* (batch) */
    double *loss_term;              /* (batch) */
    int32_t *pred;                  /* (batch) */
    uint64_t derived_version;       /* of the store when `derived` was last made; 0: never */
    bool stepped;                   /* the arena holds a step's gradients */
    gap_plan_times *times;          /* (rows + GAP_PLAN_EXTRA_ROWS); NULL: nobody asked */
};

/* What one call brings. */
typedef struct {
    int64_t n;
    const void *x;
    uint64_t seed;
    int64_t epoch, step;
    const int64_t *ids;
    int64_t first;                  /* of a pass: the place of its first sample in the batch */
    unsigned char *arena;           /* where its values stand: the plan's, or that of a lane */
    const atomic_bool *stopped;     /* NULL, or: another pass failed, this one need not go on */
} gap_plan_call;

/* recompute.c */
GAP_MUST_USE gap_status gap_plan_check_recompute(const gap_plan *p); /* every name is one of the graph's */
GAP_MUST_USE gap_status gap_plan_recompute(gap_plan *p);             /* sets again, again_from and second; `active` is known */

/* layout.c: decides who takes part in backward, and gives every buffer its place. After the ops were prepared. */
GAP_MUST_USE gap_status gap_plan_layout(gap_plan *p);

/* exec.c */
typedef enum { GAP_PHASE_DERIVE, GAP_PHASE_FORWARD, GAP_PHASE_AGAIN, GAP_PHASE_BACKWARD, GAP_PHASE_COMMIT } gap_phase;
/* What op sees in that phase; pointers to what is not alive then are NULL. */
void gap_plan_context(const gap_plan *p, int op, const gap_plan_call *call, gap_phase phase, gap_op_ctx *ctx);
GAP_MUST_USE gap_status gap_plan_run_forward(gap_plan *p, const gap_plan_call *call);  /* derives first when weights moved */
GAP_MUST_USE gap_status gap_plan_run_loss(gap_plan *p, const gap_plan_call *call, const gap_targets *y, double *mean);
GAP_MUST_USE gap_status gap_plan_run_backward(gap_plan *p, const gap_plan_call *call);

/* profile.c: around a call, `began = gap_plan_clock(p); …; gap_plan_clocked(p, row, phase, began)`. Costs a test when off. */
int64_t gap_plan_clock(const gap_plan *p);
void gap_plan_clocked(gap_plan *p, int row, gap_phase phase, int64_t began);

/* exec.c: gradient of the entry's weights, in torch's order; NULL unless it learns. */
float *gap_plan_gradient_at(const gap_plan *p, int entry);

/* update.c: everything after backward. gap_plan_update alone moves the store, whole or not at all. */
GAP_MUST_USE gap_status gap_plan_check_args(const gap_plan *p, const gap_step_args *args);
GAP_MUST_USE gap_status gap_plan_check_loss(const gap_plan *p, const gap_plan_call *call, double mean);
/* norm not NULL: also the gradient's global L2 norm. */
GAP_MUST_USE gap_status gap_plan_check_finite(gap_plan *p, const gap_plan_call *call, double *norm);
GAP_MUST_USE gap_status gap_plan_clip(gap_plan *p, double norm, double bound);
GAP_MUST_USE gap_status gap_plan_update(gap_plan *p, const gap_plan_call *call, const gap_step_args *args);

#endif

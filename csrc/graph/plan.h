/* plan.h — a graph compiled for a batch capacity: fused list, one arena, one call per step.
 *
 * A plan borrows graph, store and kernels (they must outlive it). Not thread safe; different plans are independent.
 * After the first step it allocates nothing.
 */
#ifndef GAP_GRAPH_PLAN_H
#define GAP_GRAPH_PLAN_H

#include "graph/graph.h"
#include "losses/loss.h"
#include "optim/optimizer.h"

typedef struct gap_plan gap_plan;

typedef struct {
    int64_t capacity;
    bool training;                        /* with loss and optimizer: step; else forward and evaluate only */
    gap_precision precision;
    const gap_kernels *kernels;           /* NULL: gap_kernels_find(NULL) */
    gap_input_attr input;                 /* normalisation */
    gap_dtype input_dtype;                /* GAP_U8: images (N, H, W, C); GAP_F32: (N, C, H, W) or (N, F) */
    const gap_loss_def *loss;             /* NULL: forward only */
    gap_value loss_cfg[GAP_PARAM_MAX];
    const gap_optimizer_def *optimizer;   /* NULL: gradients are made but nothing is updated, running statistics neither */
    const char *const *recompute;         /* layers whose values are made again for backward instead of kept, the same bits: names,
                                           * or what names begin with up to a dot; one segment each. Read by gap_plan_new alone */
    int n_recompute;
    bool measure;                         /* lay out only: nothing is allocated, no call runs; for gap_plan_memory_of */
} gap_plan_options;

GAP_MUST_USE gap_status gap_plan_new(gap_plan **out, gap_graph *g, gap_store *s, const gap_plan_options *options);
void gap_plan_free(gap_plan *p);

/* Evaluation forward of n <= capacity samples, in passes that threads take side by side and that a cache holds; a plan made for
 * training refuses. x as input_dtype says. out[k]: (n, …) plain, copied to the caller. */
GAP_MUST_USE gap_status gap_plan_forward(gap_plan *p, int64_t n, const void *x, float *const *out);
/* Forward and per-sample loss without gradients (evaluation semantics). out may be NULL, or its members. */
GAP_MUST_USE gap_status gap_plan_evaluate(gap_plan *p, int64_t n, const void *x, const gap_targets *y, float *loss, int32_t *pred, float *const *out);

typedef struct {
    const double *hyper;                  /* n_groups rows of optimizer->n_params values */
    int n_groups;
    double ema_decay;                     /* < 0: no EMA; else ema = d*ema + (1-d)*w over weights and buffers; a new EMA plane
                                           * starts as the weights are before the step */
    double clip_norm;                     /* <= 0: off; else the gradient's global L2 norm is bounded to it (torch's formula) */
    uint64_t seed;
    int64_t epoch, step;
    const int64_t *ids;                   /* (n) manifest indices */
} gap_step_args;

/* One training step. loss, pred: (n). *mean_loss: the batch's loss, which the gradients are of.
 * Not finite: GAP_ERR_NONFINITE names the first bad tensor (loss of sample id, gradient of layer); interrupted:
 * GAP_ERR_INTERRUPTED. In both nothing was written: weights, statistics, slots, EMA, version are as before. A weight that
 * was frozen or set to learn after the plan was made is GAP_ERR_VALUE: a plan is made for one choice. */
GAP_MUST_USE gap_status gap_plan_step(gap_plan *p, int64_t n, const void *x, const gap_targets *y, const gap_step_args *args,
                                      float *loss, int32_t *pred, double *mean_loss);
/* Gradient of a weight from the last step, in the store's (torch's) order; NULL before the first, and where the entry does not
 * learn. Borrowed, until the next step begins. */
const float *gap_plan_gradient(const gap_plan *p, int entry);

/* One row per op, after fusion. */
typedef struct {
    const char *op, *layer;
    gap_desc in, out;
    char choice[112];                     /* the op's own words on what it chose; whether it is recomputed */
    int64_t macs;
} gap_plan_row;
int gap_plan_rows(const gap_plan *p);
void gap_plan_row_at(const gap_plan *p, int k, gap_plan_row *out);

/* Where the time goes, in seconds of the calling thread. */
typedef struct { double forward, backward, derive; } gap_plan_times;
typedef enum { GAP_PLAN_ROW_LOSS, GAP_PLAN_ROW_UPDATE, GAP_PLAN_EXTRA_ROWS } gap_plan_extra_row; /* after the ops' rows; in `forward` */
/* Fills out[0 .. gap_plan_rows(p) + GAP_PLAN_EXTRA_ROWS) with what ran since the last call of this function, and begins anew.
 * The first call begins the timing (and allocates); until then a step spends nothing on it. */
GAP_MUST_USE gap_status gap_plan_profile(gap_plan *p, gap_plan_times *out);

/* Bytes. total = arena + weights + slots; the others lie in the arena, not all at the same time. alive: what lives at once at
 * most, which no packing of the arena goes below. */
typedef struct { size_t arena, weights, gradients, slots, derived, saved, workspace, alive, total; } gap_plan_memory;
gap_plan_memory gap_plan_memory_of(const gap_plan *p);

#endif

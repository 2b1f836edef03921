/* loss.h — a loss's table row. Losses take the network's plain outputs, never softmax-ed ones. */
#ifndef GAP_LOSSES_LOSS_H
#define GAP_LOSSES_LOSS_H

#include "core/param.h"
#include "core/tensor.h"
#include "kernels/kernels.h"

#define GAP_LOSS_MAX_OUTPUTS 4

/* Targets of a batch: sample s has values[offsets[s] .. offsets[s+1]). One value: a class; K values: soft targets;
 * a detector's boxes fit as well. */
typedef struct {
    int64_t n;
    const float *values;
    const int64_t *offsets;   /* (n + 1) */
} gap_targets;

/* A batch's loss under way. Samples are independent of each other once `share` is known, so any cut into ranges gives the
 * same bits; what is summed over samples is summed by gap_loss_total, in their order. */
typedef struct {
    const gap_value *cfg;
    const gap_desc *desc;           /* of a sample, per output */
    const gap_kernels *kernels;
    const float *const *output;     /* (n, …) plain, per output */
    const gap_targets *y;
    double share;                   /* the row's `share` of this batch */
    double *term;                   /* (n) out: each sample's loss, which the batch's is made of */
    float *loss;                    /* (n) out: the same, rounded */
    int32_t *pred;                  /* (n) out: class of the largest logit, ties to the lower index */
    float *const *gradient;         /* out, as the outputs: of the batch's loss; NULL in evaluation */
} gap_loss_call;

typedef struct {
    const char *name, *doc;
    const gap_param *params;
    int n_params;
    /* Do these outputs suit the loss (number, rank, class weights as long as classes)? When the plan is made. */
    gap_status (*check)(const gap_value *cfg, const gap_desc *outputs, int n_outputs);
    /* Targets in range; the message names the position in the batch. Before any work. */
    gap_status (*check_targets)(const gap_value *cfg, const gap_desc *outputs, const gap_targets *y);
    /* What each sample's loss is multiplied by in the batch's: one over the number of samples, or over their weights' sum. */
    double (*share)(const gap_value *cfg, const gap_targets *y, bool training);
    /* Losses, predictions and gradients of the samples [begin, end). With call->gradient not NULL (training) smoothing and
     * weights apply; NULL (evaluation): the plain loss on the given targets. */
    void (*forward)(const gap_loss_call *call, int64_t begin, int64_t end);
} gap_loss_def;

/* The batch's loss, when every sample has its term. */
static inline double gap_loss_total(const gap_loss_call *call) {
    double sum = 0;
    for (int64_t s = 0; s < call->y->n; s++) sum += call->term[s];
    return sum * call->share;
}

extern const gap_loss_def *const gap_loss_table[];
extern const int gap_loss_count;
const gap_loss_def *gap_loss_find(const char *name);

#endif

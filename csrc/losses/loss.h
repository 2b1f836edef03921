/* loss.h — a loss's table row. Losses take the network's plain outputs, never softmax-ed ones. */
#ifndef GAP_LOSSES_LOSS_H
#define GAP_LOSSES_LOSS_H

#include "core/param.h"
#include "core/tensor.h"

#define GAP_LOSS_MAX_OUTPUTS 4

/* Targets of a batch: sample s has values[offsets[s] .. offsets[s+1]). One value: a class; K values: soft targets;
 * a detector's boxes fit as well. */
typedef struct {
    int64_t n;
    const float *values;
    const int64_t *offsets;   /* (n + 1) */
} gap_targets;

typedef struct {
    const char *name, *doc;
    const gap_param *params;
    int n_params;
    /* Do these outputs suit the loss (number, rank, class weights as long as classes)? When the plan is made. */
    gap_status (*check)(const gap_value *cfg, const gap_desc *outputs, int n_outputs);
    /* Targets in range; the message names the position in the batch. Before any work. */
    gap_status (*check_targets)(const gap_value *cfg, const gap_desc *outputs, const gap_targets *y);
    /* Per-sample loss (n) and prediction (n, class of the largest logit, ties to the lower index). With `gradient` not NULL
     * (training: smoothing and weights apply) also gradient[k], of the batch's mean, same shape as output k; NULL (evaluation):
     * plain loss on the given targets. Returns the batch's loss (sums in index order, double). */
    double (*forward)(const gap_value *cfg, const gap_desc *desc, const float *const *outputs, const gap_targets *y,
                      float *loss, int32_t *pred, float *const *gradient);
} gap_loss_def;

extern const gap_loss_def *const gap_loss_table[];
extern const int gap_loss_count;
const gap_loss_def *gap_loss_find(const char *name);

#endif

/* optimizer.h — an optimizer's table row: slots per parameter and the update of a run of weights. */
#ifndef GAP_OPTIM_OPTIMIZER_H
#define GAP_OPTIM_OPTIMIZER_H

#include <stddef.h>

#include "core/param.h"
#include "kernels/optim.h"

typedef struct {
    const char *name, *doc;
    const gap_param *params;          /* every one is a hyper-parameter that may change from step to step */
    int n_params;
    int n_slots;
    const char *slot_names[GAP_OPTIM_MAX_SLOTS]; /* as torch names its state: "momentum_buffer", "exp_avg", … */
    /* What ranges alone cannot say about one group's values (hyper as below). NULL: nothing more to check. */
    gap_status (*check)(const double *hyper);
    /* One step on a run of weights of one group: works out its constants and calls one kernel, which moves weights, slots and
     * the moving average in one pass. hyper: a double per param, in their order (bools 0 or 1). step: 1 for the first update.
     * Slots start at zero. Elementwise: any cut of a run gives the same bits. */
    void (*update)(const gap_optim_kernels *kernels, const double *hyper, int64_t step, const gap_optim_range *r);
} gap_optimizer_def;

extern const gap_optimizer_def *const gap_optimizer_table[];
extern const int gap_optimizer_count;
const gap_optimizer_def *gap_optimizer_find(const char *name);

#endif

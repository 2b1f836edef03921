/* _adam.h — the arithmetic that Adam and AdamW share. */
#ifndef GAP_OPTIM_ADAM_SHARED_H
#define GAP_OPTIM_ADAM_SHARED_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/optim.h"

/* Places in a hyper-parameter row of Adam and AdamW. */
enum { GAP_ADAM_LR, GAP_ADAM_BETA1, GAP_ADAM_BETA2, GAP_ADAM_EPS, GAP_ADAM_DECAY, GAP_ADAM_AMSGRAD, GAP_ADAM_PARAMS };

/* One step on a run of weights; slots: exp_avg, exp_avg_sq, max_exp_avg_sq (read and written with amsgrad only).
 * decoupled: the weights shrink by (1 - lr * decay) first; else decay * weight is added to the gradient. */
void gap_adam_update(const gap_optim_kernels *kernels, const double *hyper, bool decoupled, int64_t step, const gap_optim_range *r);

#endif

/*doc
Stochastic gradient descent, with momentum, dampening and Nesterov's look-ahead.

Formula, everything elementwise:
    g = gradient + weight_decay * w
    b = g at the first step, then momentum * b + (1 - dampening) * g        (only with momentum)
    w = w - lr * (g + momentum * b  with nesterov;  b  with momentum;  else g)
Weight decay is coupled: it is multiplied by lr and passes through the momentum.
Agrees with: torch.optim.SGD, 50 steps within 1e-5 relative.  Source: Sutskever et al. 2013.
*/
#include <math.h>
#include <stdbool.h>

#include "gen/docs.h"
#include "optim/optimizer.h"

enum { LR, MOMENTUM, DAMPENING, DECAY, NESTEROV };

static const gap_param params[] = {
    {"lr", GAP_FLOAT, .dflt = 1e-3, .lo = 0, .hi = INFINITY, .doc = "learning rate"},
    {"momentum", GAP_FLOAT, .dflt = 0, .lo = 0, .hi = INFINITY, .doc = "share of the last update that is kept; 0: none"},
    {"dampening", GAP_FLOAT, .dflt = 0, .lo = -INFINITY, .hi = INFINITY, .doc = "share of the gradient kept out of the momentum"},
    {"weight_decay", GAP_FLOAT, .dflt = 0, .lo = 0, .hi = INFINITY, .doc = "L2 penalty, added to the gradient as weight_decay * w"},
    {"nesterov", GAP_BOOL, .dflt = 0, .doc = "look ahead; only with momentum > 0 and dampening = 0"},
};

/* As torch: without momentum there is nothing to look ahead to, and dampening would make the look-ahead another one. */
static gap_status check(const double *hyper) {
    if (hyper[NESTEROV] == 0 || (hyper[MOMENTUM] > 0 && hyper[DAMPENING] == 0)) return GAP_OK;
    return gap_fail(GAP_ERR_VALUE, "SGD: nesterov must go with momentum > 0 and dampening = 0, got momentum %g and dampening %g",
                    hyper[MOMENTUM], hyper[DAMPENING]);
}

static void update(const gap_optim_kernels *kernels, const double *hyper, int64_t step, const gap_optim_range *r) {
    const bool first = step == 1; /* the buffer becomes the gradient */
    const gap_optim_sgd c = {
        .lr = (float)hyper[LR], .decay = (float)hyper[DECAY], .keep = first ? 0.0f : (float)hyper[MOMENTUM],
        .take = first ? 1.0f : (float)(1.0 - hyper[DAMPENING]), .momentum = (float)hyper[MOMENTUM],
        .plain = hyper[MOMENTUM] == 0, .nesterov = hyper[NESTEROV] != 0,
    };
    kernels->sgd(r, &c);
}

const gap_optimizer_def gap_optimizer_sgd = {
    .name = "SGD", .doc = gap_optimizer_sgd_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .n_slots = 1, .slot_names = {"momentum_buffer"}, .check = check, .update = update,
};

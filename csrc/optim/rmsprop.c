/*doc
RMSProp: the gradient divided by the root of a running mean of its square.

Formula, everything elementwise:
    g = gradient + weight_decay * w
    v = alpha * v + (1 - alpha) * g^2
    d = sqrt(v) + eps;   centered: a = alpha * a + (1 - alpha) * g,  d = sqrt(v - a^2) + eps
    w = w - lr * g / d;  with momentum: b = momentum * b + g / d,  w = w - lr * b
Where rounding makes v - a^2 negative it is taken as 0 (torch gives NaN there).
Agrees with: torch.optim.RMSprop, 50 steps within 1e-5 relative.  Source: Hinton, lecture 6e; Graves 2013 (centered).
*/
#include <math.h>

#include "gen/docs.h"
#include "optim/optimizer.h"

enum { LR, ALPHA, EPS, DECAY, MOMENTUM, CENTERED };

static const gap_param params[] = {
    {"lr", GAP_FLOAT, .dflt = 1e-2, .lo = 0, .hi = INFINITY, .doc = "learning rate"},
    {"alpha", GAP_FLOAT, .dflt = 0.99, .lo = 0, .hi = 1, .doc = "decay of the mean of squared gradients, per step"},
    {"eps", GAP_FLOAT, .dflt = 1e-8, .lo = 0, .hi = INFINITY, .doc = "added to the denominator, in units of the gradient"},
    {"weight_decay", GAP_FLOAT, .dflt = 0, .lo = 0, .hi = INFINITY, .doc = "L2 penalty, added to the gradient as weight_decay * w"},
    {"momentum", GAP_FLOAT, .dflt = 0, .lo = 0, .hi = INFINITY, .doc = "share of the last update that is kept; 0: none"},
    {"centered", GAP_BOOL, .dflt = 0, .doc = "divide by the standard deviation instead of the root mean square"},
};

static void update(const gap_optim_kernels *kernels, const double *hyper, int64_t step, const gap_optim_range *r) {
    (void)step;
    const gap_optim_rmsprop c = {
        .lr = (float)hyper[LR], .alpha = (float)hyper[ALPHA], .rest = (float)(1.0 - hyper[ALPHA]), .eps = (float)hyper[EPS],
        .decay = (float)hyper[DECAY], .momentum = (float)hyper[MOMENTUM], .centered = hyper[CENTERED] != 0,
    };
    kernels->rmsprop(r, &c);
}

const gap_optimizer_def gap_optimizer_rmsprop = {
    .name = "RMSprop", .doc = gap_optimizer_rmsprop_doc, .params = params, .n_params = GAP_COUNTOF(params),
    .n_slots = 3, .slot_names = {"square_avg", "momentum_buffer", "grad_avg"}, .update = update,
};

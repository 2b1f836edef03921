/* optim.h — the update phase on a run of consecutive weights: everything elementwise, so any cut of a run gives the same bits.
 *
 * Every product, sum, quotient and root is rounded by itself (no fused multiply-add), as torch's own loops do. One pass reads
 * and writes each plane once; the moving average follows the new weight in the same pass. Pointers need 4-byte alignment.
 */
#ifndef GAP_KERNELS_OPTIM_H
#define GAP_KERNELS_OPTIM_H

#include <stdbool.h>
#include <stddef.h>

#define GAP_OPTIM_MAX_SLOTS 4

typedef struct {
    size_t n;
    float *weight;
    const float *gradient;
    float *slot[GAP_OPTIM_MAX_SLOTS];
    float *ema;      /* NULL: none; else ema += ema_move * (weight - ema), after the weight has moved */
    float ema_move;
} gap_optim_range;

/* g = gradient + decay*w;  plain: w -= lr*g;  else b = b*keep + take*g, w -= lr * (nesterov: g + momentum*b; else b). b: slot 0. */
typedef struct {
    float lr, decay, keep, take, momentum;
    bool plain, nesterov;
} gap_optim_sgd;

/* w *= shrink;  g = gradient + decay*w;  m = lerp(m, g, rest1);  v = v*beta2 + rest2*(g*g);  top = v, or with amsgrad the
 * largest v so far;  w -= step_size * (m / (sqrt(top) / root + eps)). Slots: m, v, and with amsgrad the largest v.
 * lerp goes from the nearer end, so that a weight of 1 gives the gradient exactly. */
typedef struct {
    float shrink, decay, rest1, beta2, rest2, step_size, root, eps;
    bool amsgrad;
} gap_optim_adam;

/* g = gradient + decay*w;  v = v*alpha + rest*(g*g);  centered: a = lerp(a, g, rest), d = sqrt(max(v - a*a, 0)) + eps, else
 * d = sqrt(v) + eps;  momentum > 0: b = b*momentum + g/d, w -= lr*b; else w -= lr * (g/d). Slots: v, b, a; the last two only
 * where they are used. */
typedef struct {
    float lr, alpha, rest, eps, decay, momentum;
    bool centered;
} gap_optim_rmsprop;

typedef struct {
    void (*sgd)(const gap_optim_range *r, const gap_optim_sgd *c);
    void (*adam)(const gap_optim_range *r, const gap_optim_adam *c);
    void (*rmsprop)(const gap_optim_range *r, const gap_optim_rmsprop *c);
    void (*average)(size_t n, const float *weight, float *ema, float move); /* ema += move * (weight - ema) */
    void (*scale)(size_t n, float *x, float factor);
    bool (*nonfinite)(size_t n, const float *x);                            /* holds an infinity or a NaN */
    /* As nonfinite, and *sum = sum of x^2 in double: eight chains over k mod 8, then (0+4 + 2+6) + (1+5 + 3+7). */
    bool (*nonfinite_squares)(size_t n, const float *x, double *sum);
} gap_optim_kernels;

#endif

#include <string.h>

#include "core/shape.h"
#include "core/threads.h"
#include "graph/plan_state.h"
#include "ops/scratch.h"

static void *in_arena(unsigned char *arena, size_t offset) { return offset == GAP_NOWHERE ? NULL : arena + offset; }

/* In the plan's own arena: what all lanes share, and what only a training step has. */
static void *at(const gap_plan *p, size_t offset) { return in_arena(p->arena, offset); }

static const void *value_at(const gap_plan *p, const gap_plan_call *call, int v) {
    return v == 0 ? call->x : in_arena(call->arena, p->value[v].data);
}

float *gap_plan_gradient_at(const gap_plan *p, int entry) { return p->gradient == NULL ? NULL : at(p, p->gradient[entry]); }

static void context_gradients(const gap_plan *p, int k, gap_op_ctx *ctx) {
    const gap_op *op = &p->list.op[k];
    const gap_plan_op *place = &p->op[k];
    ctx->dout = at(p, p->value[op->out[0]].gradient);
    if (op->n_out > 1) ctx->dout2 = at(p, p->value[op->out[1]].gradient);
    for (int j = 0; j < op->n_in; j++) {
        ctx->din[j] = place->din[j] ? at(p, p->value[op->in[j]].gradient) : NULL;
        ctx->din_add[j] = place->din_add[j];
    }
    for (int j = 0; j < op->n_weights; j++)
        ctx->dweight[j] = place->dweight[j] ? gap_plan_gradient_at(p, op->weight[j]) : NULL;
    ctx->dweight_add = place->dweight_add;
}

/* Values: in backward only those that it reads; where there is a second place, backward and the second forward use that. */
static void context_values(const gap_plan *p, int k, const gap_plan_call *call, gap_phase phase, gap_op_ctx *ctx) {
    const gap_op *op = &p->list.op[k];
    const gap_plan_op *place = &p->op[k];
    const bool back = phase == GAP_PHASE_BACKWARD, second = back || phase == GAP_PHASE_AGAIN;
    const unsigned needs = back ? op->backward_needs : second || phase == GAP_PHASE_FORWARD ? ~0u : 0;
    for (int j = 0; j < op->n_in; j++) {
        const int v = op->in[j];
        if (needs >> j & 1) ctx->in[j] = second && (place->second >> j & 1) ? at(p, p->value[v].again) : value_at(p, call, v);
    }
    for (int j = 0; j < (back ? 1 : op->n_out); j++)
        if (needs & GAP_NEED_OUT) ctx->out[j] = in_arena(call->arena, second && place->again ? p->value[op->out[j]].again : p->value[op->out[j]].data);
}

/* Memory of the op's own. */
static void context_own(const gap_plan *p, int k, const gap_plan_call *call, gap_phase phase, gap_op_ctx *ctx) {
    const gap_plan_op *place = &p->op[k];
    const bool back = phase == GAP_PHASE_BACKWARD, again = phase == GAP_PHASE_AGAIN;
    if (phase != GAP_PHASE_COMMIT) ctx->workspace = in_arena(call->arena, back ? place->workspace_back : again ? place->workspace_again : place->workspace);
    if (phase != GAP_PHASE_DERIVE) ctx->saved = in_arena(call->arena, (back || again) && place->saved_again != GAP_NOWHERE ? place->saved_again : place->saved);
    if (!place->fresh) ctx->derived = at(p, place->derived);
    else if (back) ctx->derived_back = at(p, place->derived_back);
    else ctx->derived = at(p, again ? place->derived_again : place->derived);
}

void gap_plan_context(const gap_plan *p, int k, const gap_plan_call *call, gap_phase phase, gap_op_ctx *ctx) {
    const gap_op *op = &p->list.op[k];
    memset(ctx, 0, sizeof *ctx);
    ctx->n = call->n, ctx->capacity = p->opt.capacity, ctx->training = p->opt.training, ctx->kernels = p->opt.kernels;
    ctx->seed = call->seed, ctx->epoch = call->epoch, ctx->ids = call->ids;
    context_values(p, k, call, phase, ctx);
    for (int j = 0; j < op->n_weights; j++) ctx->weight[j] = gap_store_data(p->store, GAP_PLANE_MASTER, op->weight[j]);
    context_own(p, k, call, phase, ctx);
    if (phase == GAP_PHASE_BACKWARD) context_gradients(p, k, ctx);
}

static gap_status in_op(gap_status st, const gap_op *op) {
    return st == GAP_OK || st == GAP_ERR_INTERRUPTED || op->layer == NULL ? st : gap_fail_in(st, "%s", op->layer);
}

/* A call of one op, which is put on the account of that phase. */
static gap_status run_op(gap_plan *p, int k, const gap_op_ctx *ctx, gap_phase phase) {
    const gap_op *op = &p->list.op[k];
    const int64_t began = gap_plan_clock(p);
    gap_status st = phase == GAP_PHASE_DERIVE     ? op->def->derive(op, ctx)
                    : phase == GAP_PHASE_BACKWARD ? op->def->backward(op, ctx)
                                                  : op->def->forward(op, ctx);
    gap_plan_clocked(p, k, phase, began);
    return in_op(st, op);
}

static gap_status run_phase(gap_plan *p, int k, const gap_plan_call *call, gap_phase phase) {
    gap_status st = GAP_OK;
    gap_op_ctx ctx;
    gap_plan_context(p, k, call, phase, &ctx);
    if (p->op[k].fresh && phase != GAP_PHASE_DERIVE) GAP_TRY(run_op(p, k, &ctx, GAP_PHASE_DERIVE));
    GAP_TRY(run_op(p, k, &ctx, phase));
done:
    return st;
}

/* What is kept between steps. */
static gap_status derive(gap_plan *p, const gap_plan_call *call) {
    if (p->derived_version == p->store->version) return GAP_OK;
    p->derived_version = 0; /* half made, should one of them stop */
    for (int k = 0; k < p->list.n_ops; k++) {
        if (p->list.op[k].def->derive == NULL || p->op[k].fresh) continue;
        gap_status st = run_phase(p, k, call, GAP_PHASE_DERIVE);
        if (st != GAP_OK) return st;
    }
    p->derived_version = p->store->version;
    return GAP_OK;
}

gap_status gap_plan_run_forward(gap_plan *p, const gap_plan_call *call) {
    gap_status st = derive(p, call);
    for (int k = 0; st == GAP_OK && k < p->list.n_ops; k++) {
        if (call->stopped != NULL && atomic_load_explicit(call->stopped, memory_order_relaxed)) break;
        st = run_phase(p, k, call, GAP_PHASE_FORWARD);
    }
    return st;
}

gap_status gap_plan_run_backward(gap_plan *p, const gap_plan_call *call) {
    gap_status st = GAP_OK;
    for (int k = p->list.n_ops - 1; st == GAP_OK && k >= 0; k--) {
        for (int j = p->op[k].again_from; st == GAP_OK && j >= 0 && j <= k; j++)
            if (p->op[j].again) st = run_phase(p, j, call, GAP_PHASE_AGAIN);
        if (st == GAP_OK && p->op[k].active) st = run_phase(p, k, call, GAP_PHASE_BACKWARD);
    }
    return st;
}

typedef struct {
    const gap_loss_def *loss;
    gap_loss_call call;
} loss_job;

enum { LOSS_CHUNK = 8 }; /* samples: they are independent of each other, so no number depends on it */

static void loss_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const loss_job *job = arg;
    job->loss->forward(&job->call, chunk * LOSS_CHUNK, gap_min64((chunk + 1) * LOSS_CHUNK, job->call.y->n));
}

gap_status gap_plan_run_loss(gap_plan *p, const gap_plan_call *call, const gap_targets *y, double *mean) {
    const float *output[GAP_LOSS_MAX_OUTPUTS]; /* (n, …) plain */
    float *gradient[GAP_LOSS_MAX_OUTPUTS];     /* as the outputs */
    int64_t floats = 0;
    for (int k = 0; k < p->graph->n_outputs; k++) {
        output[k] = value_at(p, call, p->output[k]);
        gradient[k] = at(p, p->value[p->output[k]].gradient);
        floats += y->n * gap_desc_count(&p->output_desc[k]);
    }
    int64_t began = gap_plan_clock(p);
    loss_job job = {p->opt.loss, {.cfg = p->opt.loss_cfg, .desc = p->output_desc, .kernels = p->opt.kernels, .output = output, .y = y,
                                  .share = p->opt.loss->share(p->opt.loss_cfg, y, p->opt.training), .term = p->loss_term + call->first,
                                  .loss = p->loss + call->first, .pred = p->pred + call->first, .gradient = p->opt.training ? gradient : NULL}};
    gap_status st = gap_parallel_sized(gap_ceil_div(y->n, LOSS_CHUNK), loss_chunk, &job, 8 * gap_ns_of_floats(floats));
    gap_plan_clocked(p, p->list.n_ops + GAP_PLAN_ROW_LOSS, GAP_PHASE_FORWARD, began);
    if (st == GAP_OK) *mean = gap_loss_total(&job.call);
    return st;
}

static gap_status check_call(const gap_plan *p, int64_t n, const void *x, bool training) {
    if (p->arena == NULL) return gap_fail(GAP_ERR_VALUE, "plan: it was made to be measured, and does not run");
    if (p->opt.training != training)
        return gap_fail(GAP_ERR_VALUE, training ? "plan: step needs a plan made for training"
                                                : "plan: this plan was made for training; forward and evaluate need one made without");
    if (n < 1 || n > p->batch)
        return gap_fail(GAP_ERR_VALUE, "plan: batch must be in [1, %lld], got %lld", (long long)p->batch, (long long)n);
    return x == NULL ? gap_fail(GAP_ERR_VALUE, "plan: no input") : GAP_OK;
}

static gap_status check_targets(const gap_plan *p, int64_t n, const gap_targets *y) {
    if (p->opt.loss == NULL) return gap_fail(GAP_ERR_VALUE, "plan: was made without a loss");
    if (y->n != n) return gap_fail(GAP_ERR_VALUE, "plan: %lld samples but %lld targets", (long long)n, (long long)y->n);
    return p->opt.loss->check_targets(p->opt.loss_cfg, p->output_desc, y);
}

/* Outputs of a pass to their places. */
static void copy_outputs(const gap_plan *p, const gap_plan_call *call, float *const *out) {
    for (int k = 0; out != NULL && k < p->graph->n_outputs; k++) {
        const size_t bytes = gap_desc_bytes(&p->output_desc[k]); /* of a sample */
        if (out[k] != NULL) memcpy((char *)out[k] + (size_t)call->first * bytes, value_at(p, call, p->output[k]), (size_t)call->n * bytes);
    }
}

static void copy_losses(const gap_plan *p, int64_t n, float *loss, int32_t *pred) {
    if (loss != NULL) memcpy(loss, p->loss, (size_t)n * sizeof *loss);
    if (pred != NULL) memcpy(pred, p->pred, (size_t)n * sizeof *pred);
}

/* An evaluation, cut into passes. */
typedef struct {
    gap_plan *p;
    int64_t n, most; /* samples; of a pass at most */
    const void *x;
    const gap_targets *y; /* may be NULL */
    float *const *out;
    gap_scratch lanes;
    atomic_bool stopped;
    atomic_int_fast64_t failed; /* the first pass that failed; `passes`: none did */
    atomic_bool interrupted;
} evaluation;

static gap_status run_pass(evaluation *e, int64_t pass, unsigned char *arena) {
    gap_plan *p = e->p;
    const size_t sample = (size_t)gap_desc_count(&p->graph->input) * (p->opt.input_dtype == GAP_U8 ? 1 : sizeof(float));
    const int64_t first = pass * e->most;
    const gap_plan_call call = {.n = gap_min64(e->most, e->n - first), .x = (const char *)e->x + (size_t)first * sample, .first = first,
                                .arena = arena, .stopped = &e->stopped};
    double mean;
    gap_status st = gap_plan_run_forward(p, &call);
    if (atomic_load(&e->stopped)) return st; /* half made, perhaps: nobody asks for it any more */
    if (st == GAP_OK && e->y != NULL) {
        const gap_targets part = {.n = call.n, .values = e->y->values, .offsets = e->y->offsets + first};
        st = gap_plan_run_loss(p, &call, &part, &mean);
    }
    if (st == GAP_OK) copy_outputs(p, &call, e->out);
    return st;
}

static void pass_chunk(void *arg, int64_t pass, int thread) {
    evaluation *e = arg;
    int slot;
    if (atomic_load(&e->stopped)) return;
    unsigned char *arena = gap_scratch_take(&e->lanes, thread, &slot);
    const gap_status st = run_pass(e, pass, arena);
    gap_scratch_give(&e->lanes, slot);
    if (st == GAP_OK) return;
    if (st == GAP_ERR_INTERRUPTED) atomic_store(&e->interrupted, true);
    for (int_fast64_t first = atomic_load(&e->failed); pass < first && !atomic_compare_exchange_weak(&e->failed, &first, pass);) {}
    atomic_store(&e->stopped, true);
}

/* Passes side by side: each thread takes its own through the whole network, so that threads wait for each other once, and what
 * a layer wrote is in the cache of the core that reads it. No number depends on who goes with whom. */
static gap_status run_side_by_side(evaluation *e, int64_t passes) {
    const gap_plan_call none = {.n = 1, .arena = e->p->arena};
    gap_status st = GAP_OK;
    GAP_TRY(derive(e->p, &none));
    gap_scratch_begin(&e->lanes, e->p->arena, e->p->arena_bytes, e->p->lanes);
    atomic_store(&e->failed, passes);
    GAP_TRY(gap_parallel(passes, pass_chunk, e));
    if (atomic_load(&e->interrupted)) return gap_fail(GAP_ERR_INTERRUPTED, "interrupted");
    const int64_t failed = (int64_t)atomic_load(&e->failed);
    if (failed == passes) return GAP_OK;
    atomic_store(&e->stopped, false);
    GAP_TRY(run_pass(e, failed, e->p->arena)); /* its message is in another thread: it fails here once more */
    return gap_fail(GAP_ERR_INTERNAL, "plan: a pass failed beside others, and not alone");
done:
    return st;
}

/* In passes of about equal size, each of at most opt.capacity samples; y may be NULL. */
static gap_status evaluate(gap_plan *p, int64_t n, const void *x, const gap_targets *y, float *loss, int32_t *pred, float *const *out) {
    evaluation e = {.p = p, .n = n, .x = x, .y = y, .out = out};
    const int64_t threads = gap_min64(p->lanes, gap_threads_get());
    const int64_t wide = threads > 1 && n >= GAP_LANE_SAMPLES * threads && p->times == NULL ? threads : 1;
    const int64_t most = gap_ceil_div(n, gap_ceil_div(n, wide * p->opt.capacity) * wide), passes = gap_ceil_div(n, most);
    gap_status st = GAP_OK;
    e.most = most;
    if (wide > 1) st = run_side_by_side(&e, passes);
    for (int64_t pass = 0; wide == 1 && st == GAP_OK && pass < passes; pass++) st = run_pass(&e, pass, p->arena);
    if (st == GAP_OK && y != NULL) copy_losses(p, n, loss, pred);
    return st;
}

gap_status gap_plan_forward(gap_plan *p, int64_t n, const void *x, float *const *out) {
    gap_status st = check_call(p, n, x, false);
    return st == GAP_OK ? evaluate(p, n, x, NULL, NULL, NULL, out) : st;
}

gap_status gap_plan_evaluate(gap_plan *p, int64_t n, const void *x, const gap_targets *y, float *loss, int32_t *pred,
                             float *const *out) {
    gap_status st = check_call(p, n, x, false);
    if (st == GAP_OK) st = check_targets(p, n, y);
    return st == GAP_OK ? evaluate(p, n, x, y, loss, pred, out) : st;
}

gap_status gap_plan_step(gap_plan *p, int64_t n, const void *x, const gap_targets *y, const gap_step_args *args, float *loss,
                         int32_t *pred, double *mean_loss) {
    gap_status st = GAP_OK;
    gap_plan_call call = {.n = n, .x = x, .arena = p->arena, .seed = args->seed, .epoch = args->epoch, .step = args->step, .ids = args->ids};
    double mean = 0, norm = 0;
    int64_t began;
    GAP_TRY(check_call(p, n, x, true));
    GAP_TRY(check_targets(p, n, y));
    GAP_TRY(gap_plan_check_args(p, args));
    p->stepped = false; /* the gradients' memory is the arena's */
    GAP_TRY(gap_plan_run_forward(p, &call));
    GAP_TRY(gap_plan_run_loss(p, &call, y, &mean));
    GAP_TRY(gap_plan_check_loss(p, &call, mean));
    GAP_TRY(gap_plan_run_backward(p, &call));
    p->stepped = true;
    began = gap_plan_clock(p);
    GAP_TRY(gap_plan_check_finite(p, &call, args->clip_norm > 0 ? &norm : NULL));
    if (args->clip_norm > 0) GAP_TRY(gap_plan_clip(p, norm, args->clip_norm));
    GAP_TRY(gap_plan_update(p, &call, args));
    gap_plan_clocked(p, p->list.n_ops + GAP_PLAN_ROW_UPDATE, GAP_PHASE_COMMIT, began);
    copy_losses(p, n, loss, pred);
    if (mean_loss != NULL) *mean_loss = mean;
done:
    return st;
}

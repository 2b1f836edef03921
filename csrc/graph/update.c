#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/threads.h"
#include "graph/plan_state.h"

gap_status gap_plan_check_args(const gap_plan *p, const gap_step_args *args) {
    const gap_store *s = p->store;
    if (args->ids == NULL) return gap_fail(GAP_ERR_VALUE, "step: ids must be given");
    if (!(args->ema_decay <= 1)) return gap_fail(GAP_ERR_VALUE, "step: ema_decay must be <= 1, got %g", args->ema_decay);
    if (isnan(args->clip_norm)) return gap_fail(GAP_ERR_VALUE, "step: clip_norm must be a number");
    for (int k = 0; k < s->n_entries; k++) {
        const gap_entry *e = &s->entry[k];
        if (e->trainable != p->trainable[k])
            return gap_fail(GAP_ERR_VALUE, "step: %s was %s after the plan was made: make a new plan", e->name,
                            e->trainable ? "set to learn" : "frozen");
        if (p->opt.optimizer != NULL && p->learns[k] && (e->group < 0 || e->group >= args->n_groups))
            return gap_fail(GAP_ERR_VALUE, "step: hyper has %d groups, but %s is in group %d", args->n_groups, e->name, e->group);
    }
    if (p->opt.optimizer == NULL) return GAP_OK;
    for (int k = 0; k < args->n_groups * p->opt.optimizer->n_params; k++)
        if (!isfinite(args->hyper[k]))
            return gap_fail(GAP_ERR_VALUE, "step: %s of group %d must be finite, got %g",
                            p->opt.optimizer->params[k % p->opt.optimizer->n_params].name, k / p->opt.optimizer->n_params, args->hyper[k]);
    gap_status st = GAP_OK;
    for (int g = 0; st == GAP_OK && g < args->n_groups && p->opt.optimizer->check != NULL; g++)
        st = p->opt.optimizer->check(args->hyper + g * p->opt.optimizer->n_params);
    return st;
}

/* "samples 5, 17, 3, …" into text. */
static const char *ids_text(const gap_plan_call *call, char text[96]) {
    int used = snprintf(text, 96, "sample%s", call->n == 1 ? "" : "s");
    for (int64_t k = 0; k < call->n && used < 70; k++) used += snprintf(text + used, (size_t)(96 - used), "%s %lld", k ? "," : "", (long long)call->ids[k]);
    snprintf(text + used, (size_t)(96 - used), "%s", used < 70 ? "" : ", ...");
    return text;
}

gap_status gap_plan_check_loss(const gap_plan *p, const gap_plan_call *call, double mean) {
    int64_t bad = 0, first = -1;
    for (int64_t k = 0; k < call->n; k++) {
        if (isfinite(p->loss[k])) continue;
        if (bad++ == 0) first = k;
    }
    if (bad > 0)
        return gap_fail(GAP_ERR_NONFINITE, "epoch %lld, step %lld: the loss of sample %lld is %g (%lld of the batch's %lld are not finite)",
                        (long long)call->epoch, (long long)call->step, (long long)call->ids[first], (double)p->loss[first],
                        (long long)bad, (long long)call->n);
    if (isfinite(mean)) return GAP_OK;
    return gap_fail(GAP_ERR_NONFINITE, "epoch %lld, step %lld: the batch's loss is %g", (long long)call->epoch, (long long)call->step, mean);
}

static float *range_gradient(const gap_plan *p, int64_t chunk) {
    const gap_plan_range *r = &p->range[chunk];
    return gap_plan_gradient_at(p, r->entry) + (r->begin - p->store->entry[r->entry].offset);
}

typedef struct {
    gap_plan *p;
    bool squares;
} check_job;

static void check_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const check_job *job = arg;
    const gap_plan_range *r = &job->p->range[chunk];
    const float *g = range_gradient(job->p, chunk); /* (r->count) */
    const gap_optim_kernels *kernels = job->p->opt.kernels->optim;
    job->p->range_bad[chunk] = job->squares ? kernels->nonfinite_squares(r->count, g, &job->p->range_sum[chunk]) : kernels->nonfinite(r->count, g);
}

gap_status gap_plan_check_finite(gap_plan *p, const gap_plan_call *call, double *norm) {
    check_job job = {p, norm != NULL};
    char ids[96];
    double sum = 0;
    int bad = 0, last = -1;
    gap_status st = gap_parallel_sized(p->n_ranges, check_chunk, &job, gap_ns_of_floats((int64_t)p->store->floats));
    if (st != GAP_OK) return st;
    for (int k = 0; k < p->n_ranges; k++) {
        if (norm != NULL) sum += p->range_sum[k];
        if (!p->range_bad[k]) continue;
        if (last < 0 || p->range[last].entry != p->range[k].entry) bad++;
        last = k;
    }
    if (norm != NULL) *norm = sqrt(sum);
    if (last < 0) return GAP_OK;
    /* The last of them: backward made it first, so that is where it began. */
    return gap_fail(GAP_ERR_NONFINITE, "epoch %lld, step %lld: the gradient of %s is not finite (%d of this step's gradient tensors; %s)",
                    (long long)call->epoch, (long long)call->step, p->store->entry[p->range[last].entry].name, bad, ids_text(call, ids));
}

typedef struct {
    gap_plan *p;
    float factor;
} clip_job;

static void clip_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const clip_job *job = arg;
    const gap_plan_range *r = &job->p->range[chunk];
    job->p->opt.kernels->optim->scale(r->count, range_gradient(job->p, chunk), job->factor);
}

/* As torch's clip_grad_norm_: gradients * min(1, bound / (norm + 1e-6)). */
gap_status gap_plan_clip(gap_plan *p, double norm, double bound) {
    clip_job job = {p, (float)(bound / (norm + 1e-6))};
    return job.factor < 1.0f ? gap_parallel_sized(p->n_ranges, clip_chunk, &job, gap_ns_of_floats((int64_t)p->store->floats)) : GAP_OK;
}

typedef struct {
    gap_plan *p;
    const gap_plan_call *call;
    const gap_step_args *args;
    float *master, *ema;                 /* (store->floats) */
    float *slot[GAP_OPTIM_MAX_SLOTS];
    float ema_move;                      /* 1 - decay */
    bool ema_fresh;                      /* this step made the plane */
    gap_status st;
} update_job;

/* One chunk over all: a layer used twice commits twice, in order. */
static void commit_all(void *arg, int64_t chunk, int thread) {
    (void)chunk, (void)thread;
    update_job *job = arg;
    gap_plan *p = job->p;
    for (int k = 0; job->st == GAP_OK && k < p->list.n_ops; k++) {
        const gap_op *op = &p->list.op[k];
        gap_op_ctx ctx;
        if (op->def->commit == NULL) continue;
        gap_plan_context(p, k, job->call, GAP_PHASE_COMMIT, &ctx);
        job->st = op->def->commit(op, &ctx);
    }
}

/* Weights, slots and the moving average of one range, in one pass. */
static void optimize_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const update_job *job = arg;
    const gap_optimizer_def *def = job->p->opt.optimizer;
    const gap_plan_range *range = &job->p->range[chunk];
    const gap_entry *e = &job->p->store->entry[range->entry];
    gap_optim_range r = {.n = range->count, .weight = job->master + range->begin, .gradient = range_gradient(job->p, chunk),
                         .ema = job->ema ? job->ema + range->begin : NULL, .ema_move = job->ema_move};
    for (int k = 0; k < def->n_slots; k++) r.slot[k] = job->slot[k] + range->begin;
    def->update(job->p->opt.kernels->optim, job->args->hyper + e->group * def->n_params, e->updates + 1, &r);
}

/* ema + (1 - d) * (w - ema): d * ema + (1 - d) * w, and exactly w where both are equal. Of an entry that does not learn:
 * buffers have moved, frozen weights may have been written from outside. */
static void average_entry(void *arg, int64_t entry, int thread) {
    (void)thread;
    const update_job *job = arg;
    const gap_entry *e = &job->p->store->entry[entry];
    if (!job->p->learns[entry])
        job->p->opt.kernels->optim->average(e->count, job->master + e->offset, job->ema + e->offset, job->ema_move);
}

/* All that can fail, before anything is written. A new EMA plane starts as the weights are. */
static gap_status prepare_update(update_job *job) {
    gap_plan *p = job->p;
    gap_status st = gap_store_plane(p->store, GAP_PLANE_MASTER, &job->master);
    for (int k = 0; st == GAP_OK && k < p->opt.optimizer->n_slots; k++)
        st = gap_store_plane(p->store, (gap_plane)(GAP_PLANE_SLOT0 + k), &job->slot[k]);
    if (st != GAP_OK || job->args->ema_decay < 0) return st;
    job->ema_fresh = p->store->plane[GAP_PLANE_EMA] == NULL;
    st = gap_store_plane(p->store, GAP_PLANE_EMA, &job->ema);
    if (st == GAP_OK && job->ema_fresh) memcpy(job->ema, job->master, p->store->floats * sizeof *job->ema);
    job->ema_move = (float)(1.0 - job->args->ema_decay);
    return st;
}

/* Copies every buffer of the store to the plan, or back. */
static void keep_buffers(update_job *job, bool back) {
    float *kept = job->p->kept; /* the buffers, one after the other */
    for (int k = 0; k < job->p->store->n_entries; k++) {
        const gap_entry *e = &job->p->store->entry[k];
        if (e->decl.kind != GAP_WEIGHT_BUFFER) continue;
        float *buffer = job->master + e->offset;
        memcpy(back ? buffer : kept, back ? kept : buffer, e->count * sizeof *kept);
        kept += e->count;
    }
}

/* The running statistics may overflow where neither loss nor gradients did; only moving them shows it. */
static gap_status check_buffers(const update_job *job) {
    char ids[96];
    for (int k = 0; k < job->p->store->n_entries; k++) {
        const gap_entry *e = &job->p->store->entry[k];
        if (e->decl.kind == GAP_WEIGHT_BUFFER && job->p->opt.kernels->optim->nonfinite(e->count, job->master + e->offset))
            return gap_fail(GAP_ERR_NONFINITE, "epoch %lld, step %lld: the batch's statistics would make %s not finite (%s)",
                            (long long)job->call->epoch, (long long)job->call->step, e->name, ids_text(job->call, ids));
    }
    return GAP_OK;
}

static gap_status move_buffers(update_job *job) {
    keep_buffers(job, false);
    gap_status st = gap_parallel(1, commit_all, job);
    if (st == GAP_OK) st = job->st;
    if (st == GAP_OK) st = check_buffers(job);
    if (st != GAP_OK) keep_buffers(job, true);
    return st;
}

/* Floats of the entries that do not learn. */
static size_t unlearnt(const gap_plan *p) {
    size_t floats = 0;
    for (int k = 0; k < p->store->n_entries; k++)
        if (!p->learns[k]) floats += p->store->entry[k].count;
    return floats;
}

static gap_status write_all(update_job *job) {
    gap_plan *p = job->p;
    gap_store *s = p->store;
    gap_status st = move_buffers(job);
    if (st != GAP_OK) { /* nothing was written */
        if (job->ema_fresh) gap_buf_unref(&s->plane[GAP_PLANE_EMA]);
        return st;
    }
    s->version++;
    st = gap_parallel_sized(p->n_ranges, optimize_chunk, job, gap_ns_of_floats((int64_t)s->floats));
    for (int k = 0; k < s->n_entries; k++) s->entry[k].updates += p->learns[k];
    if (st == GAP_OK && job->ema != NULL) st = gap_parallel_sized(s->n_entries, average_entry, job, gap_ns_of_floats((int64_t)unlearnt(p)));
    return st;
}

gap_status gap_plan_update(gap_plan *p, const gap_plan_call *call, const gap_step_args *args) {
    update_job job = {.p = p, .call = call, .args = args};
    gap_interrupted_fn *poll;
    void *cookie;
    if (p->opt.optimizer == NULL) return GAP_OK; /* gradients were all that was asked for */
    gap_status st = prepare_update(&job);
    if (st != GAP_OK) return st;
    gap_interrupt_set(NULL, NULL, &poll, &cookie); /* from here on a step is finished, not stopped */
    st = write_all(&job);
    gap_interrupt_set(poll, cookie, NULL, NULL);
    return st;
}

#include "graph/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "core/shape.h"
#include "graph/fuse.h"
#include "graph/plan_state.h"
#include "ops/scratch.h"

void gap_plan_free(gap_plan *p) {
    if (p == NULL) return;
    gap_oplist_free(&p->list);
    gap_free(p->op);
    gap_free(p->value);
    gap_free(p->arena);
    gap_free(p->gradient);
    gap_free(p->trainable);
    gap_free(p->learns);
    gap_free(p->range);
    gap_free(p->range_sum);
    gap_free(p->range_bad);
    gap_free(p->kept);
    gap_free(p->loss);
    gap_free(p->loss_term);
    gap_free(p->pred);
    gap_free(p->times);
    gap_free(p);
}

static gap_status check_options(const gap_plan_options *o, const gap_graph *g) {
    int64_t samples;
    if (o->capacity < 1 || o->capacity > INT32_MAX)
        return gap_fail(GAP_ERR_VALUE, "plan: batch must be in [1, %d], got %lld", INT32_MAX, (long long)o->capacity);
    if (o->training && o->loss == NULL) return gap_fail(GAP_ERR_VALUE, "plan: training needs a loss");
    if (o->optimizer != NULL && o->optimizer->n_slots > GAP_OPTIM_MAX_SLOTS)
        return gap_fail(GAP_ERR_INTERNAL, "plan: %s asks for too many slots", o->optimizer->name);
    if (o->input.n != 0 && g->input.ndim == 3 && o->input.n != g->input.dim[0])
        return gap_fail(GAP_ERR_SHAPE, "plan: mean and std have %d numbers, but images have %lld channels", o->input.n,
                        (long long)g->input.dim[0]);
    return gap_size_mul(&samples, o->capacity, gap_desc_count(&g->input));
}

/* Lowers, fuses, and lets every op decide. */
static gap_status build_list(gap_plan *p) {
    gap_status st = GAP_OK;
    gap_op_env env = {p->opt.capacity, p->opt.training, p->opt.precision, p->opt.kernels, p->trainable};
    gap_oplist_init(&p->list, p->opt.training);
    GAP_TRY(gap_graph_lower(p->graph, p->store, &p->opt.input, p->opt.input_dtype, &p->list, p->output));
    GAP_TRY(gap_fuse_rules(&p->rules));
    if (p->opt.n_recompute > 0) /* a second run writes to places of its own; and a segment's values would be kept for the next one's backward */
        p->rules &= ~(1u << GAP_RULE_SLICES | 1u << GAP_RULE_JOIN_BACK);
    GAP_TRY(gap_fuse(&p->list, p->output, p->graph->n_outputs, &env, p->rules));
    for (int v = 0; v < p->list.n_values; v++) /* before ops multiply by the batch */
        if (gap_desc_stored(&p->list.value[v]) > (GAP_SIZE_MOST << 12) / p->opt.capacity)
            return gap_fail(GAP_ERR_MEMORY, "plan: a batch of %lld needs more memory than can be addressed", (long long)p->opt.capacity);
    for (int k = 0; k < p->list.n_ops; k++) {
        gap_op *op = &p->list.op[k];
        if (op->def->prepare == NULL) continue;
        st = op->def->prepare(op, &env);
        if (st != GAP_OK) return op->layer != NULL ? gap_fail_in(st, "%s", op->layer) : st;
    }
    for (int k = 0; k < p->graph->n_outputs; k++) p->output_desc[k] = p->list.value[p->output[k]];
done:
    return st;
}

/* Runs of at most GAP_UPDATE_CHUNK weights over the entries that learn: the chunks of checks and optimizer. */
static gap_status cut_ranges(gap_plan *p) {
    gap_status st = GAP_OK;
    const gap_store *s = p->store;
    int n = 0;
    for (int k = 0; k < s->n_entries; k++)
        if (p->learns[k]) n += (int)((s->entry[k].count + GAP_UPDATE_CHUNK - 1) / GAP_UPDATE_CHUNK);
    GAP_TRY(GAP_NEW_ARRAY(p->range, n));
    GAP_TRY(GAP_NEW_ARRAY(p->range_sum, n));
    GAP_TRY(GAP_NEW_ARRAY(p->range_bad, n));
    for (int k = 0; k < s->n_entries; k++) {
        const gap_entry *e = &s->entry[k];
        for (size_t at = 0; p->learns[k] && at < e->count; at += GAP_UPDATE_CHUNK) {
            size_t left = e->count - at;
            p->range[p->n_ranges++] = (gap_plan_range){k, e->offset + at, left < GAP_UPDATE_CHUNK ? left : GAP_UPDATE_CHUNK};
        }
    }
done:
    return st;
}

static gap_status make_slots(gap_plan *p) {
    float *ignored;
    gap_status st = GAP_OK;
    for (int k = 0; st == GAP_OK && p->opt.optimizer != NULL && k < p->opt.optimizer->n_slots; k++)
        st = gap_store_plane(p->store, (gap_plane)(GAP_PLANE_SLOT0 + k), &ignored);
    return st;
}

static gap_status allocate(gap_plan *p) {
    gap_status st = GAP_OK;
    size_t buffers = 0; /* floats */
    if (p->lanes == 1) GAP_TRY(gap_alloc(&p->arena, p->arena_bytes, 1));
    else GAP_TRY(gap_alloc_dirty(&p->arena, (size_t)p->lanes, p->arena_bytes)); /* what no lane writes is never in memory */
    GAP_TRY(GAP_NEW_ARRAY(p->loss, p->batch));
    GAP_TRY(GAP_NEW_ARRAY(p->loss_term, p->batch));
    GAP_TRY(GAP_NEW_ARRAY(p->pred, p->batch));
    if (!p->opt.training) return GAP_OK;
    GAP_TRY(cut_ranges(p));
    for (int k = 0; k < p->store->n_entries; k++)
        if (p->store->entry[k].decl.kind == GAP_WEIGHT_BUFFER) buffers += p->store->entry[k].count;
    GAP_TRY(GAP_NEW_ARRAY(p->kept, buffers));
    GAP_TRY(make_slots(p));
done:
    return st;
}

/* How many passes of an evaluation may go side by side. OpenBLAS has threads of its own. */
static int lanes_of(const gap_plan_options *o, int64_t batch) {
    if (o->training || o->kernels->blas != NULL) return 1;
    return (int)gap_max64(1, gap_min64(gap_threads_get(), batch / GAP_LANE_SAMPLES));
}

/* Samples of an evaluation that go through the whole network together. No number depends on it; so it is as many as keep
 * the values between ops of all lanes in a cache of this size, unless reading the weights for so few costs more than the
 * values do. */
#define GAP_PASS_CACHE ((size_t)24 << 20)
#define GAP_PASS_CACHE_LEAST ((size_t)4 << 20) /* of a lane: many threads have more cache together */
static int64_t pass_size(const gap_plan *p, int lanes) {
    const double batch = (double)p->opt.capacity, most = ceil(batch / lanes);
    double derived = 0, moved = 0; /* bytes: packed weights; values written and read, of one sample */
    for (int k = 0; k < p->list.n_ops; k++) {
        const gap_op *op = &p->list.op[k];
        derived += (double)op->derived_bytes;
        for (int j = 0; j < op->n_out; j++) moved += 2.0 * sizeof(float) * (double)gap_desc_stored(&op->out_desc[j]);
    }
    const double alive = ((double)p->arena_alive - derived) / batch;
    const double weights = fmax(derived, (double)(p->store->floats * sizeof(float)));
    const double cache = fmax((double)GAP_PASS_CACHE / lanes, (double)GAP_PASS_CACHE_LEAST);
    const double fit = alive > 0 ? floor(cache / alive) : batch;
    if (fit >= most || fit < 1 || p->opt.kernels->blas != NULL) return (int64_t)most;
    return weights / fit < weights / most + moved / 2 ? (int64_t)fit : (int64_t)most;
}

/* Lays a plan out for so many samples at once; nothing is allocated for its calls. */
static gap_status lay_out(gap_plan **out, gap_graph *g, gap_store *s, const gap_plan_options *options, int64_t capacity) {
    gap_status st = GAP_OK;
    gap_plan *p = NULL;
    GAP_TRY(GAP_NEW(p));
    p->graph = g, p->store = s, p->opt = *options;
    p->batch = options->capacity, p->opt.capacity = capacity, p->lanes = 1;
    if (p->opt.kernels == NULL) GAP_TRY(gap_kernels_find(&p->opt.kernels, NULL));
    GAP_TRY(GAP_NEW_ARRAY(p->trainable, s->n_entries));
    GAP_TRY(GAP_NEW_ARRAY(p->learns, s->n_entries));
    GAP_TRY(GAP_NEW_ARRAY(p->gradient, s->n_entries));
    for (int k = 0; k < s->n_entries; k++) p->trainable[k] = s->entry[k].trainable;
    GAP_TRY(gap_plan_check_recompute(p));
    GAP_TRY(build_list(p));
    if (p->opt.loss != NULL) GAP_TRY(p->opt.loss->check(p->opt.loss_cfg, p->output_desc, g->n_outputs));
    GAP_TRY(GAP_NEW_ARRAY(p->op, p->list.n_ops));
    GAP_TRY(GAP_NEW_ARRAY(p->value, p->list.n_values));
    GAP_TRY(gap_plan_layout(p));
    p->opt.recompute = NULL, p->opt.n_recompute = 0; /* the caller's, who may take it back */
    *out = p, p = NULL;
done:
    gap_plan_free(p);
    return st;
}

gap_status gap_plan_new(gap_plan **out, gap_graph *g, gap_store *s, const gap_plan_options *options) {
    gap_status st = GAP_OK;
    gap_plan *p = NULL;
    GAP_TRY(check_options(options, g));
    if (s->plane[GAP_PLANE_MASTER] == NULL) return gap_fail(GAP_ERR_VALUE, "plan: the store must be sealed first");
    GAP_TRY(lay_out(&p, g, s, options, options->capacity));
    const int lanes = lanes_of(&p->opt, options->capacity);
    const int64_t pass = options->training ? options->capacity : pass_size(p, lanes);
    if (pass < options->capacity) {
        gap_plan_free(p), p = NULL;
        GAP_TRY(lay_out(&p, g, s, options, pass));
    }
    p->lanes = lanes;
    if (lanes > 1) p->arena_bytes = gap_scratch_round(p->arena_bytes);
    if (!options->measure) GAP_TRY(allocate(p));
    *out = p, p = NULL;
done:
    gap_plan_free(p);
    return st;
}

const float *gap_plan_gradient(const gap_plan *p, int entry) { return p->stepped ? gap_plan_gradient_at(p, entry) : NULL; }

int gap_plan_rows(const gap_plan *p) { return p->list.n_ops; }

/* As gap_graph_macs: weights of matrices and windows, once per output pixel. */
static int64_t op_macs(const gap_plan *p, const gap_op *op) {
    int64_t total = 0, pixels = 1;
    for (int k = 1; k < op->out_desc[0].ndim; k++) pixels *= op->out_desc[0].dim[k];
    for (int k = 0; k < op->n_weights; k++) {
        const gap_entry *e = op->weight[k] >= 0 ? &p->store->entry[op->weight[k]] : NULL;
        if (e != NULL && e->decl.ndim >= 2) total += (int64_t)e->count * pixels;
    }
    return total;
}

void gap_plan_row_at(const gap_plan *p, int k, gap_plan_row *out) {
    const gap_op *op = &p->list.op[k];
    memset(out, 0, sizeof *out);
    out->op = op->def->name;
    out->layer = op->layer != NULL ? op->layer : "";
    out->in = op->in_desc[0];
    out->out = op->out_desc[0];
    out->macs = op_macs(p, op);
    if (op->def->describe != NULL) op->def->describe(op, out->choice, sizeof out->choice);
    if (!p->op[k].again) return;
    const size_t used = strlen(out->choice);
    snprintf(out->choice + used, sizeof out->choice - used, "%srecomputed", used > 0 ? "; " : "");
}

gap_plan_memory gap_plan_memory_of(const gap_plan *p) {
    gap_plan_memory m = {.arena = p->arena_bytes, .alive = p->arena_alive};
    m.weights = p->store->floats * sizeof(float);
    if (p->opt.training && p->opt.optimizer != NULL) m.slots = (size_t)p->opt.optimizer->n_slots * m.weights;
    for (int k = 0; k < p->store->n_entries; k++)
        if (p->learns[k]) m.gradients += p->store->entry[k].count * sizeof(float);
    for (int k = 0; k < p->list.n_ops; k++) {
        const gap_op *op = &p->list.op[k];
        m.derived += op->derived_bytes + op->derived_back_bytes;
        m.saved += op->saved_bytes;
        if (op->workspace_bytes > m.workspace) m.workspace = op->workspace_bytes;
    }
    m.arena += (size_t)(p->lanes - 1) * (m.arena - m.derived); /* a lane has values and workspaces of its own */
    m.alive += (size_t)(p->lanes - 1) * (m.alive - m.derived);
    m.total = m.arena + m.weights + m.slots;
    return m;
}

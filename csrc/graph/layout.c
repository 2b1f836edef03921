#include <string.h>

#include "core/memory.h"
#include "graph/arena.h"
#include "graph/fuse.h"
#include "graph/plan_state.h"
#include "ops/ops.h"

/* What is found out about a list on the way to its layout. A place is where a value stands: place v is the first of value v,
 * place n_values + v the one that a second forward writes. */
typedef struct {
    gap_plan *p;
    int n_ops, n_values, n_places;
    int *again, *back, end;     /* (n_ops) times of the second forward (where there is one) and of backward; of the end */
    int *producer;              /* (n_values) op, or -1 */
    bool *wanted;               /* (n_values) a gradient of it would reach a weight */
    bool *has_gradient;         /* (n_values) backward makes one */
    int *gradient_first;        /* (n_values) time it is first written */
    int *gradient_last;         /* (n_values) time it is last read */
    int *gradient_root;         /* (n_values) value whose gradient's memory it uses: itself, unless it is made in place */
    int *last;                  /* (n_places) time of the last read */
    int *root;                  /* (n_places) place whose memory it uses: itself, unless it is written in place */
    int *whole;                 /* (n_values) the concatenation in which it stands, or -1 */
    int *gradient_of;           /* (n_entries) time its gradient is first written */
    int n_buffers;
    gap_lifetime *buffer;
    size_t **place;             /* (n_buffers) where the offset goes */
} layout;

/* Where op k finds its input j, and leaves its output j, in forward; or in a second forward and backward. */
static int in_place(const layout *l, int k, int j, bool second) {
    return l->p->list.op[k].in[j] + (second && (l->p->op[k].second >> j & 1) ? l->n_values : 0);
}
static int out_place(const layout *l, int k, int j, bool second) {
    return l->p->list.op[k].out[j] + (second && l->p->op[k].again ? l->n_values : 0);
}

static void find_wholes(layout *l) {
    for (int v = 0; v < l->n_values; v++) l->whole[v] = -1;
    for (int k = 0; k < l->n_ops; k++) {
        const gap_op *op = &l->p->list.op[k];
        for (int j = 0; j < op->n_in; j++)
            if (gap_concat_slice(op, j) >= 0) l->whole[op->in[j]] = op->out[0];
    }
}

static bool op_learns(const layout *l, int k) {
    const gap_op *op = &l->p->list.op[k];
    for (int j = 0; j < op->n_weights; j++)
        if (op->weight[j] >= 0 && l->p->trainable[op->weight[j]]) return true;
    return false;
}

/* A gradient that op k has of its input j would reach a weight. */
static bool passes_on(const layout *l, int k, int j) {
    const gap_op *op = &l->p->list.op[k];
    return l->wanted[op->in[j]] && !(op->no_gradient >> j & 1);
}

static bool op_reads_wanted(const layout *l, int k) {
    const gap_op *op = &l->p->list.op[k];
    for (int j = 0; j < op->n_in; j++)
        if (passes_on(l, k, j)) return true;
    return false;
}

static void find_wanted(layout *l) {
    for (int k = 0; k < l->n_ops; k++) {
        const gap_op *op = &l->p->list.op[k];
        for (int j = 0; j < op->n_out; j++) l->producer[op->out[j]] = k;
        for (int j = 0; j < op->n_out; j++)
            l->wanted[op->out[j]] = l->p->opt.training && op->def->backward != NULL && (op_learns(l, k) || op_reads_wanted(l, k));
    }
}

/* Which weights op k writes gradients of; a layer's second use (first in backward) adds to what is there. */
static gap_status want_weights(layout *l, int k) {
    gap_plan_op *place = &l->p->op[k];
    const gap_op *op = &l->p->list.op[k];
    int fresh = 0, again = 0;
    for (int j = 0; j < op->n_weights; j++) {
        int e = op->weight[j];
        place->dweight[j] = e >= 0 && l->p->trainable[e];
        if (!place->dweight[j]) continue;
        if (l->p->learns[e]) again++;
        else fresh++;
        l->p->learns[e] = true;
    }
    place->dweight_add = again > 0;
    return fresh > 0 && again > 0 ? gap_fail(GAP_ERR_INTERNAL, "in %s: some weights are shared and some are not", op->layer) : GAP_OK;
}

/* Walks backward as a step will: the first op to reach a value overwrites its gradient, later ones add. */
static gap_status plan_backward(layout *l) {
    gap_plan *p = l->p;
    for (int k = 0; p->opt.training && k < p->graph->n_outputs; k++) {
        if (l->has_gradient[p->output[k]]) return gap_fail(GAP_ERR_VALUE, "plan: one value is two outputs; training needs them apart");
        l->has_gradient[p->output[k]] = true;
    }
    for (int k = l->n_ops - 1; p->opt.training && k >= 0; k--) {
        const gap_op *op = &p->list.op[k];
        p->op[k].active = l->wanted[op->out[0]] && l->has_gradient[op->out[0]];
        if (!p->op[k].active) continue;
        for (int j = 0; j < op->n_in; j++) {
            int v = op->in[j];
            p->op[k].din[j] = passes_on(l, k, j);
            p->op[k].din_add[j] = p->op[k].din[j] && l->has_gradient[v];
            l->has_gradient[v] |= p->op[k].din[j];
        }
        gap_status st = want_weights(l, k);
        if (st != GAP_OK) return st;
    }
    return GAP_OK;
}

/* When everything runs; and when gradients, of values and of weights, are first written. */
static void set_times(layout *l) {
    gap_plan *p = l->p;
    int now = l->n_ops + 1; /* after the loss */
    for (int v = 0; v < l->n_values; v++) l->gradient_first[v] = l->n_ops;
    for (int k = l->n_ops - 1; k >= 0; k--) {
        const gap_op *op = &p->list.op[k];
        for (int j = p->op[k].again_from; j >= 0 && j <= k; j++)
            if (p->op[j].again) l->again[j] = now++;
        l->back[k] = now++;
        for (int j = 0; j < op->n_in; j++)
            if (p->op[k].din[j] && !p->op[k].din_add[j]) l->gradient_first[op->in[j]] = l->back[k];
        for (int j = 0; j < op->n_weights; j++)
            if (p->op[k].dweight[j] && !p->op[k].dweight_add) l->gradient_of[op->weight[j]] = l->back[k];
    }
    l->end = now;
}

static void reach(layout *l, int place, int time) {
    if (l->last[place] < time) l->last[place] = time;
}

static void reach_forward(layout *l, int k, int time, bool second) {
    const gap_op *op = &l->p->list.op[k];
    for (int j = 0; j < op->n_in; j++) reach(l, in_place(l, k, j, second), time);
    for (int j = 0; j < op->n_out; j++) reach(l, out_place(l, k, j, second), time);
}

static void find_last_reads(layout *l) {
    gap_plan *p = l->p;
    for (int k = 0; k < l->n_ops; k++) {
        const gap_op *op = &p->list.op[k];
        reach_forward(l, k, k, false);
        if (p->op[k].again) reach_forward(l, k, l->again[k], true);
        if (!p->op[k].active) continue;
        for (int j = 0; j < op->n_in; j++)
            if (op->backward_needs >> j & 1) reach(l, in_place(l, k, j, true), l->back[k]);
        if (op->backward_needs & GAP_NEED_OUT) reach(l, out_place(l, k, 0, true), l->back[k]);
    }
    for (int k = 0; k < p->graph->n_outputs; k++) reach(l, p->output[k], l->n_ops);
    for (int v = 0; v < l->n_values; v++)
        if (l->whole[v] >= 0) reach(l, l->whole[v], l->last[v]);
}

/* Lets an op write over its input when nobody reads that any more. */
static void try_in_place(layout *l, int k, int time, bool second) {
    const gap_op *op = &l->p->list.op[k];
    const gap_desc *in = &op->in_desc[0], *out = &op->out_desc[0];
    const int v = in_place(l, k, 0, second);
    bool can = op->def->inplace_ok && op->n_out == 1 && op->in[0] != 0 && l->last[v] == time && in->per_batch == out->per_batch && in->skip == out->skip &&
               gap_desc_bytes(in) == gap_desc_bytes(out);
    for (int j = 1; j < op->n_in; j++) can = can && in_place(l, k, j, second) != v;
    if (can) l->root[out_place(l, k, 0, second)] = l->root[v];
}

static void find_in_place(layout *l) {
    for (int v = 0; v < l->n_places; v++) l->root[v] = v;
    if (!(l->p->rules >> GAP_RULE_INPLACE & 1)) return;
    for (int k = 0; k < l->n_ops; k++) try_in_place(l, k, k, false);
    for (int k = 0; k < l->n_ops; k++) /* within a segment the order is that of forward */
        if (l->p->op[k].again) try_in_place(l, k, l->again[k], true);
}

static bool same_gradient(const layout *l, int a, int b) {
    const gap_desc *x = &l->p->list.gradient[a], *y = &l->p->list.gradient[b];
    return x->per_batch == y->per_batch && x->skip == y->skip && gap_desc_bytes(x) == gap_desc_bytes(y);
}

/* When another op than k first writes to v's gradient, or its own producer may write over it; past the end: never. */
static int next_write(const layout *l, int v, int k) {
    int time = l->producer[v] >= 0 ? l->back[l->producer[v]] : l->end;
    for (int c = 0; c < l->n_ops; c++)
        for (int j = 0; c != k && j < l->p->list.op[c].n_in; j++)
            if (l->p->list.op[c].in[j] == v && l->p->op[c].din[j] && l->back[c] < time) time = l->back[c];
    return time;
}

/* Lets backward make the gradient of an input where the output's stood. Two inputs may share it when the first is read for
 * the last time before anybody else writes to the other. */
static void find_gradient_in_place(layout *l) {
    for (int v = 0; v < l->n_values; v++) {
        const int k = l->producer[v];
        l->gradient_root[v] = v;
        l->gradient_last[v] = k >= 0 && l->p->op[k].active ? l->back[k] : l->gradient_first[v]; /* else only a loss writes it */
    }
    for (int v = 0; v < l->n_values; v++)
        if (l->whole[v] >= 0 && l->gradient_last[l->whole[v]] < l->gradient_last[v]) l->gradient_last[l->whole[v]] = l->gradient_last[v];
    for (int k = l->n_ops - 1; k >= 0; k--) {
        const gap_op *op = &l->p->list.op[k];
        const int out = op->out[0];
        int shared = -1; /* value that uses the memory already */
        if (!(l->p->rules >> GAP_RULE_INPLACE & 1) || !l->p->op[k].active) continue;
        for (int j = 0; j < op->n_in; j++) {
            const int v = op->in[j];
            bool can = (op->gradient_inplace >> j & 1) && l->p->op[k].din[j] && !l->p->op[k].din_add[j] && same_gradient(l, v, out);
            for (int i = 0; i < op->n_in; i++) can = can && (i == j || op->in[i] != v);
            if (can && shared >= 0)
                can = l->gradient_last[shared] < next_write(l, v, k) && l->gradient_last[v] > l->gradient_last[shared];
            if (!can) continue;
            l->gradient_root[v] = l->gradient_root[out];
            shared = v;
        }
    }
    for (int v = 0; v < l->n_values; v++) {
        const int root = l->gradient_root[v];
        if (root != v && l->gradient_last[root] < l->gradient_last[v]) l->gradient_last[root] = l->gradient_last[v];
    }
}

/* Of a batch: build_list has refused what would not fit. */
static size_t desc_bytes(const layout *l, const gap_desc *d) { return gap_desc_bytes(d) * (d->per_batch ? 1 : (size_t)l->p->opt.capacity); }

static void add_buffer(layout *l, size_t bytes, int first, int last, size_t *place) {
    *place = GAP_NOWHERE;
    if (bytes == 0) return;
    if (!(l->p->rules >> GAP_RULE_SHARE & 1)) first = -1, last = l->end;
    l->buffer[l->n_buffers] = (gap_lifetime){.bytes = bytes, .first = first, .last = last};
    l->place[l->n_buffers++] = place;
}

/* When value v is first written: by its producer, or by the first that leaves a part there. */
static int first_write(const layout *l, int v) {
    int first = l->producer[v];
    for (int part = 0; part < l->n_values; part++)
        if (l->whole[part] == v && l->producer[part] < first) first = l->producer[part];
    return first;
}

static void add_value_buffers(layout *l) {
    gap_plan *p = l->p;
    for (int v = 0; v < l->n_places; v++) /* a root lives as long as the last place written over it */
        if (l->root[v] != v) reach(l, l->root[v], l->last[v]);
    for (int v = 0; v < l->n_values; v++) {
        size_t bytes = desc_bytes(l, &p->list.value[v]), gradient = desc_bytes(l, &p->list.gradient[v]);
        const int k = l->producer[v], again = l->n_values + v;
        if (l->whole[v] >= 0) bytes = gradient = 0; /* a part of that */
        add_buffer(l, k >= 0 && l->root[v] == v ? bytes : 0, first_write(l, v), l->last[v], &p->value[v].data);
        const bool twice = k >= 0 && p->op[k].again;
        add_buffer(l, twice && l->root[again] == again ? bytes : 0, twice ? l->again[k] : 0, l->last[again], &p->value[v].again);
        add_buffer(l, l->has_gradient[v] && l->gradient_root[v] == v ? gradient : 0, l->gradient_first[v], l->gradient_last[v],
                   &p->value[v].gradient);
    }
}

/* What an op remembers: until backward, or until the commit; where forward runs twice and nothing is committed, the first
 * run's is forgotten. */
static void add_saved(layout *l, int k) {
    const gap_op *op = &l->p->list.op[k];
    gap_plan_op *place = &l->p->op[k];
    const bool commits = l->p->opt.training && op->def->commit != NULL, twice = place->again && !commits;
    const int kept = commits ? l->end : place->active && !twice ? l->back[k] : k;
    add_buffer(l, op->saved_bytes, k, kept, &place->saved);
    add_buffer(l, twice ? op->saved_bytes : 0, l->again[k], place->active ? l->back[k] : l->again[k], &place->saved_again);
}

/* A step moves the weights, so that what is derived from them serves one step anyway: it is made where it is used. */
static void add_derived(layout *l, int k) {
    const gap_op *op = &l->p->list.op[k];
    gap_plan_op *place = &l->p->op[k];
    place->fresh = op->derived_back_bytes > 0;
    add_buffer(l, op->derived_bytes, place->fresh ? k : -1, place->fresh ? k : l->end, &place->derived);
    add_buffer(l, place->fresh && place->again ? op->derived_bytes : 0, l->again[k], l->again[k], &place->derived_again);
    add_buffer(l, place->active ? op->derived_back_bytes : 0, l->back[k], l->back[k], &place->derived_back);
}

static void add_op_buffers(layout *l) {
    gap_plan *p = l->p;
    for (int k = 0; k < l->n_ops; k++) {
        const gap_op *op = &p->list.op[k];
        gap_plan_op *place = &p->op[k];
        add_buffer(l, op->workspace_bytes, k, k, &place->workspace);
        add_buffer(l, place->again ? op->workspace_bytes : 0, l->again[k], l->again[k], &place->workspace_again);
        add_buffer(l, place->active ? op->workspace_bytes : 0, l->back[k], l->back[k], &place->workspace_back);
        add_saved(l, k);
        add_derived(l, k);
    }
    for (int e = 0; e < p->store->n_entries; e++)
        add_buffer(l, p->learns[e] ? p->store->entry[e].count * sizeof(float) : 0, l->gradient_of[e], l->end, &p->gradient[e]);
}

static gap_status layout_new(layout *l, gap_plan *p) {
    gap_status st = GAP_OK;
    const int n_values = p->list.n_values, n_places = 2 * n_values, n_entries = p->store->n_entries;
    const int most = 3 * n_values + 8 * p->list.n_ops + n_entries;
    *l = (layout){.p = p, .n_ops = p->list.n_ops, .n_values = n_values, .n_places = n_places};
    GAP_TRY(GAP_NEW_ARRAY(l->again, l->n_ops));
    GAP_TRY(GAP_NEW_ARRAY(l->back, l->n_ops));
    GAP_TRY(GAP_NEW_ARRAY(l->gradient_of, n_entries));
    GAP_TRY(GAP_NEW_ARRAY(l->producer, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->wanted, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->has_gradient, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->gradient_first, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->gradient_last, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->gradient_root, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->whole, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->last, n_places));
    GAP_TRY(GAP_NEW_ARRAY(l->root, n_places));
    GAP_TRY(GAP_NEW_ARRAY(l->buffer, most));
    GAP_TRY(GAP_NEW_ARRAY(l->place, most));
    for (int v = 0; v < n_values; v++) l->producer[v] = -1;
done:
    return st;
}

static void layout_free(layout *l) {
    gap_free(l->again);
    gap_free(l->back);
    gap_free(l->gradient_of);
    gap_free(l->producer);
    gap_free(l->wanted);
    gap_free(l->has_gradient);
    gap_free(l->gradient_first);
    gap_free(l->gradient_last);
    gap_free(l->gradient_root);
    gap_free(l->whole);
    gap_free(l->last);
    gap_free(l->root);
    gap_free(l->buffer);
    gap_free(l->place);
}

static void set_parts(layout *l) {
    for (int k = 0; k < l->n_ops; k++) {
        const gap_op *op = &l->p->list.op[k];
        const gap_plan_value *whole = &l->p->value[op->out[0]];
        for (int j = 0; j < op->n_in; j++) {
            const int64_t floats = gap_concat_slice(op, j);
            if (floats < 0) continue;
            gap_plan_value *part = &l->p->value[op->in[j]];
            part->data = whole->data + (size_t)floats * sizeof(float);
            if (l->has_gradient[op->in[j]]) part->gradient = whole->gradient + (size_t)floats * sizeof(float);
        }
    }
}

/* The offset that place v has in the arena. */
static size_t *offset_of(const layout *l, int v) { return v < l->n_values ? &l->p->value[v].data : &l->p->value[v - l->n_values].again; }

gap_status gap_plan_layout(gap_plan *p) {
    gap_status st = GAP_OK;
    layout l;
    GAP_TRY(layout_new(&l, p));
    find_wanted(&l);
    find_wholes(&l);
    GAP_TRY(plan_backward(&l));
    GAP_TRY(gap_plan_recompute(p));
    set_times(&l);
    find_last_reads(&l);
    find_in_place(&l);
    find_gradient_in_place(&l);
    add_value_buffers(&l);
    add_op_buffers(&l);
    GAP_TRY(gap_arena_place(l.buffer, l.n_buffers, &p->arena_bytes, &p->arena_alive));
    for (int k = 0; k < l.n_buffers; k++) *l.place[k] = l.buffer[k].offset;
    for (int v = 0; v < l.n_places; v++)
        if (l.root[v] != v) *offset_of(&l, v) = *offset_of(&l, l.root[v]);
    for (int v = 0; v < l.n_values; v++)
        if (l.gradient_root[v] != v) p->value[v].gradient = p->value[l.gradient_root[v]].gradient;
    set_parts(&l);
done:
    layout_free(&l);
    return st;
}

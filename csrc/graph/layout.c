#include <string.h>

#include "core/memory.h"
#include "graph/arena.h"
#include "graph/fuse.h"
#include "graph/plan_state.h"

/* What is found out about a list on the way to its layout. */
typedef struct {
    gap_plan *p;
    int n_ops, n_values;
    int *producer;              /* (n_values) op, or -1 */
    bool *wanted;               /* (n_values) a gradient of it would reach a weight */
    bool *has_gradient;         /* (n_values) backward makes one */
    int *gradient_first;        /* (n_values) time it is first written */
    int *gradient_last;         /* (n_values) time it is last read */
    int *gradient_root;         /* (n_values) value whose gradient's memory it uses: itself, unless it is made in place */
    int *last;                  /* (n_values) time of the last read */
    int *root;                  /* (n_values) value whose memory it uses: itself, unless it is written in place */
    int n_buffers;
    gap_lifetime *buffer;
    size_t **place;             /* (n_buffers) where the offset goes */
} layout;

static int backward_time(const layout *l, int op) { return 2 * l->n_ops - op; }
static int end_time(const layout *l) { return 2 * l->n_ops + 1; }

static bool op_learns(const layout *l, int k) {
    const gap_op *op = &l->p->list.op[k];
    for (int j = 0; j < op->n_weights; j++)
        if (op->weight[j] >= 0 && l->p->trainable[op->weight[j]]) return true;
    return false;
}

static bool op_reads_wanted(const layout *l, int k) {
    const gap_op *op = &l->p->list.op[k];
    for (int j = 0; j < op->n_in; j++)
        if (l->wanted[op->in[j]]) return true;
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
        l->gradient_first[p->output[k]] = l->n_ops;
    }
    for (int k = l->n_ops - 1; p->opt.training && k >= 0; k--) {
        const gap_op *op = &p->list.op[k];
        p->op[k].active = l->wanted[op->out[0]] && l->has_gradient[op->out[0]];
        if (!p->op[k].active) continue;
        for (int j = 0; j < op->n_in; j++) {
            int v = op->in[j];
            p->op[k].din[j] = l->wanted[v];
            p->op[k].din_add[j] = l->wanted[v] && l->has_gradient[v];
            if (!l->wanted[v] || l->has_gradient[v]) continue;
            l->has_gradient[v] = true;
            l->gradient_first[v] = backward_time(l, k);
        }
        gap_status st = want_weights(l, k);
        if (st != GAP_OK) return st;
    }
    return GAP_OK;
}

static void reach(layout *l, int value, int time) {
    if (l->last[value] < time) l->last[value] = time;
}

static void find_last_reads(layout *l) {
    gap_plan *p = l->p;
    for (int k = 0; k < l->n_ops; k++) {
        const gap_op *op = &p->list.op[k];
        bool active = p->op[k].active;
        for (int j = 0; j < op->n_in; j++) {
            reach(l, op->in[j], k);
            if (active && (op->backward_needs >> j & 1)) reach(l, op->in[j], backward_time(l, k));
        }
        for (int j = 0; j < op->n_out; j++) {
            reach(l, op->out[j], k);
            if (active && (op->backward_needs & GAP_NEED_OUT)) reach(l, op->out[j], backward_time(l, k));
        }
    }
    for (int k = 0; k < p->graph->n_outputs; k++) reach(l, p->output[k], l->n_ops);
}

/* Lets an op write over its input when nobody reads that any more. */
static void find_in_place(layout *l) {
    for (int v = 0; v < l->n_values; v++) l->root[v] = v;
    for (int k = 0; k < l->n_ops; k++) {
        const gap_op *op = &l->p->list.op[k];
        const gap_desc *in = &op->in_desc[0], *out = &op->out_desc[0];
        int v = op->in[0];
        bool can = (l->p->rules >> GAP_RULE_INPLACE & 1) && op->def->inplace_ok && op->n_out == 1 && v != 0 && l->last[v] == k &&
                   in->per_batch == out->per_batch && gap_desc_bytes(in) == gap_desc_bytes(out);
        for (int j = 1; j < op->n_in; j++) can = can && op->in[j] != v;
        if (can) l->root[op->out[0]] = l->root[v];
    }
}

static bool same_gradient(const layout *l, int a, int b) {
    const gap_desc *x = &l->p->list.gradient[a], *y = &l->p->list.gradient[b];
    return x->per_batch == y->per_batch && gap_desc_bytes(x) == gap_desc_bytes(y);
}

/* When another op than k first writes to v's gradient, or its own producer may write over it; past the end: never. */
static int next_write(const layout *l, int v, int k) {
    int time = l->producer[v] >= 0 ? backward_time(l, l->producer[v]) : end_time(l);
    for (int c = 0; c < l->n_ops; c++)
        for (int j = 0; c != k && j < l->p->list.op[c].n_in; j++)
            if (l->p->list.op[c].in[j] == v && l->p->op[c].din[j] && backward_time(l, c) < time) time = backward_time(l, c);
    return time;
}

/* Lets backward make the gradient of an input where the output's stood. Two inputs may share it when the first is read for
 * the last time before anybody else writes to the other. */
static void find_gradient_in_place(layout *l) {
    for (int v = 0; v < l->n_values; v++) {
        const int k = l->producer[v];
        l->gradient_root[v] = v;
        l->gradient_last[v] = k >= 0 && l->p->op[k].active ? backward_time(l, k) : l->gradient_first[v]; /* else only a loss writes it */
    }
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

static gap_status desc_bytes(const layout *l, const gap_desc *d, size_t *out) {
    size_t one = gap_desc_bytes(d);
    if (d->per_batch) {
        *out = one;
    } else if (__builtin_mul_overflow(one, (size_t)l->p->opt.capacity, out)) {
        return gap_fail(GAP_ERR_MEMORY, "plan: a batch of %lld needs more memory than can be addressed", (long long)l->p->opt.capacity);
    }
    return GAP_OK;
}

static void add_buffer(layout *l, size_t bytes, int first, int last, size_t *place) {
    *place = GAP_NOWHERE;
    if (bytes == 0) return;
    if (!(l->p->rules >> GAP_RULE_SHARE & 1)) first = -1, last = end_time(l);
    l->buffer[l->n_buffers] = (gap_lifetime){.bytes = bytes, .first = first, .last = last};
    l->place[l->n_buffers++] = place;
}

static gap_status add_value_buffers(layout *l) {
    gap_plan *p = l->p;
    for (int v = 0; v < l->n_values; v++) /* a root lives as long as the last value written over it */
        if (l->root[v] != v) reach(l, l->root[v], l->last[v]);
    for (int v = 0; v < l->n_values; v++) {
        size_t bytes, gradient;
        gap_status st = desc_bytes(l, &p->list.value[v], &bytes);
        if (st == GAP_OK) st = desc_bytes(l, &p->list.gradient[v], &gradient);
        if (st != GAP_OK) return st;
        int k = l->producer[v];
        bool own = k >= 0 && l->root[v] == v;
        add_buffer(l, own ? bytes : 0, k, l->last[v], &p->value[v].data);
        add_buffer(l, l->has_gradient[v] && l->gradient_root[v] == v ? gradient : 0, l->gradient_first[v], l->gradient_last[v],
                   &p->value[v].gradient);
    }
    return GAP_OK;
}

static void add_op_buffers(layout *l) {
    gap_plan *p = l->p;
    for (int k = 0; k < l->n_ops; k++) {
        const gap_op *op = &p->list.op[k];
        gap_plan_op *place = &p->op[k];
        int back = backward_time(l, k), kept = place->active ? back : k;
        if (p->opt.training && op->def->commit != NULL) kept = end_time(l);
        add_buffer(l, op->workspace_bytes, k, k, &place->workspace);
        add_buffer(l, place->active ? op->workspace_bytes : 0, back, back, &place->workspace_back);
        add_buffer(l, op->saved_bytes, k, kept, &place->saved);
        add_buffer(l, op->derived_bytes, -1, end_time(l), &place->derived);
    }
}

static gap_status layout_new(layout *l, gap_plan *p) {
    gap_status st = GAP_OK;
    int n_values = p->list.n_values, most = 2 * n_values + 4 * p->list.n_ops;
    *l = (layout){.p = p, .n_ops = p->list.n_ops, .n_values = n_values};
    GAP_TRY(GAP_NEW_ARRAY(l->producer, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->wanted, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->has_gradient, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->gradient_first, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->gradient_last, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->gradient_root, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->last, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->root, n_values));
    GAP_TRY(GAP_NEW_ARRAY(l->buffer, most));
    GAP_TRY(GAP_NEW_ARRAY(l->place, most));
    for (int v = 0; v < n_values; v++) l->producer[v] = -1;
done:
    return st;
}

static void layout_free(layout *l) {
    gap_free(l->producer);
    gap_free(l->wanted);
    gap_free(l->has_gradient);
    gap_free(l->gradient_first);
    gap_free(l->gradient_last);
    gap_free(l->gradient_root);
    gap_free(l->last);
    gap_free(l->root);
    gap_free(l->buffer);
    gap_free(l->place);
}

gap_status gap_plan_layout(gap_plan *p) {
    gap_status st = GAP_OK;
    layout l;
    GAP_TRY(layout_new(&l, p));
    find_wanted(&l);
    GAP_TRY(plan_backward(&l));
    find_last_reads(&l);
    find_in_place(&l);
    find_gradient_in_place(&l);
    GAP_TRY(add_value_buffers(&l));
    add_op_buffers(&l);
    GAP_TRY(gap_arena_place(l.buffer, l.n_buffers, &p->arena_bytes));
    for (int k = 0; k < l.n_buffers; k++) *l.place[k] = l.buffer[k].offset;
    for (int v = 0; v < l.n_values; v++)
        if (l.root[v] != v) p->value[v].data = p->value[l.root[v]].data;
    for (int v = 0; v < l.n_values; v++)
        if (l.gradient_root[v] != v) p->value[v].gradient = p->value[l.gradient_root[v]].gradient;
done:
    layout_free(&l);
    return st;
}

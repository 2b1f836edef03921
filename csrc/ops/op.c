#include "ops/op.h"

#include <string.h>

#include "core/memory.h"
#include "core/shape.h"

void gap_oplist_init(gap_oplist *l, bool training) {
    memset(l, 0, sizeof *l);
    l->training = training;
}

void gap_oplist_free(gap_oplist *l) {
    gap_free(l->op);
    gap_free(l->value);
    gap_free(l->gradient);
    memset(l, 0, sizeof *l);
}

/* Doubles an array's room when it is full. */
static gap_status reserve(void *array, int *cap, int need, size_t size) {
    if (need <= *cap) return GAP_OK;
    int grown = *cap < 16 ? 16 : *cap * 2;
    if (grown < need) grown = need;
    gap_status st = gap_grow(array, (size_t)*cap, (size_t)grown, size);
    if (st == GAP_OK) *cap = grown;
    return st;
}

static gap_status reserve_values(gap_oplist *l, int more) {
    int cap = l->cap_values;
    gap_status st = reserve(&l->gradient, &cap, l->n_values + more, sizeof *l->gradient);
    return st == GAP_OK ? reserve(&l->value, &l->cap_values, l->n_values + more, sizeof *l->value) : st;
}

gap_status gap_oplist_value(gap_oplist *l, const gap_desc *desc, int *out) {
    gap_status st = gap_size_check("input", desc->dim, desc->ndim);
    if (st == GAP_OK) st = reserve_values(l, 1);
    if (st != GAP_OK) return st;
    l->value[l->n_values] = l->gradient[l->n_values] = *desc;
    *out = l->n_values++;
    return GAP_OK;
}

gap_status gap_oplist_emit(gap_oplist *l, const gap_op_def *def, const char *layer, int layer_id, const int *in, int n_in,
                           int n_out, const void *attr, size_t attr_bytes, const int *weights, int n_weights, int *out) {
    if (n_in < 1 || n_in > GAP_OP_MAX_IN || n_out < 1 || n_out > 2 || n_weights > GAP_OP_MAX_WEIGHTS || attr_bytes > GAP_OP_ATTR_BYTES)
        return gap_fail(GAP_ERR_VALUE, "%s: %d inputs, %d outputs, %d weights: more than an op can have", def->name, n_in, n_out, n_weights);
    gap_op op;
    memset(&op, 0, sizeof op);
    op.def = def, op.backward_needs = def->backward_needs, op.gradient_inplace = def->gradient_inplace, op.layer = layer, op.layer_id = layer_id, op.n_in = n_in, op.n_out = n_out, op.n_weights = n_weights;
    for (int k = 0; k < n_in; k++) {
        if (in[k] < 0 || in[k] >= l->n_values) return gap_fail(GAP_ERR_INTERNAL, "%s: no value %d", def->name, in[k]);
        op.in[k] = in[k];
        op.in_desc[k] = l->value[in[k]];
    }
    if (attr_bytes) memcpy(op.attr, attr, attr_bytes);
    for (int k = 0; k < GAP_OP_MAX_WEIGHTS; k++) op.weight[k] = k < n_weights ? weights[k] : -1;
    gap_status st = def->infer(&op, op.in_desc, op.out_desc);
    for (int k = 0; st == GAP_OK && k < n_out; k++) st = gap_size_check(def->name, op.out_desc[k].dim, op.out_desc[k].ndim);
    if (st != GAP_OK) return st;
    st = reserve(&l->op, &l->cap_ops, l->n_ops + 1, sizeof *l->op);
    if (st == GAP_OK) st = reserve_values(l, n_out);
    if (st != GAP_OK) return st;
    for (int k = 0; k < n_out; k++) {
        l->value[l->n_values] = l->gradient[l->n_values] = op.out_desc[k];
        out[k] = op.out[k] = l->n_values++;
    }
    l->op[l->n_ops++] = op;
    return GAP_OK;
}

int gap_reduce_chunks(int64_t capacity, size_t partial_bytes) {
    int64_t chunks = GAP_REDUCE_CHUNKS;
    if (partial_bytes > 0 && (size_t)chunks > GAP_REDUCE_BYTES / partial_bytes) chunks = (int64_t)(GAP_REDUCE_BYTES / partial_bytes);
    if (chunks > capacity) chunks = capacity;
    return chunks < 1 ? 1 : (int)chunks;
}

void gap_reduce_range(int64_t capacity, int chunks, int k, int64_t n, int64_t *begin, int64_t *end) {
    *begin = capacity * k / chunks;
    *end = capacity * (k + 1) / chunks;
    if (*begin > n) *begin = n;
    if (*end > n) *end = n;
}

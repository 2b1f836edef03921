#include <string.h>

#include "core/memory.h"
#include "graph/plan_state.h"

/* Ops [first, last] of one segment. */
typedef struct { int first, last; } segment;

typedef struct {
    gap_plan *p;
    int *producer;  /* (n_values) op, or -1 */
    bool *kept;     /* (n_values) somebody outside the segment at hand reads it later: it stays from the first run */
} search;

static bool begins(const char *name, const char *with) {
    const size_t n = strlen(with);
    return strncmp(name, with, n) == 0 && (name[n] == '\0' || name[n] == '.');
}

gap_status gap_plan_check_recompute(const gap_plan *p) {
    for (int k = 0; k < p->opt.n_recompute; k++) {
        bool found = false;
        for (int j = 0; j < p->graph->n_nodes; j++) found |= begins(p->graph->node[j].name, p->opt.recompute[k]);
        if (!found) return gap_fail(GAP_ERR_VALUE, "recompute: no layer is called '%s'", p->opt.recompute[k]);
    }
    return GAP_OK;
}

/* The longest of the names that op k's layer begins with, or -1. */
static int name_of(const gap_plan *p, int k) {
    const char *layer = p->list.op[k].layer;
    int best = -1;
    for (int j = 0; layer != NULL && j < p->opt.n_recompute; j++)
        if (begins(layer, p->opt.recompute[j]) && (best < 0 || strlen(p->opt.recompute[j]) > strlen(p->opt.recompute[best]))) best = j;
    return best;
}

/* The run of ops of one name that ends at `last`. */
static segment segment_before(const gap_plan *p, int last) {
    segment s = {last, last};
    while (s.first > 0 && name_of(p, s.first - 1) == name_of(p, last)) s.first--;
    return s;
}

static bool reads_backward(const gap_plan *p, int k, int j) { return p->op[k].active && (p->list.op[k].backward_needs >> j & 1); }

/* What ops behind the segment read after the loss; they were decided before. Tables of BatchNorm are too small to make twice. */
static void find_kept(search *f, segment s) {
    const gap_plan *p = f->p;
    for (int v = 0; v < p->list.n_values; v++) f->kept[v] = p->list.value[v].per_batch;
    for (int k = s.last + 1; k < p->list.n_ops; k++)
        for (int j = 0; j < p->list.op[k].n_in; j++)
            if (p->op[k].again || reads_backward(p, k, j)) f->kept[p->list.op[k].in[j]] = true;
}

/* Asks for v once more, unless it is there. */
static void need(search *f, segment s, int v) {
    const int k = f->producer[v];
    if (k >= s.first && k <= s.last && !f->kept[v]) f->p->op[k].again = true;
}

static void decide(search *f, segment s) {
    gap_plan *p = f->p;
    find_kept(f, s);
    for (int k = s.first; k <= s.last; k++) {
        const gap_op *op = &p->list.op[k];
        for (int j = 0; j < op->n_in; j++)
            if (reads_backward(p, k, j)) need(f, s, op->in[j]);
        if (p->op[k].active && (op->backward_needs & GAP_NEED_OUT)) need(f, s, op->out[0]);
    }
    for (int k = s.last; k >= s.first; k--)
        for (int j = 0; p->op[k].again && j < p->list.op[k].n_in; j++) need(f, s, p->list.op[k].in[j]);
    for (int k = s.last; k >= s.first; k--) {
        if (p->op[k].again) p->op[s.last].again_from = k;
        for (int j = 0; j < p->list.op[k].n_in; j++) {
            const int maker = f->producer[p->list.op[k].in[j]];
            if (maker >= s.first && p->op[maker].again) p->op[k].second |= 1u << j;
        }
    }
}

gap_status gap_plan_recompute(gap_plan *p) {
    gap_status st = GAP_OK;
    search f = {.p = p};
    for (int k = 0; k < p->list.n_ops; k++) p->op[k].again_from = -1;
    if (!p->opt.training || p->opt.n_recompute == 0) return GAP_OK;
    GAP_TRY(GAP_NEW_ARRAY(f.producer, p->list.n_values));
    GAP_TRY(GAP_NEW_ARRAY(f.kept, p->list.n_values));
    for (int v = 0; v < p->list.n_values; v++) f.producer[v] = -1;
    for (int k = 0; k < p->list.n_ops; k++)
        for (int j = 0; j < p->list.op[k].n_out; j++) f.producer[p->list.op[k].out[j]] = k;
    for (int k = p->list.n_ops - 1; k >= 0;) {
        const segment s = segment_before(p, k);
        if (name_of(p, k) >= 0) decide(&f, s);
        k = s.first - 1;
    }
done:
    gap_free(f.producer);
    gap_free(f.kept);
    return st;
}

#include "graph/graph.h"

#include <string.h>

#include "core/memory.h"

#define MAX_OUTPUTS GAP_COUNTOF(((gap_graph *)0)->output)

gap_status gap_graph_new(gap_graph **out, const gap_desc *input) {
    gap_graph *g = NULL;
    char text[96];
    if (input->dtype != GAP_F32 || input->layout != GAP_PLAIN || (input->ndim != 3 && input->ndim != 1))
        return gap_fail(GAP_ERR_SHAPE, "graph: input must be (C, H, W) or (F)");
    for (int k = 0; k < input->ndim; k++)
        if (input->dim[k] < 1 || input->dim[k] > ((int64_t)1 << 31))
            return gap_fail(GAP_ERR_SHAPE, "graph: input sizes must be >= 1 and fit 31 bits, got %s", gap_desc_text(input, text));
    gap_status st = GAP_NEW(g);
    if (st != GAP_OK) return st;
    g->input = *input;
    *out = g;
    return GAP_OK;
}

void gap_graph_free(gap_graph *g) {
    if (g == NULL) return;
    for (int k = 0; k < g->n_nodes; k++) gap_free(g->node[k].name);
    gap_free(g->node);
    gap_free(g);
}

gap_desc gap_graph_desc(const gap_graph *g, int value) { return value == 0 ? g->input : g->node[value - 1].out; }

static bool same_config(const gap_layer_def *def, const gap_value *a, const gap_value *b) {
    for (int k = 0; k < def->n_params; k++) {
        bool list = def->params[k].kind == GAP_FLOATS || def->params[k].kind == GAP_INTS || def->params[k].kind == GAP_FLOAT;
        if (a[k].none != b[k].none) return false;
        if (a[k].none) continue;
        if (!list && (a[k].i != b[k].i || (def->params[k].kind == GAP_PAIR && a[k].i2 != b[k].i2))) return false;
        int n = def->params[k].kind == GAP_FLOAT ? 1 : a[k].n;
        if (list && n > 1 && a[k].n != b[k].n) return false;
        for (int j = 0; list && j < n; j++)
            if (a[k].f[j] < b[k].f[j] || a[k].f[j] > b[k].f[j]) return false;
    }
    return true;
}

static gap_status declared(const gap_node *node, gap_weight_decl *decl, int *n) {
    *n = 0;
    return node->def->weights != NULL ? node->def->weights(node->cfg, decl, n) : GAP_OK;
}

/* Finds the node's weights in the store and whether all that could learn is frozen. */
static gap_status bind_weights(const gap_node *node, const gap_store *s, gap_layer *layer) {
    gap_weight_decl decl[GAP_LAYER_MAX_WEIGHTS];
    int n, params = 0, learning = 0;
    gap_status st = declared(node, decl, &n);
    if (st != GAP_OK || n == 0) return st;
    int first = gap_store_find_layer(s, node->name);
    if (first < 0) return gap_fail(GAP_ERR_VALUE, "%s: the store has no layer of that name", node->def->name);
    for (int k = 0; k < n; k++) {
        const gap_entry *e = &s->entry[first + k];
        bool same = first + k < s->n_entries && e->layer == s->entry[first].layer && strcmp(e->decl.suffix, decl[k].suffix) == 0 &&
                    e->decl.ndim == decl[k].ndim && memcmp(e->decl.dim, decl[k].dim, sizeof decl[k].dim[0] * (size_t)decl[k].ndim) == 0;
        if (!same) return gap_fail(GAP_ERR_SHAPE, "%s: the store's %s has another shape than this layer asks for", node->def->name, decl[k].suffix);
        layer->weight[k] = first + k;
        if (decl[k].kind == GAP_WEIGHT_PARAM) params++, learning += e->trainable;
    }
    layer->frozen = params > 0 && learning == 0;
    return GAP_OK;
}

static gap_status in_node(gap_status st, const char *name) { return st == GAP_OK ? GAP_OK : gap_fail_in(st, "%s", name); }

/* Emits one node; s NULL: only its shapes are asked for, and stand-ins take the weights' places. */
static gap_status lower_node(const gap_node *node, const gap_store *s, gap_oplist *list, const int *in, int *out) {
    gap_layer layer = {.def = node->def, .who = {node->name, node->id}, .cfg = node->cfg};
    gap_weight_decl decl[GAP_LAYER_MAX_WEIGHTS];
    int n;
    for (int k = 0; k < GAP_LAYER_MAX_WEIGHTS; k++) layer.weight[k] = -1;
    gap_status st = s != NULL ? bind_weights(node, s, &layer) : declared(node, decl, &n);
    for (int k = 0; s == NULL && st == GAP_OK && k < n; k++) layer.weight[k] = k;
    if (st == GAP_OK) st = node->def->lower(&layer, list, in, node->n_in, out);
    return in_node(st, node->name);
}

/* The node's output shape, by lowering it alone over values of its inputs' shapes. */
static gap_status find_shape(const gap_graph *g, gap_node *node) {
    gap_status st = GAP_OK;
    gap_oplist list;
    int in[GAP_OP_MAX_IN], out;
    gap_oplist_init(&list, false);
    for (int k = 0; k < node->n_in; k++) {
        gap_desc d = gap_graph_desc(g, node->in[k]);
        if (node->in[k] == 0 && d.ndim == 3) d = gap_desc_image(d.dim[0], d.dim[1], d.dim[2]);
        GAP_TRY(gap_oplist_value(&list, &d, &in[k]));
    }
    GAP_TRY(lower_node(node, NULL, &list, in, &out));
    node->out = list.value[out];
done:
    gap_oplist_free(&list);
    return st;
}

static gap_status check_node(const gap_graph *g, const gap_node *node) {
    const gap_layer_def *def = node->def;
    if (node->n_in < def->min_in || node->n_in > def->max_in) {
        if (def->min_in == def->max_in)
            return gap_fail(GAP_ERR_VALUE, "%s: takes %d input%s, got %d", def->name, def->min_in, def->min_in == 1 ? "" : "s", node->n_in);
        return gap_fail(GAP_ERR_VALUE, "%s: takes %d to %d inputs, got %d", def->name, def->min_in, def->max_in, node->n_in);
    }
    for (int k = 0; k < node->n_in; k++)
        if (node->in[k] < 0 || node->in[k] > g->n_nodes)
            return gap_fail(GAP_ERR_VALUE, "%s: no value %d: inputs must come before the layer that uses them", def->name, node->in[k]);
    for (int k = 0; def->weights != NULL && k < g->n_nodes; k++) {
        const gap_node *other = &g->node[k];
        if (strcmp(other->name, node->name) == 0 && (other->def != def || !same_config(def, other->cfg, node->cfg)))
            return gap_fail(GAP_ERR_VALUE, "%s: another layer has this name and would share its weights", def->name);
    }
    return gap_config_check(def->name, def->params, def->n_params, node->cfg);
}

gap_status gap_graph_add(gap_graph *g, const char *name, int id, const gap_layer_def *def, const gap_value *cfg, const int *in,
                         int n_in, int *out) {
    gap_status st = GAP_OK;
    gap_node node = {.id = id, .def = def, .n_in = n_in};
    if (n_in < 0 || n_in > GAP_OP_MAX_IN) return gap_fail(GAP_ERR_VALUE, "%s: takes at most %d inputs, got %d", name, GAP_OP_MAX_IN, n_in);
    for (int k = 0; k < def->n_params; k++) node.cfg[k] = cfg[k];
    for (int k = 0; k < n_in; k++) node.in[k] = in[k];
    GAP_TRY(gap_strdup(&node.name, name));
    GAP_TRY(in_node(check_node(g, &node), name));
    GAP_TRY(find_shape(g, &node));
    if (g->n_nodes == g->cap_nodes) {
        int cap = g->cap_nodes < 16 ? 16 : 2 * g->cap_nodes;
        GAP_TRY(gap_grow(&g->node, (size_t)g->cap_nodes, (size_t)cap, sizeof *g->node));
        g->cap_nodes = cap;
    }
    g->node[g->n_nodes++] = node;
    node.name = NULL;
    *out = g->n_nodes;
done:
    gap_free(node.name);
    return st;
}

gap_status gap_graph_set_outputs(gap_graph *g, const int *values, int n) {
    if (n < 1 || n > MAX_OUTPUTS) return gap_fail(GAP_ERR_VALUE, "graph: outputs must be 1 to %d, got %d", MAX_OUTPUTS, n);
    for (int k = 0; k < n; k++)
        if (values[k] < 0 || values[k] > g->n_nodes) return gap_fail(GAP_ERR_VALUE, "graph: no value %d", values[k]);
    for (int k = 0; k < n; k++) g->output[k] = values[k];
    g->n_outputs = n;
    return GAP_OK;
}

static gap_status lower_input(const gap_graph *g, const gap_input_attr *input, gap_dtype dtype, gap_oplist *list, int *out) {
    gap_desc d = g->input;
    int raw;
    if (dtype != GAP_F32 && dtype != GAP_U8) return gap_fail(GAP_ERR_TYPE, "plan: input must be uint8 or float32");
    if (dtype == GAP_U8 && d.ndim != 3) return gap_fail(GAP_ERR_TYPE, "plan: a vector input must be float32");
    if (dtype == GAP_U8) d.dtype = GAP_U8, d.layout = GAP_NHWC;
    gap_status st = gap_oplist_value(list, &d, &raw);
    return st == GAP_OK ? gap_emit_input(list, raw, input, out) : st;
}

gap_status gap_graph_lower(const gap_graph *g, const gap_store *s, const gap_input_attr *input, gap_dtype input_dtype,
                           gap_oplist *list, int *outputs) {
    gap_status st = GAP_OK;
    int *value = NULL; /* list value of each graph value */
    if (g->n_outputs < 1) return gap_fail(GAP_ERR_VALUE, "graph: has no outputs yet");
    GAP_TRY(GAP_NEW_ARRAY(value, g->n_nodes + 1));
    GAP_TRY(lower_input(g, input, input_dtype, list, &value[0]));
    for (int k = 0; k < g->n_nodes; k++) {
        int in[GAP_OP_MAX_IN];
        for (int j = 0; j < g->node[k].n_in; j++) in[j] = value[g->node[k].in[j]];
        GAP_TRY(lower_node(&g->node[k], s, list, in, &value[k + 1]));
    }
    for (int k = 0; k < g->n_outputs; k++) {
        int v = value[g->output[k]];
        gap_origin who = {g->output[k] > 0 ? g->node[g->output[k] - 1].name : "input", 0};
        outputs[k] = v;
        if (list->value[v].layout != GAP_PLAIN) GAP_TRY(gap_emit_to_plain(list, who, v, &outputs[k]));
    }
done:
    gap_free(value);
    return st;
}

/* Each weight of a matrix or a window is used once per output pixel; weights per channel count as none. */
int64_t gap_graph_macs(const gap_graph *g, int node) {
    gap_weight_decl decl[GAP_LAYER_MAX_WEIGHTS];
    int n;
    if (node < 0 || node >= g->n_nodes || declared(&g->node[node], decl, &n) != GAP_OK) return 0;
    const gap_desc *out = &g->node[node].out;
    int64_t total = 0, pixels = 1;
    for (int k = 1; k < out->ndim; k++) pixels *= out->dim[k];
    for (int k = 0; k < n; k++) {
        int64_t count = decl[k].ndim >= 2 ? pixels : 0;
        for (int j = 0; j < decl[k].ndim; j++) count *= decl[k].dim[j];
        total += count;
    }
    return total;
}

/* graph.h — a traced network: layers as data. Made once per input shape; lowered by plans. */
#ifndef GAP_GRAPH_GRAPH_H
#define GAP_GRAPH_GRAPH_H

#include "graph/store.h"

typedef struct {
    char *name;
    int id;                               /* fixed number of the layer, for its draws */
    const gap_layer_def *def;
    gap_value cfg[GAP_PARAM_MAX];
    int n_in, in[GAP_OP_MAX_IN];          /* graph values: 0 is the input, k + 1 is node k's output */
    gap_desc out;                         /* shape of its output, as found when it was added */
} gap_node;

typedef struct gap_graph {
    gap_desc input;                       /* fp32: (C, H, W) plain, or (F) */
    int n_nodes, cap_nodes;
    gap_node *node;
    int n_outputs, output[4];
} gap_graph;

GAP_MUST_USE gap_status gap_graph_new(gap_graph **out, const gap_desc *input);
void gap_graph_free(gap_graph *g);
/* Adds a node: checks the config and the shapes (by lowering it). Errors read "in layer1.0.conv1: …". Gives its value. */
GAP_MUST_USE gap_status gap_graph_add(gap_graph *g, const char *name, int id, const gap_layer_def *def, const gap_value *cfg,
                                      const int *in, int n_in, int *out);
GAP_MUST_USE gap_status gap_graph_set_outputs(gap_graph *g, const int *values, int n);
gap_desc gap_graph_desc(const gap_graph *g, int value);
/* Lowers the whole graph against a store (layers found by name): input op, every layer, outputs made plain.
 * outputs[] gets the value numbers of the plain outputs. */
GAP_MUST_USE gap_status gap_graph_lower(const gap_graph *g, const gap_store *s, const gap_input_attr *input, gap_dtype input_dtype,
                                        gap_oplist *list, int *outputs);
/* Multiply-accumulates of one sample's forward, of the node; 0 for layers that do none. */
int64_t gap_graph_macs(const gap_graph *g, int node);

#endif

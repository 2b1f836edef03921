#include "nets.h"

static void test_graph_finds_shapes(void) {
    net t = net_everything(0.5);
    CHECK_OK(t.st);
    char text[96];
    static const struct { const char *name, *shape; } want[] = {
        {"conv1", "(18, 10, 8)"}, {"squeeze", "(18, 1, 1)"}, {"scale", "(18, 10, 8)"}, {"conv3", "(7, 5, 4)"}, {"avg", "(18, 5, 4)"},
        {"conv4", "(5, 4, 3)"},   {"max", "(7, 4, 3)"}};
    for (int k = 0; k < t.graph->n_nodes; k++)
        for (int j = 0; j < GAP_COUNTOF(want); j++)
            if (strcmp(t.graph->node[k].name, want[j].name) == 0) {
                gap_desc d = gap_graph_desc(t.graph, k + 1);
                CHECK(strcmp(gap_desc_text(&d, text), want[j].shape) == 0);
            }
    net_free(&t);
}

/* Adds one layer to an image of (3, 8, 8) and gives the message of the refusal. */
static const char *refusal(const char *layer, const double *args, int n_args, gap_status code) {
    net t = net_begin(3, 8, 8);
    net_one(&t, layer, "block.it", args, n_args, 0);
    CHECK(t.st == code);
    CHECK(t.graph->n_nodes == 0);
    net_free(&t);
    return gap_error_message();
}

static void test_graph_refuses_with_the_layer_and_the_remedy(void) {
    const char *m = refusal("Conv2d", ARGS(4, 8, 3), GAP_ERR_SHAPE);
    CHECK(strstr(m, "in block.it: Conv2d: in_channels is 4, but its input (3, 8, 8) has 3 channels: write in_channels=3") == m);
    m = refusal("Linear", ARGS(192, 8), GAP_ERR_SHAPE);
    CHECK(strstr(m, "put Flatten before it, and write in_features=192") != NULL);
    m = refusal("BatchNorm2d", ARGS(4), GAP_ERR_SHAPE);
    CHECK(strstr(m, "num_features is 4") != NULL);
    m = refusal("GroupNorm", ARGS(2, 3), GAP_ERR_VALUE);
    CHECK(strstr(m, "num_groups must divide num_channels") != NULL);
    m = refusal("Conv2d", ARGS(3, 8, 3, 0), GAP_ERR_VALUE);
    CHECK(strstr(m, "in block.it: Conv2d: stride must be >= 1, got 0") == m);
    m = refusal("MaxPool2d", ARGS(2, 2, 2), GAP_ERR_SHAPE);
    CHECK(strstr(m, "in block.it: max_pool: padding must be at most half of the window") != NULL);
    m = refusal("Conv2d", ARGS(3, 8, 11), GAP_ERR_SHAPE);
    CHECK(strstr(m, "in block.it: ") == m);
    m = refusal("AdaptiveAvgPool2d", ARGS(7), GAP_ERR_VALUE);
    CHECK(strstr(m, "output_size must be in [1, 1], got 7") != NULL);
    m = refusal("Add", NO_ARGS, GAP_ERR_VALUE);
    CHECK(strstr(m, "in block.it: Add: takes 2 inputs, got 1") == m);
}

static void test_graph_refuses_one_name_for_two_layers(void) {
    net t = net_begin(3, 8, 8);
    int a = net_one(&t, "Conv2d", "conv", ARGS(3, 3, 3, 1, 1), 0);
    a = net_one(&t, "Conv2d", "conv", ARGS(3, 3, 3, 1, 1), a); /* the same layer twice: shared weights */
    CHECK_OK(t.st);
    net_one(&t, "Conv2d", "conv", ARGS(3, 3, 1), a);
    CHECK(t.st == GAP_ERR_VALUE && strstr(gap_error_message(), "in conv: ") == gap_error_message());
    net_free(&t);
}

static void test_graph_refuses_values_that_are_not_there(void) {
    net t = net_begin(3, 8, 8);
    int in = 1, out = 5;
    const gap_layer_def *def = gap_layer_find("ReLU");
    CHECK_FAILS(gap_graph_add(t.graph, "act", 0, def, NULL, &in, 1, &out), GAP_ERR_VALUE);
    CHECK_FAILS(gap_graph_set_outputs(t.graph, &in, 1), GAP_ERR_VALUE);
    CHECK_FAILS(gap_graph_set_outputs(t.graph, &in, 0), GAP_ERR_VALUE);
    net_free(&t);
    gap_graph *g = NULL;
    gap_desc bad = {.dtype = GAP_F32, .layout = GAP_PLAIN, .ndim = 3, .dim = {3, 0, 8}};
    CHECK_FAILS(gap_graph_new(&g, &bad), GAP_ERR_SHAPE);
    bad.ndim = 2;
    CHECK_FAILS(gap_graph_new(&g, &bad), GAP_ERR_SHAPE);
}

static void test_graph_counts_macs(void) {
    net t = net_begin(3, 8, 8);
    int a = net_one(&t, "Conv2d", "conv", ARGS(3, 16, 3, 2, 1), 0);
    a = net_one(&t, "Conv2d", "dw", ARGS(16, 16, 3, 1, 1, 1, 16), a);
    a = net_one(&t, "BatchNorm2d", "bn", ARGS(16), a);
    a = net_one(&t, "Flatten", "flat", NO_ARGS, a);
    net_one(&t, "Linear", "fc", ARGS(256, 10), a);
    CHECK_OK(t.st);
    CHECK(gap_graph_macs(t.graph, 0) == 16 * 27 * 16);
    CHECK(gap_graph_macs(t.graph, 1) == 16 * 9 * 16);
    CHECK(gap_graph_macs(t.graph, 2) == 0 && gap_graph_macs(t.graph, 3) == 0);
    CHECK(gap_graph_macs(t.graph, 4) == 2560);
    net_free(&t);
}

static void test_graph_lowers_against_the_store_by_name(void) {
    net t = net_begin(3, 8, 8);
    net_one(&t, "Conv2d", "conv", ARGS(3, 16, 3), 0);
    CHECK_OK(net_end(&t, 1));
    net other = net_begin(3, 8, 8);
    net_one(&other, "Conv2d", "conv", ARGS(3, 8, 3), 0);
    CHECK_OK(net_end(&other, 1));
    net nameless = net_begin(3, 8, 8);
    net_one(&nameless, "Conv2d", "stem", ARGS(3, 16, 3), 0);
    CHECK_OK(net_end(&nameless, 1));
    gap_input_attr input = {0};
    gap_oplist list;
    int out[4];
    gap_oplist_init(&list, false);
    CHECK_OK(gap_graph_lower(t.graph, t.store, &input, GAP_F32, &list, out));
    CHECK(list.value[out[0]].layout == GAP_PLAIN && list.value[out[0]].ndim == 3);
    gap_oplist_free(&list);
    gap_oplist_init(&list, false);
    CHECK_FAILS(gap_graph_lower(t.graph, other.store, &input, GAP_F32, &list, out), GAP_ERR_SHAPE);
    CHECK(strstr(gap_error_message(), "weight") != NULL);
    CHECK_FAILS(gap_graph_lower(t.graph, nameless.store, &input, GAP_F32, &list, out), GAP_ERR_VALUE);
    CHECK_FAILS(gap_graph_lower(t.graph, t.store, &input, GAP_I32, &list, out), GAP_ERR_TYPE);
    gap_oplist_free(&list);
    net_free(&t);
    net_free(&other);
    net_free(&nameless);
}

int main(void) {
    RUN(test_graph_finds_shapes);
    RUN(test_graph_refuses_with_the_layer_and_the_remedy);
    RUN(test_graph_refuses_one_name_for_two_layers);
    RUN(test_graph_refuses_values_that_are_not_there);
    RUN(test_graph_counts_macs);
    RUN(test_graph_lowers_against_the_store_by_name);
    return harness_end();
}

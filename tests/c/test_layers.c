#include "harness.h"
#include "layers/layer.h"

/* "name(param, param=default, …)" of a row; * marks None as default. */
static void signature(const gap_layer_def *def, char *text, size_t bytes) {
    size_t used = (size_t)snprintf(text, bytes, "%s(", def->name);
    for (int k = 0; k < def->n_params; k++) {
        const gap_param *p = &def->params[k];
        used += (size_t)snprintf(text + used, bytes - used, "%s%s", k ? ", " : "", p->name);
        if (p->dflt_none) used += (size_t)snprintf(text + used, bytes - used, "=*");
        else if (!p->required) used += (size_t)snprintf(text + used, bytes - used, "=%g", p->dflt);
    }
    snprintf(text + used, bytes - used, ")");
}

static void test_layers_take_what_torch_takes(void) {
    static const char *const want[] = {
        "AdaptiveAvgPool2d(output_size)", "Add()", "AvgPool2d(kernel_size, stride=*, padding=0, ceil_mode=0, count_include_pad=1)",
        "BatchNorm2d(num_features, eps=1e-05, momentum=0.1)", "Concat()",
        "Conv2d(in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=1)", "Dropout(p=0.5)",
        "Flatten(start_dim=1, end_dim=-1)", "GroupNorm(num_groups, num_channels, eps=1e-05)", "Hardsigmoid()", "Hardswish()",
        "Identity()", "LeakyReLU(negative_slope=0.01)", "Linear(in_features, out_features, bias=1)",
        "MaxPool2d(kernel_size, stride=*, padding=0, dilation=1, ceil_mode=0)", "Mul()", "ReLU()", "ReLU6()", "SiLU()", "Sigmoid()", "Tanh()"};
    for (int k = 0; k < GAP_COUNTOF(want); k++) {
        char name[32] = "", text[256];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(want[k], "("), want[k]);
        const gap_layer_def *def = gap_layer_find(name);
        CHECK(def != NULL);
        if (def == NULL) continue;
        signature(def, text, sizeof text);
        if (strcmp(text, want[k]) != 0) printf("%s, expected %s\n", text, want[k]);
        CHECK(strcmp(text, want[k]) == 0);
    }
    CHECK(gap_layer_find("Conv3d") == NULL);
}

static void test_layers_rows_are_whole(void) {
    for (int k = 0; k < gap_layer_count; k++) {
        const gap_layer_def *def = gap_layer_table[k];
        CHECK(strstr(def->doc, "Shapes:") != NULL && strstr(def->doc, "Gradient:") != NULL);
        CHECK(strstr(def->doc, "Agrees with: torch.") != NULL && strstr(def->doc, "Source:") != NULL);
        CHECK(def->lower != NULL && def->min_in >= 1 && def->max_in >= def->min_in && def->max_in <= GAP_OP_MAX_IN);
        CHECK(def->n_params <= GAP_PARAM_MAX);
        for (int j = 0; j < def->n_params; j++) {
            const gap_param *p = &def->params[j];
            gap_value v[GAP_PARAM_MAX];
            gap_config_defaults(def->params, def->n_params, v);
            CHECK(p->doc != NULL && strlen(p->doc) > 5);
            CHECK(p->required || gap_param_check(def->name, p, &v[j]) == GAP_OK); /* a default is in its own range */
        }
    }
}

static void conv_config(gap_value *cfg, int64_t in, int64_t out, int64_t kernel, int64_t groups) {
    const gap_layer_def *def = gap_layer_find("Conv2d");
    gap_config_defaults(def->params, def->n_params, cfg);
    cfg[0].i = in, cfg[1].i = out, cfg[2].i = cfg[2].i2 = kernel, cfg[6].i = groups;
    cfg[0].none = cfg[1].none = cfg[2].none = false;
}

static void test_layers_declare_torchs_weights(void) {
    const gap_layer_def *def = gap_layer_find("Conv2d");
    gap_value cfg[GAP_PARAM_MAX];
    gap_weight_decl w[GAP_LAYER_MAX_WEIGHTS];
    int n;
    conv_config(cfg, 12, 8, 5, 4);
    CHECK_OK(def->weights(cfg, w, &n));
    CHECK(n == 2 && strcmp(w[0].suffix, "weight") == 0 && strcmp(w[1].suffix, "bias") == 0);
    CHECK(w[0].ndim == 4 && w[0].dim[0] == 8 && w[0].dim[1] == 3 && w[0].dim[2] == 5 && w[0].dim[3] == 5);
    CHECK(w[0].init == GAP_INIT_UNIFORM && !w[0].norm_or_bias && w[1].norm_or_bias && w[1].ndim == 1 && w[1].dim[0] == 8);
    CHECK_NEAR(w[0].init_arg, 1 / sqrt(75.0), 1e-15);
    CHECK_NEAR(w[1].init_arg, 1 / sqrt(75.0), 1e-15);
    cfg[7].i = 0;
    CHECK_OK(def->weights(cfg, w, &n));
    CHECK(n == 1);
    conv_config(cfg, 12, 8, 5, 3);
    CHECK_FAILS(def->weights(cfg, w, &n), GAP_ERR_VALUE);
    conv_config(cfg, INT64_MAX / 2, 8, 5, 1);
    CHECK_FAILS(def->weights(cfg, w, &n), GAP_ERR_SHAPE);
}

/* A layer that does nothing adds no op; Dropout only does something in training. */
static void test_layers_lower_to_nothing_where_nothing_is_done(void) {
    gap_desc d = gap_desc_image(4, 3, 3);
    for (int training = 0; training < 2; training++)
        for (int k = 0; k < 3; k++) {
            gap_value cfg = {.f = {k == 2 ? 0.0 : 0.5}};
            gap_layer layer = {.def = gap_layer_find(k ? "Dropout" : "Identity"), .who = {"x", 0}, .cfg = &cfg};
            gap_oplist list;
            int in, out = -1;
            gap_oplist_init(&list, training);
            CHECK_OK(gap_oplist_value(&list, &d, &in));
            CHECK_OK(layer.def->lower(&layer, &list, &in, 1, &out));
            CHECK(list.n_ops == (training && k == 1) && (list.n_ops == 1 || out == in));
            gap_oplist_free(&list);
        }
}

static void test_layers_gate_on_either_side(void) {
    for (int swap = 0; swap < 2; swap++) {
        gap_desc image = gap_desc_image(4, 3, 3), gate = gap_desc_image(4, 1, 1);
        gap_layer layer = {.def = gap_layer_find("Mul"), .who = {"x", 0}};
        gap_oplist list;
        int in[2], out;
        gap_oplist_init(&list, false);
        CHECK_OK(gap_oplist_value(&list, swap ? &gate : &image, &in[0]));
        CHECK_OK(gap_oplist_value(&list, swap ? &image : &gate, &in[1]));
        CHECK_OK(layer.def->lower(&layer, &list, in, 2, &out));
        CHECK(gap_desc_equal(&list.value[out], &image));
        gap_oplist_free(&list);
    }
}

int main(void) {
    RUN(test_layers_take_what_torch_takes);
    RUN(test_layers_rows_are_whole);
    RUN(test_layers_declare_torchs_weights);
    RUN(test_layers_lower_to_nothing_where_nothing_is_done);
    RUN(test_layers_gate_on_either_side);
    return harness_end();
}

#include "core/rng.h"
#include "core/threads.h"
#include "graph/store.h"
#include "harness.h"

static gap_status add_conv(gap_store *s, const char *name, int64_t in, int64_t out, int64_t groups) {
    const gap_layer_def *def = gap_layer_find("Conv2d");
    gap_value cfg[GAP_PARAM_MAX];
    gap_config_defaults(def->params, def->n_params, cfg);
    cfg[0].none = cfg[1].none = cfg[2].none = false;
    cfg[0].i = in, cfg[1].i = out, cfg[2].i = cfg[2].i2 = 3, cfg[6].i = groups;
    return gap_store_add(s, name, def, cfg);
}

static gap_status add_norm(gap_store *s, const char *name, int64_t c) {
    const gap_layer_def *def = gap_layer_find("BatchNorm2d");
    gap_value cfg[GAP_PARAM_MAX];
    gap_config_defaults(def->params, def->n_params, cfg);
    cfg[0].none = false, cfg[0].i = c;
    return gap_store_add(s, name, def, cfg);
}

static gap_store *small_store(void) {
    gap_store *s = NULL;
    CHECK_OK(gap_store_new(&s));
    CHECK_OK(add_conv(s, "conv1", 3, 5, 1));
    CHECK_OK(add_norm(s, "layer1.0.bn1", 5));
    return s;
}

static void test_store_lays_entries_out_as_torch_names_them(void) {
    static const char *const names[] = {"conv1.weight", "conv1.bias", "layer1.0.bn1.weight", "layer1.0.bn1.bias",
                                        "layer1.0.bn1.running_mean", "layer1.0.bn1.running_var"};
    gap_store *s = small_store();
    CHECK(s->n_entries == 6 && s->n_layers == 2);
    size_t end = 0;
    for (int k = 0; k < s->n_entries; k++) {
        CHECK(strcmp(s->entry[k].name, names[k]) == 0);
        CHECK(s->entry[k].offset % 16 == 0 && s->entry[k].offset >= end);
        CHECK(s->entry[k].trainable == (k < 4));
        CHECK(gap_store_find(s, names[k]) == k);
        end = s->entry[k].offset + s->entry[k].count;
    }
    CHECK(s->entry[0].count == 5 * 3 * 3 * 3 && s->floats >= end);
    CHECK(gap_store_find(s, "conv1") == -1);
    CHECK(gap_store_find_layer(s, "layer1.0.bn1") == 2 && gap_store_find_layer(s, "layer1") == -1);
    gap_store_free(s);
}

static void test_store_refuses_twins_late_comers_and_bad_configs(void) {
    gap_store *s = small_store();
    CHECK_FAILS(add_conv(s, "conv1", 3, 5, 1), GAP_ERR_VALUE);
    CHECK(s->n_entries == 6);
    CHECK_FAILS(add_conv(s, "conv2", 3, 5, 2), GAP_ERR_VALUE);
    CHECK(strstr(gap_error_message(), "conv2") != NULL && strstr(gap_error_message(), "groups must divide") != NULL);
    CHECK_FAILS(add_conv(s, "conv2", INT64_MAX / 4, INT64_MAX / 4, 1), GAP_ERR_SHAPE);
    CHECK(s->n_entries == 6 && s->n_layers == 2);
    CHECK_OK(gap_store_seal(s));
    CHECK_FAILS(add_conv(s, "conv3", 3, 5, 1), GAP_ERR_VALUE);
    gap_store_free(s);
}

static void test_store_makes_planes_at_first_use(void) {
    gap_store *s = small_store();
    float *plane = NULL;
    CHECK(gap_store_data(s, GAP_PLANE_MASTER, 0) == NULL);
    CHECK_FAILS(gap_store_plane(s, GAP_PLANE_EMA, &plane), GAP_ERR_VALUE);
    CHECK_OK(gap_store_seal(s));
    CHECK(s->version == 1 && gap_store_data(s, GAP_PLANE_SLOT0, 0) == NULL);
    CHECK_OK(gap_store_plane(s, GAP_PLANE_SLOT0, &plane));
    for (size_t k = 0; k < s->floats; k++) CHECK(plane[k] == 0);
    CHECK(gap_store_data(s, GAP_PLANE_SLOT0, 1) == plane + s->entry[1].offset);
    gap_store_free(s);
}

static void test_store_init_follows_the_rules(void) {
    gap_store *s = small_store();
    CHECK_OK(gap_store_init(s, 3));
    const float *w = gap_store_data(s, GAP_PLANE_MASTER, 0), *gamma = gap_store_data(s, GAP_PLANE_MASTER, 2);
    const float *mean = gap_store_data(s, GAP_PLANE_MASTER, 4), *var = gap_store_data(s, GAP_PLANE_MASTER, 5);
    float bound = (float)(1.0 / sqrt(27.0)), most = 0;
    for (int k = 0; k < 135; k++) {
        CHECK(fabsf(w[k]) <= bound);
        if (fabsf(w[k]) > most) most = fabsf(w[k]);
    }
    CHECK(most > 0.9f * bound);
    for (int k = 0; k < 5; k++) CHECK(gamma[k] == 1 && mean[k] == 0 && var[k] == 1);
    gap_store_free(s);
}

static void test_store_init_is_a_function_of_seed_and_name(void) {
    gap_store *a = small_store(), *b = NULL;
    CHECK_OK(gap_store_new(&b)); /* other order, other neighbours */
    CHECK_OK(add_norm(b, "first", 40));
    CHECK_OK(add_conv(b, "conv1", 3, 5, 1));
    CHECK_OK(gap_store_init(a, 11));
    CHECK_OK(gap_store_init(b, 11));
    size_t bytes = 135 * sizeof(float);
    float *wa = gap_store_data(a, GAP_PLANE_MASTER, 0), *wb = gap_store_data(b, GAP_PLANE_MASTER, gap_store_find(b, "conv1.weight"));
    CHECK(memcmp(wa, wb, bytes) == 0);
    CHECK_OK(gap_store_init(b, 12));
    CHECK(memcmp(wa, wb, bytes) != 0);
    float before = wa[7];
    uint64_t version = a->version;
    a->entry[0].updates = 9;
    for (int threads = 1; threads <= 3; threads++) {
        CHECK_OK(gap_threads_set(threads));
        CHECK_OK(gap_store_init(a, 11));
        CHECK(wa[7] == before);
    }
    CHECK(a->version > version && a->entry[0].updates == 0);
    gap_store_free(a);
    gap_store_free(b);
}

static void test_store_normal_init_is_normal(void) {
    gap_store *s = NULL;
    CHECK_OK(gap_store_new(&s));
    CHECK_OK(add_conv(s, "c", 64, 128, 1)); /* 73,728 draws */
    CHECK_OK(gap_store_set_init(s, 0, GAP_INIT_NORMAL, 0.5));
    CHECK_FAILS(gap_store_set_init(s, 9, GAP_INIT_NORMAL, 0.5), GAP_ERR_VALUE);
    CHECK_FAILS(gap_store_set_init(s, 0, GAP_INIT_NORMAL, -1), GAP_ERR_VALUE);
    CHECK_OK(gap_store_init(s, 0));
    const float *w = gap_store_data(s, GAP_PLANE_MASTER, 0);
    double sum = 0, square = 0, fourth = 0;
    int n = 64 * 128 * 9, inside = 0, tail = 0;
    for (int k = 0; k < n; k++) {
        double x = (double)w[k] / 0.5;
        sum += x, square += x * x, fourth += x * x * x * x, inside += fabs(x) < 1, tail += fabs(x) > 3;
    }
    CHECK_NEAR(sum / n, 0, 0.015);
    CHECK_NEAR(square / n, 1, 0.02);
    CHECK_NEAR(fourth / n, 3, 0.05);
    CHECK_NEAR((double)inside / n, 0.6827, 0.006);
    CHECK_NEAR((double)tail / n, 0.0027, 0.001);
    gap_store_free(s);
}

/* Stored files depend on these bits for ever. */
static void test_store_init_bits_are_fixed(void) {
    gap_store *s = small_store();
    CHECK_OK(gap_store_set_init(s, 2, GAP_INIT_NORMAL, 1.0));
    CHECK_OK(gap_store_init(s, 2024));
    const float *w = gap_store_data(s, GAP_PLANE_MASTER, 0), *gamma = gap_store_data(s, GAP_PLANE_MASTER, 2);
    uint32_t word[2];
    memcpy(&word[0], &w[5], 4);
    memcpy(&word[1], &gamma[3], 4);
    CHECK(word[0] == 0x3dd5e36eu);
    CHECK(word[1] == 0x3f15a8c9u);
    if (word[0] != 0x3dd5e36eu || word[1] != 0x3f15a8c9u) printf("bits: %08x %08x\n", word[0], word[1]);
    gap_store_free(s);
}

static gap_status make_all(gap_store **out) {
    gap_status st = GAP_OK;
    gap_store *s = NULL;
    float *plane;
    GAP_TRY(gap_store_new(&s));
    GAP_TRY(add_conv(s, "conv1", 3, 5, 1));
    for (int k = 0; k < 20; k++) {
        char name[16];
        snprintf(name, sizeof name, "bn%d", k);
        GAP_TRY(add_norm(s, name, 5));
    }
    GAP_TRY(gap_store_init(s, 1));
    GAP_TRY(gap_store_plane(s, GAP_PLANE_EMA, &plane));
    *out = s, s = NULL;
done:
    gap_store_free(s);
    return st;
}

static void test_store_survives_every_failed_allocation(void) {
    for (int k = 1;; k++) {
        gap_store *s = NULL;
        int64_t live = gap_memory_live();
        gap_memory_fail_after(k);
        gap_status st = make_all(&s);
        gap_memory_fail_after(0);
        CHECK(st == GAP_OK || (st == GAP_ERR_MEMORY && gap_memory_live() == live));
        gap_store_free(s);
        CHECK(k < 1000);
        if (st == GAP_OK || k >= 1000) break;
    }
}

int main(void) {
    RUN(test_store_lays_entries_out_as_torch_names_them);
    RUN(test_store_refuses_twins_late_comers_and_bad_configs);
    RUN(test_store_makes_planes_at_first_use);
    RUN(test_store_init_follows_the_rules);
    RUN(test_store_init_is_a_function_of_seed_and_name);
    RUN(test_store_normal_init_is_normal);
    RUN(test_store_init_bits_are_fixed);
    RUN(test_store_survives_every_failed_allocation);
    return harness_end();
}

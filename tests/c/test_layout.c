#include "nets.h"

#define MAX_NAMES 6

/* A few names to recompute: layers, or what their names begin with, at the first dot. */
static int some_names(const net *t, uint32_t seed, char name[MAX_NAMES][32], const char *list[MAX_NAMES]) {
    for (int k = 0; k < MAX_NAMES; k++) {
        snprintf(name[k], 32, "%s", t->graph->node[harness_u32(&seed) % (uint32_t)t->graph->n_nodes].name);
        if (harness_u32(&seed) % 4) name[k][strcspn(name[k], ".")] = '\0';
        list[k] = name[k];
    }
    return 1 + (int)(harness_u32(&seed) % MAX_NAMES);
}

/* Two steps under these rules; *arena: its size. recompute: some layers, chosen by the seed. */
static snapshot run_recomputing(uint32_t seed, const char *rules, bool poison, bool recompute, size_t *arena, int *again) {
    net t = net_random(seed);
    CHECK_OK(t.st);
    gap_plan_options o = net_options(3, true, "SGD");
    gap_plan *p = NULL;
    char name[MAX_NAMES][32];
    const char *list[MAX_NAMES];
    if (recompute) o.recompute = list, o.n_recompute = some_names(&t, seed, name, list);
    if (rules != NULL) setenv("GAPLESS_FUSE", rules, 1);
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    unsetenv("GAPLESS_FUSE");
    for (uint32_t k = 0; k < 2; k++) {
        if (poison) memset(p->arena, 0xff, p->arena_bytes), p->derived_version = 0;
        CHECK_OK(net_step(p, &t, 3 - k, k, 0.001, -1, 1.0));
    }
    *arena = p->arena_bytes;
    for (int k = 0; k < p->list.n_ops; k++) *again += p->op[k].again;
    snapshot shot = snapshot_take(t.store);
    gap_plan_free(p);
    net_free(&t);
    return shot;
}

static snapshot run(uint32_t seed, const char *rules, bool poison, size_t *arena) {
    int ignored = 0;
    return run_recomputing(seed, rules, poison, false, arena, &ignored);
}

static void test_layout_sharing_memory_changes_no_bit(void) {
    size_t shared = 0, apart = 0, arena;
    for (uint32_t seed = 1; seed <= 60; seed++) {
        snapshot want = run(seed, "-inplace,-share", false, &arena);
        apart += arena;
        snapshot got = run(seed, NULL, false, &arena);
        shared += arena;
        snapshot poisoned = run(seed, NULL, true, &arena);
        if (!snapshot_equal(&want, &got) || !snapshot_equal(&want, &poisoned)) printf("network %u:\n", seed);
        CHECK(snapshot_equal(&want, &got));
        CHECK(snapshot_equal(&want, &poisoned));
        free(want.bytes);
        free(got.bytes);
        free(poisoned.bytes);
    }
    CHECK(shared < apart * 3 / 4);
}

static void test_layout_recomputing_changes_no_bit(void) {
    static const char *const rules[] = {NULL, "-inplace", "-inplace,-share", "-bn_sums", "-bn_apply,-join"};
    size_t arena;
    int again = 0;
    for (uint32_t seed = 1; seed <= 120; seed++) {
        const char *rule = rules[seed % GAP_COUNTOF(rules)];
        snapshot want = run(seed, rule, false, &arena);
        snapshot got = run_recomputing(seed, rule, seed % 3 > 0, true, &arena, &again);
        if (!snapshot_equal(&want, &got)) printf("network %u, rules %s:\n", seed, rule ? rule : "all");
        CHECK(snapshot_equal(&want, &got));
        free(want.bytes);
        free(got.bytes);
    }
    CHECK(again > 300);
}

/* A chain of blocks; recomputed block by block, what is left of each is its output. */
static net chain(void) {
    net t = net_begin(16, 16, 16);
    int v = 0;
    for (int k = 0; k < 8; k++) {
        char name[4][24];
        for (int j = 0; j < 4; j++) snprintf(name[j], sizeof name[j], "block%d.%c", k, 'a' + j);
        int u = net_one(&t, "Conv2d", name[0], ARGS(16, 16, 3, 1, 1), v);
        u = net_one(&t, "SiLU", name[1], NO_ARGS, u);
        v = net_one(&t, "Tanh", name[3], NO_ARGS, net_one(&t, "Conv2d", name[2], ARGS(16, 16, 3, 1, 1), u));
    }
    v = net_one(&t, "AdaptiveAvgPool2d", "pool", ARGS(1), v);
    v = net_one(&t, "Flatten", "flat", NO_ARGS, v);
    net_one(&t, "Linear", "head", ARGS(16, 4), v);
    CHECK_OK(net_end(&t, 1));
    return t;
}

static void test_layout_recomputing_frees_what_is_within(void) {
    static const char *const blocks[] = {"block0", "block1", "block2", "block3", "block4", "block5", "block6", "block7"};
    const size_t value = 32 * 16 * 256 * sizeof(float);
    size_t alive[2];
    net t = chain();
    gap_plan_options o = net_options(32, true, "SGD");
    gap_plan *p = NULL;
    o.measure = true;
    for (int k = 0; k < 2; k++) {
        if (k) o.recompute = blocks, o.n_recompute = GAP_COUNTOF(blocks);
        CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
        alive[k] = gap_plan_memory_of(p).alive;
        gap_plan_row row;
        int said = 0, twice = 0;
        for (int j = 0; j < gap_plan_rows(p); j++) {
            gap_plan_row_at(p, j, &row);
            said += strstr(row.choice, "recomputed") != NULL, twice += p->op[j].again;
        }
        CHECK(said == twice && (said > 0) == (k > 0));
        gap_plan_free(p);
    }
    CHECK(alive[0] > 24 * value); /* three values of each block */
    CHECK(alive[1] < 16 * value);
    net_free(&t);
}

static void test_layout_refuses_names_of_no_layer(void) {
    static const char *const names[] = {"block0", "block"};
    net t = chain();
    gap_plan_options o = net_options(2, true, "SGD");
    gap_plan *p = NULL;
    o.recompute = names, o.n_recompute = 2;
    CHECK_FAILS(gap_plan_new(&p, t.graph, t.store, &o), GAP_ERR_VALUE);
    CHECK(p == NULL && strstr(gap_error_message(), "'block'") != NULL);
    net_free(&t);
}

static void test_layout_evaluation_needs_a_few_values_at_a_time(void) {
    net t = net_begin(16, 8, 8);
    int v = 0;
    for (int k = 0; k < 20; k++) {
        char name[16];
        snprintf(name, sizeof name, "conv%d", k);
        v = net_one(&t, "Conv2d", name, ARGS(16, 16, 3, 1, 1), v);
        v = net_one(&t, "ReLU", "act", NO_ARGS, v);
    }
    v = net_one(&t, "AdaptiveAvgPool2d", "pool", ARGS(1), v);
    net_one(&t, "Flatten", "flat", NO_ARGS, v);
    CHECK_OK(net_end(&t, 1));
    gap_plan_options o = net_options(32, false, NULL);
    gap_plan *p = NULL;
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    gap_plan_memory m = gap_plan_memory_of(p);
    size_t value = 32 * 16 * 64 * sizeof(float);
    CHECK(m.arena <= 3 * value + m.derived + (size_t)p->lanes * m.workspace); /* relu in place: two, and room for the packing */
    gap_plan_free(p);
    net_free(&t);
}

int main(void) {
    RUN(test_layout_sharing_memory_changes_no_bit);
    RUN(test_layout_recomputing_changes_no_bit);
    RUN(test_layout_recomputing_frees_what_is_within);
    RUN(test_layout_refuses_names_of_no_layer);
    RUN(test_layout_evaluation_needs_a_few_values_at_a_time);
    return harness_end();
}

#include "nets.h"

/* Two steps under these rules; *arena: its size. */
static snapshot run(uint32_t seed, const char *rules, bool poison, size_t *arena) {
    net t = net_random(seed);
    CHECK_OK(t.st);
    gap_plan_options o = net_options(3, true, "SGD");
    gap_plan *p = NULL;
    if (rules != NULL) setenv("GAPLESS_FUSE", rules, 1);
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    unsetenv("GAPLESS_FUSE");
    for (uint32_t k = 0; k < 2; k++) {
        if (poison) memset(p->arena, 0xff, p->arena_bytes), p->derived_version = 0;
        CHECK_OK(net_step(p, &t, 3 - k, k, 0.001, -1, 1.0));
    }
    *arena = p->arena_bytes;
    snapshot shot = snapshot_take(t.store);
    gap_plan_free(p);
    net_free(&t);
    return shot;
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
    CHECK(m.arena <= 3 * value + m.derived + m.workspace); /* relu in place: two, and room for the packing */
    gap_plan_free(p);
    net_free(&t);
}

int main(void) {
    RUN(test_layout_sharing_memory_changes_no_bit);
    RUN(test_layout_evaluation_needs_a_few_values_at_a_time);
    return harness_end();
}

#include "nets.h"

/* A random network of layers that keep (H, W), with dead ends, reuse of values and of layers, and some frozen. */
typedef struct { net t; int value[64], channels[64], n; uint32_t seed; char name[16]; int conv[4]; } grower;

static int pick(grower *g, int below) { return (int)(harness_u32(&g->seed) % (uint32_t)below); }

static void grown(grower *g, int value, int channels) {
    g->value[g->n] = value, g->channels[g->n++] = channels;
}

static int same_channels(grower *g, int as) {
    int start = pick(g, g->n);
    for (int k = 0; k < g->n; k++)
        if (g->channels[(start + k) % g->n] == g->channels[as]) return (start + k) % g->n;
    return as;
}

static void grow(grower *g) {
    static const char *const acts[] = {"ReLU", "ReLU6", "SiLU", "Hardswish", "Tanh", "Sigmoid", "Identity"};
    net *t = &g->t;
    int a = g->n > 4 && pick(g, 4) ? g->n - 1 - pick(g, 4) : pick(g, g->n), v = g->value[a], c = g->channels[a];
    int b = same_channels(g, a), w = g->value[b], other = pick(g, g->n);
    const char *name = g->name;
    snprintf(g->name, sizeof g->name, "n%d", g->n);
    if (pick(g, 6) == 0) { /* what fusion is for: conv, norm, act, conv, norm [, shortcut], act */
        const char *const act = acts[pick(g, 6)];
        char part[4][24];
        for (int k = 0; k < 4; k++) snprintf(part[k], sizeof part[k], "n%d.%d", g->n, k);
        const int to = pick(g, 2) ? c : 18;
        int u = net_one(t, acts[pick(g, 6)], part[2], NO_ARGS, net_one(t, "BatchNorm2d", part[1], ARGS(to), net_one(t, "Conv2d", part[0], ARGS(c, to, 3, 1, 1), v)));
        u = net_one(t, "BatchNorm2d", name, ARGS(to), net_one(t, "Conv2d", part[3], ARGS(to, to, 1), u));
        if (to == c && pick(g, 2)) u = net_two(t, "Add", "join", u, v);
        grown(g, net_one(t, act, "after", NO_ARGS, u), to);
        return;
    }
    switch (pick(g, 11)) {
    case 0: grown(g, net_one(t, "Conv2d", name, ARGS(c, c == 5 ? 18 : 5, 3, 1, 1), v), c == 5 ? 18 : 5); break;
    case 1: /* one of two layers that many places share */
        name = c == 5 ? "shared5" : "shared18";
        grown(g, c == 5 || c == 18 ? net_one(t, "Conv2d", name, ARGS(c, c, 1), v) : v, c);
        break;
    case 2: grown(g, net_one(t, "BatchNorm2d", name, ARGS(c), v), c); break;
    case 3: grown(g, net_one(t, "GroupNorm", name, ARGS(1, c), v), c); break;
    case 4: grown(g, net_two(t, "Add", name, v, w), c); break;
    case 5: grown(g, net_one(t, "Tanh", name, NO_ARGS, net_two(t, "Mul", "mul", v, w)), c); break;
    case 6: grown(g, net_two(t, "Mul", name, v, net_one(t, "Sigmoid", "gate", NO_ARGS, net_one(t, "AdaptiveAvgPool2d", "squeeze", ARGS(1), w))), c); break;
    case 7:
        if (c + g->channels[other] <= 40) grown(g, net_two(t, "Concat", name, v, g->value[other]), c + g->channels[other]);
        break;
    case 8: grown(g, net_one(t, "MaxPool2d", name, ARGS(3, 1, 1), v), c); break;
    case 9: grown(g, net_one(t, "Dropout", name, ARGS(0.2), v), c); break;
    default: grown(g, net_one(t, acts[pick(g, GAP_COUNTOF(acts))], name, NO_ARGS, v), c);
    }
}

static net random_net(uint32_t seed) {
    grower g = {.t = net_begin(5, 4, 4), .seed = seed};
    grown(&g, 0, 5);
    for (int k = 0; k < 24; k++) grow(&g);
    int last = net_one(&g.t, "BatchNorm2d", "last", ARGS(g.channels[g.n - 1]), g.value[g.n - 1]);
    last = net_one(&g.t, "Flatten", "flat", NO_ARGS, last);
    net_one(&g.t, "Linear", "head", ARGS(16 * g.channels[g.n - 1], 4), last);
    CHECK_OK(net_end(&g.t, seed));
    for (int k = 0; k < g.t.store->n_entries; k++)
        if (pick(&g, 6) == 0) g.t.store->entry[k].trainable = false;
    return g.t;
}

/* Two steps under these rules; *arena: its size. */
static snapshot run(uint32_t seed, const char *rules, bool poison, size_t *arena) {
    net t = random_net(seed);
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

/* test_fuse_back.c — rule join_back: the gradients are the same bits, whoever masks them. Its lists are in test_fuse.c. */
#include "nets.h"

#include "graph/fuse.h"
#include "ops/ops.h"

static gap_status plan_under(gap_plan **p, const net *t, const gap_plan_options *o, const char *rules) {
    if (rules != NULL) setenv("GAPLESS_FUSE", rules, 1);
    const gap_status st = gap_plan_new(p, t->graph, t->store, o);
    unsetenv("GAPLESS_FUSE");
    return st;
}

static int norm(net *t, const char *name, int c, int in) { return net_one(t, "BatchNorm2d", name, ARGS(c), in); }

/* Convolutions by every method, at both strides, that read a join first: of a value itself, of its own branch, or none. */
enum { MASK_KINDS = 11, MASK_SHORTCUTS = 3 };
static net net_masked(int kind, int shortcut, int frozen) {
    static const double by[MASK_KINDS][7] = { /* out, kernel, stride, padding, dilation, groups, bias */
        {48, 1, 1, 0, 1, 1, 0}, {40, 1, 2, 0, 1, 1, 1},  {24, 3, 1, 1, 1, 1, 0},  {32, 3, 2, 1, 1, 1, 0},  {16, 5, 1, 2, 1, 1, 1}, {24, 3, 1, 2, 2, 1, 0},
        {40, 3, 1, 1, 1, 40, 0}, {40, 5, 2, 2, 1, 40, 0}, {40, 3, 1, 1, 1, 5, 0}, {40, 3, 2, 1, 1, 10, 0}, {30, 3, 1, 1, 1, 2, 1}};
    static const char *const acts[] = {"ReLU", "ReLU6", "LeakyReLU", "Tanh", "Identity"}, *const others[] = {"SiLU", "Hardswish"};
    const double *a = by[kind];
    const int to = (int)a[0];
    const char *act = acts[(kind + shortcut) % 5];
    net t = net_begin(3, 18, 19); /* planes of two pieces, the second shorter */
    const int v = net_one(&t, "ReLU", "r0", NO_ARGS, norm(&t, "bn0", 40, net_one(&t, "Conv2d", "stem", ARGS(3, 40, 3, 1, 1), 0)));
    int z = norm(&t, "bn", 40, net_one(&t, "Conv2d", "main", ARGS(40, 40, 1), v));
    if (shortcut == 1) z = net_two(&t, "Add", "add", z, v);
    else if (shortcut == 2) z = net_two(&t, "Add", "add", norm(&t, "down.bn", 40, net_one(&t, "Conv2d", "down", ARGS(40, 40, 1), v)), z);
    else if (kind % 3 == 0) act = others[kind % 2];
    if (strcmp(act, "Identity") != 0) z = net_one(&t, act, "act", NO_ARGS, z);
    int u = net_one(&t, "Conv2d", "first", ARGS(40, a[0], a[1], a[2], a[3], a[4], a[5], a[6]), z);
    u = kind % 4 == 3 ? net_one(&t, "Tanh", "t", NO_ARGS, u) : norm(&t, "bn2", to, u);
    const int w = norm(&t, "bn3", to, net_one(&t, "Conv2d", "second", ARGS(40, a[0], 1, a[2]), z));
    u = net_one(&t, "AdaptiveAvgPool2d", "pool", ARGS(1), net_one(&t, "ReLU", "r2", NO_ARGS, net_two(&t, "Add", "add2", u, w)));
    net_one(&t, "Linear", "head", ARGS(to, 4), net_one(&t, "Flatten", "flat", NO_ARGS, u));
    if (net_end(&t, 3) == GAP_OK && frozen > 0)
        t.store->entry[gap_store_find(t.store, frozen == 1 ? "first.weight" : frozen == 2 ? "bn.weight" : "main.bias")].trainable = false;
    return t;
}

static int masks_of(const gap_plan *p) {
    int n = 0;
    for (int k = 0; k < p->list.n_ops; k++)
        n += p->list.op[k].def == &gap_op_conv && GAP_ATTR_CONST(&p->list.op[k], gap_conv_attr)->fuse.join > 0;
    return n;
}

/* Two steps, the first of a short batch, in memory that holds no numbers; `masks`: convolutions that mask. */
static snapshot masked_steps(net t, const char *rules, const char *set, int threads, int *masks) {
    gap_plan_options o = net_options(5, true, "SGD");
    gap_plan *p = NULL;
    CHECK_OK(t.st);
    CHECK_OK(gap_kernels_find(&o.kernels, set));
    CHECK_OK(gap_threads_set(threads));
    CHECK_OK(plan_under(&p, &t, &o, rules));
    *masks = masks_of(p);
    for (uint32_t k = 0; k < 2; k++) {
        memset(p->arena, 0xff, p->arena_bytes), p->derived_version = 0;
        CHECK_OK(net_step(p, &t, k ? 5 : 3, k, 0.01, -1, 0));
    }
    const snapshot s = snapshot_take(t.store);
    gap_plan_free(p);
    net_free(&t);
    return s;
}

/* Both ways the very same bits, of every method, in every kernel set, with any threads. */
static void test_fuse_back_is_the_same_bits(void) {
    static const char *const sets[] = {"avx512", "avx2", "ref", "neon"};
    const gap_kernels *found;
    for (int k = 0; k < MASK_KINDS * MASK_SHORTCUTS; k++) {
        const int kind = k / MASK_SHORTCUTS, shortcut = k % MASK_SHORTCUTS, frozen = k % 4;
        int masks;
        snapshot want = masked_steps(net_masked(kind, shortcut, frozen), "-join_back", NULL, 1, &masks);
        CHECK(masks == 0 && isfinite(((const float *)(void *)want.bytes)[0]));
        for (int c = 0; c < GAP_COUNTOF(sets) * 3; c++) {
            if (gap_kernels_find(&found, sets[c / 3]) != GAP_OK || (c / 3 == 2 && c % 3 != k % 3)) continue; /* the reference is slow */
            snapshot got = masked_steps(net_masked(kind, shortcut, frozen), NULL, sets[c / 3], 1 + c % 3, &masks);
            if (!snapshot_equal(&want, &got)) printf("method %d, shortcut %d, frozen %d, %s, %d threads:\n", kind, shortcut, frozen, sets[c / 3], 1 + c % 3);
            CHECK(snapshot_equal(&want, &got));
            CHECK(masks == 1 + (shortcut > 0)); /* of what "first" reads; and of the stem, where two read it */
            free(got.bytes);
        }
        free(want.bytes);
    }
    int all = 0;
    for (uint32_t seed = 300; seed < 360; seed++) {
        int masks, none;
        snapshot got = masked_steps(net_random(seed), NULL, NULL, 2, &masks), want = masked_steps(net_random(seed), "-join_back", NULL, 2, &none);
        if (!snapshot_equal(&want, &got)) printf("network %u:\n", seed);
        CHECK(snapshot_equal(&want, &got) && none == 0);
        all += masks;
        free(want.bytes), free(got.bytes);
    }
    CHECK(all > 30);
    CHECK_OK(gap_threads_set(2));
}

/* A loss of two outputs: half their squares. */
static gap_status squares_check(const gap_value *cfg, const gap_desc *outputs, int n_outputs) {
    (void)cfg, (void)outputs;
    return n_outputs == 2 ? GAP_OK : gap_fail(GAP_ERR_SHAPE, "squares: two outputs");
}

static void squares_forward(const gap_loss_call *call, int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; s++) {
        call->term[s] = 0, call->pred[s] = 0;
        for (int o = 0; o < 2; o++) {
            const int64_t n = gap_desc_count(&call->desc[o]);
            for (int64_t k = s * n; k < (s + 1) * n; k++) {
                call->term[s] += (double)call->output[o][k] * (double)call->output[o][k] / 2;
                if (call->gradient != NULL) call->gradient[o][k] = call->output[o][k] / (float)call->y->n;
            }
        }
        call->loss[s] = (float)call->term[s];
    }
}

static const gap_loss_def squares_loss = {.name = "squares", .check = squares_check, .check_targets = square_check_targets,
                                          .share = square_share, .forward = squares_forward};

/* What is an output of the network too has a part of its gradient from the loss, which is there before. */
static void test_fuse_back_adds_to_the_gradient_of_an_output(void) {
    snapshot after[2];
    for (int off = 0; off < 2; off++) {
        net t = net_masked(2, 1, 0);
        const int outputs[] = {t.last, 7}; /* and what "first" reads */
        gap_plan_options o = net_options(3, true, "SGD");
        gap_plan *p = NULL;
        CHECK_OK(gap_graph_set_outputs(t.graph, outputs, 2));
        o.loss = &squares_loss;
        CHECK_OK(plan_under(&p, &t, &o, off ? "-join_back" : NULL));
        CHECK(masks_of(p) == (off ? 0 : 2));
        for (uint32_t k = 0; k < 2; k++) CHECK_OK(net_step(p, &t, 3 - k, k, 0.01, -1, 0));
        after[off] = snapshot_take(t.store);
        gap_plan_free(p);
        net_free(&t);
    }
    CHECK(snapshot_equal(&after[0], &after[1]));
    free(after[0].bytes), free(after[1].bytes);
}

int main(void) {
    RUN(test_fuse_back_is_the_same_bits);
    RUN(test_fuse_back_adds_to_the_gradient_of_an_output);
    return harness_end();
}

#include "core/shape.h"
#include "nets.h"

/* The batch's loss as a step sees it (batch statistics, dropout), without moving anything; -1 when it fails. */
static double loss_at(gap_plan *p, const batch *b, int64_t n) {
    double mean = -1;
    float loss[NET_BATCH];
    int32_t pred[NET_BATCH];
    gap_step_args args = {.n_groups = 0, .ema_decay = -1, .seed = 5, .epoch = 3, .step = 1, .ids = b->ids};
    CHECK_OK(gap_plan_step(p, n, b->x, &b->targets, &args, loss, pred, &mean));
    return mean;
}

/* The loss's slope along direction g / |g| of entry e, by a difference over 2 h. */
static double slope_of(gap_plan *p, const net *t, const batch *b, int64_t n, int e, const float *g, double norm, double h) {
    const gap_entry *entry = &t->store->entry[e];
    float *w = gap_store_data(t->store, GAP_PLANE_MASTER, e), *kept = malloc(entry->count * sizeof *kept);
    double side[2];
    memcpy(kept, w, entry->count * sizeof *kept);
    for (int s = 0; s < 2; s++) {
        for (size_t k = 0; k < entry->count; k++) w[k] = (float)((double)kept[k] + (s ? -h : h) / norm * (double)g[k]);
        t->store->version++;
        side[s] = loss_at(p, b, n);
    }
    memcpy(w, kept, entry->count * sizeof *kept);
    t->store->version++;
    free(kept);
    return (side[0] - side[1]) / (2 * h);
}

/* Along its gradient the loss must rise by |g|. Several step widths: a wide one may cross a kink of MaxPool, a narrow one
 * drowns in rounding; a wrong gradient agrees with none. */
static void check_entry(gap_plan *p, const net *t, const batch *b, int64_t n, int e, const float *gradient) {
    static const double widths[] = {1e-3, 3e-4, 1e-4};
    const gap_entry *entry = &t->store->entry[e];
    const float *g = gradient + entry->offset;
    double norm = 0, slope = 0, best = HUGE_VAL;
    for (size_t k = 0; k < entry->count; k++) norm += (double)g[k] * (double)g[k];
    norm = sqrt(norm);
    if (norm < 1e-5) { /* a bias before BatchNorm: the loss must not depend on it */
        float ones[64];
        for (int k = 0; k < 64; k++) ones[k] = 1;
        CHECK(entry->count <= 64);
        CHECK(entry->count > 64 || fabs(slope_of(p, t, b, n, e, ones, sqrt((double)entry->count), 1e-3)) < 5e-3);
        return;
    }
    for (int k = 0; k < GAP_COUNTOF(widths) && best > 0.01 * norm + 1e-4; k++) {
        slope = slope_of(p, t, b, n, e, g, norm, widths[k]);
        best = fmin(best, fabs(slope - norm));
    }
    if (best <= 0.01 * norm + 1e-4) return;
    printf("%s: slope %g, gradient %g\n", entry->name, slope, norm);
    CHECK(!"the gradient is the loss's slope");
}

static void check_gradients(net *t, int64_t capacity, int64_t n) {
    gap_plan_options o = net_options(capacity, true, NULL);
    gap_plan *p = NULL;
    static batch b;
    batch_make(&b, t, n, 3);
    CHECK_OK(gap_plan_new(&p, t->graph, t->store, &o));
    if (p == NULL) return;
    snapshot before = snapshot_take(t->store);
    CHECK(loss_at(p, &b, n) > 0);
    CHECK(snapshot_still(&before, t->store)); /* without an optimizer nothing moves */
    free(before.bytes);
    float *gradient = net_gradients(p, t->store);
    for (int e = 0; e < t->store->n_entries; e++) {
        if (t->store->entry[e].trainable) check_entry(p, t, &b, n, e, gradient);
        else
            for (size_t k = 0; k < t->store->entry[e].count; k++) CHECK(gradient[t->store->entry[e].offset + k] == 0);
    }
    free(gradient);
    gap_plan_free(p);
}

static void test_exec_gradients_are_slopes(void) {
    net t = net_everything(0.3);
    CHECK_OK(net_end(&t, 9));
    check_gradients(&t, 5, 5);
    net_free(&t);
}

static void test_exec_gradients_are_slopes_in_a_short_batch(void) {
    net t = net_everything(0.3);
    CHECK_OK(net_end(&t, 10));
    check_gradients(&t, NET_BATCH, 3);
    net_free(&t);
}

/* A layer used twice, a value used by three, a value added to itself, and a branch of other strides. */
static net net_shared(void) {
    net t = net_begin(4, 6, 6);
    int a = net_one(&t, "Conv2d", "conv", ARGS(4, 4, 3, 1, 1), 0);
    a = net_one(&t, "Tanh", "act", NO_ARGS, a);
    int b = net_one(&t, "Conv2d", "conv", ARGS(4, 4, 3, 1, 1), a);
    b = net_one(&t, "BatchNorm2d", "bn", ARGS(4), b);
    int c = net_two(&t, "Add", "add1", a, b);
    c = net_one(&t, "BatchNorm2d", "bn", ARGS(4), c);
    int d = net_two(&t, "Add", "twice", c, c);
    int e = net_two(&t, "Mul", "square", a, a);
    int f = net_two(&t, "Concat", "cat", d, d);
    f = net_one(&t, "Conv2d", "mix", ARGS(8, 4, 1), f);
    f = net_two(&t, "Add", "add2", e, f);
    f = net_one(&t, "LeakyReLU", "leaky", ARGS(0.3), f);
    f = net_one(&t, "Flatten", "flat", NO_ARGS, f);
    net_one(&t, "Linear", "head", ARGS(144, 5), f);
    return t;
}

static void test_exec_gradients_of_shared_layers_add_up(void) {
    net t = net_shared();
    CHECK_OK(net_end(&t, 2));
    CHECK(gap_store_find(t.store, "conv.weight") == 0 && gap_store_find(t.store, "bn.weight") == 2);
    check_gradients(&t, 4, 4);
    net_free(&t);
}

static gap_status freeze(net *t, const char *layer) {
    int first = gap_store_find_layer(t->store, layer);
    if (first < 0) return gap_fail(GAP_ERR_VALUE, "no layer %s", layer);
    for (int k = first; k < t->store->n_entries && t->store->entry[k].layer == t->store->entry[first].layer; k++)
        t->store->entry[k].trainable = false;
    return GAP_OK;
}

static void test_exec_gradients_beside_frozen_layers(void) {
    net t = net_everything(0.3);
    CHECK_OK(net_end(&t, 9));
    CHECK_OK(freeze(&t, "conv3"));
    CHECK_OK(freeze(&t, "bn1"));
    CHECK_OK(freeze(&t, "gn2"));
    t.store->entry[gap_store_find(t.store, "head.bias")].trainable = false;
    check_gradients(&t, 5, 5);
    net_free(&t);
}

static void test_exec_frozen_stem_takes_no_part_in_backward(void) {
    net t = net_everything(0.3);
    CHECK_OK(net_end(&t, 9));
    gap_plan_options o = net_options(4, true, NULL);
    gap_plan *p = NULL;
    size_t arena;
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    arena = p->arena_bytes;
    gap_plan_free(p);
    static const char *const stem[] = {"conv1", "bn1", "conv2", "gn2", "fc", "conv3", "conv4", "conv5"};
    for (int k = 0; k < GAP_COUNTOF(stem); k++) CHECK_OK(freeze(&t, stem[k]));
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    for (int k = 0; k < p->list.n_ops; k++) {
        const char *layer = p->list.op[k].layer;
        bool above = layer != NULL && (strcmp(layer, "bn2") == 0 || strcmp(layer, "drop") == 0 || strcmp(layer, "flat") == 0 || strcmp(layer, "head") == 0);
        CHECK(above || !p->op[k].active);
    }
    CHECK(p->arena_bytes < arena);
    gap_plan_free(p);
    check_gradients(&t, 4, 4);
    net_free(&t);
}

/* Three steps; gives the store's whole state. */
static snapshot trained(int threads, const char *set, bool poison) {
    net t = net_everything(0.3);
    gap_plan_options o = net_options(NET_BATCH, true, "AdamW");
    gap_plan *p = NULL;
    CHECK_OK(net_end(&t, 9));
    CHECK_OK(gap_threads_set(threads));
    CHECK_OK(gap_kernels_find(&o.kernels, set));
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    for (uint32_t k = 0; k < 3; k++) {
        if (poison) { /* nothing may lean on what the arena held before */
            memset(p->arena, 0xff, p->arena_bytes);
            p->derived_version = 0;
        }
        CHECK_OK(net_step(p, &t, k == 2 ? 4 : NET_BATCH, k, 0.01, 0.9, 0.5));
    }
    snapshot shot = snapshot_take(t.store);
    gap_plan_free(p);
    net_free(&t);
    CHECK_OK(gap_threads_set(2));
    return shot;
}

static void test_exec_training_gives_the_same_bits_everywhere(void) {
    static const char *const sets[] = {"ref", "avx2", "avx512", "neon"};
    static const int threads[] = {1, 2, 3, 7};
    snapshot want = trained(1, "ref", false);
    for (int s = 0; s < GAP_COUNTOF(sets); s++)
        for (int k = 0; k < GAP_COUNTOF(threads); k++) {
            const gap_kernels *have;
            if (gap_kernels_find(&have, sets[s]) != GAP_OK) continue;
            snapshot got = trained(threads[k], sets[s], false);
            if (!snapshot_equal(&want, &got)) printf("%s, %d threads:\n", sets[s], threads[k]);
            CHECK(snapshot_equal(&want, &got));
            free(got.bytes);
        }
    free(want.bytes);
}

static void test_exec_reads_nothing_it_did_not_write(void) {
    snapshot want = trained(2, NULL, false), got = trained(2, NULL, true);
    CHECK(snapshot_equal(&want, &got));
    free(want.bytes);
    free(got.bytes);
}

static void test_exec_threads_may_change_between_steps(void) {
    snapshot shot[2];
    for (int round = 0; round < 2; round++) {
        net t = net_everything(0.3);
        gap_plan_options o = net_options(NET_BATCH, true, "SGD");
        gap_plan *p = NULL;
        CHECK_OK(net_end(&t, 9));
        CHECK_OK(gap_threads_set(round ? 1 : 3));
        CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
        for (uint32_t k = 0; k < 4; k++) {
            if (round) CHECK_OK(gap_threads_set(1 + (int)(k * 5) % 9));
            CHECK_OK(net_step(p, &t, NET_BATCH, k, 0.01, -1, 0));
        }
        shot[round] = snapshot_take(t.store);
        gap_plan_free(p);
        net_free(&t);
    }
    CHECK_OK(gap_threads_set(2));
    CHECK(snapshot_equal(&shot[0], &shot[1]));
    free(shot[0].bytes);
    free(shot[1].bytes);
}

static void test_exec_short_batch_does_not_see_the_last_one(void) {
    snapshot shot[2];
    for (int round = 0; round < 2; round++) {
        net t = net_everything(0.3);
        gap_plan_options o = net_options(NET_BATCH, true, "SGD");
        gap_plan *p = NULL;
        CHECK_OK(net_end(&t, 9));
        CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
        if (round) { /* a full batch first, then the weights as they were */
            CHECK_OK(net_step(p, &t, NET_BATCH, 8, 0.1, -1, 0));
            CHECK_OK(gap_store_init(t.store, 9));
        }
        CHECK_OK(net_step(p, &t, 2, 1, 0.1, -1, 0));
        t.store->version = 0;
        shot[round] = snapshot_take(t.store);
        gap_plan_free(p);
        net_free(&t);
    }
    CHECK(snapshot_equal(&shot[0], &shot[1]));
    free(shot[0].bytes);
    free(shot[1].bytes);
}

static void test_exec_allocates_nothing_after_the_first_step(void) {
    net t = net_everything(0.3);
    gap_plan_options o = net_options(NET_BATCH, true, "SGD");
    gap_plan *p = NULL, *eval = NULL;
    static batch b;
    float out[NET_BATCH * 6];
    CHECK_OK(net_end(&t, 9));
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    o.training = false;
    CHECK_OK(gap_plan_new(&eval, t.graph, t.store, &o));
    batch_make(&b, &t, NET_BATCH, 1);
    CHECK_OK(net_step(p, &t, NET_BATCH, 0, 0.01, 0.9, 1.0));
    CHECK_OK(gap_plan_forward(eval, NET_BATCH, b.x, (float *const[4]){out}));
    int64_t count = gap_memory_count();
    for (uint32_t k = 1; k < 4; k++) {
        CHECK_OK(net_step(p, &t, k == 3 ? 2 : NET_BATCH, k, 0.01, 0.9, 1.0));
        CHECK_OK(gap_plan_forward(eval, NET_BATCH, b.x, (float *const[4]){out}));
    }
    CHECK(gap_memory_count() == count);
    gap_plan_free(p);
    gap_plan_free(eval);
    net_free(&t);
}

/* Outputs and losses of n samples of a plan made with so many threads and run with so many. */
static void lanes_evaluate(net *t, int made, int run, int64_t n, const batch *b, float *out, float *loss, int32_t *pred, int *lanes) {
    gap_plan_options o = net_options(NET_BATCH, false, NULL);
    gap_plan *p = NULL;
    CHECK_OK(gap_threads_set(made));
    CHECK_OK(gap_plan_new(&p, t->graph, t->store, &o));
    *lanes = p->lanes;
    memset(p->arena, 0xff, (size_t)p->lanes * p->arena_bytes);
    CHECK_OK(gap_threads_set(run));
    const gap_targets y = {.n = n, .values = b->targets.values, .offsets = b->targets.offsets};
    CHECK_OK(gap_plan_evaluate(p, n, b->x, &y, loss, pred, (float *const[4]){out}));
    gap_plan_free(p);
    CHECK_OK(gap_threads_set(2));
}

static void test_exec_passes_side_by_side_give_the_same_bits(void) {
    static const int made[] = {2, 3, 7, 3, 1}, run[] = {2, 3, 7, 1, 3};
    static batch b;
    net t = net_everything(0.3);
    CHECK_OK(net_end(&t, 9));
    batch_make(&b, &t, NET_BATCH, 1);
    for (int64_t n = 1; n <= NET_BATCH; n++) {
        float want[NET_BATCH * 6], want_loss[NET_BATCH], got[NET_BATCH * 6], loss[NET_BATCH];
        int32_t want_pred[NET_BATCH], pred[NET_BATCH];
        int lanes;
        lanes_evaluate(&t, 1, 1, n, &b, want, want_loss, want_pred, &lanes);
        CHECK(lanes == 1);
        for (int k = 0; k < GAP_COUNTOF(made); k++) {
            lanes_evaluate(&t, made[k], run[k], n, &b, got, loss, pred, &lanes);
            CHECK(lanes == gap_min64(made[k], NET_BATCH / GAP_LANE_SAMPLES));
            CHECK(memcmp(got, want, (size_t)n * 6 * sizeof *got) == 0);
            CHECK(memcmp(loss, want_loss, (size_t)n * sizeof *loss) == 0 && memcmp(pred, want_pred, (size_t)n * sizeof *pred) == 0);
        }
    }
    net_free(&t);
}

static int stop_at_once(void *cookie) { return ++*(int *)cookie > 0; }
static int stop_soon(void *cookie) { return ++*(int *)cookie > 12; } /* in the middle of a pass */

static void test_exec_passes_side_by_side_can_be_interrupted(void) {
    static gap_interrupted_fn *const polls[] = {stop_at_once, stop_soon};
    static batch b;
    net t = net_everything(0.3);
    gap_plan_options o = net_options(NET_BATCH, false, NULL);
    gap_plan *p = NULL;
    float out[NET_BATCH * 6], again[NET_BATCH * 6];
    CHECK_OK(net_end(&t, 9));
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK(p->lanes == 2);
    batch_make(&b, &t, NET_BATCH, 1);
    CHECK_OK(gap_plan_forward(p, NET_BATCH, b.x, (float *const[4]){out}));
    for (int k = 0; k < GAP_COUNTOF(polls); k++) {
        int count = 0;
        gap_interrupt_set(polls[k], &count, NULL, NULL);
        gap_status st = GAP_OK;
        for (int j = 0; j < 100 && st == GAP_OK; j++) { /* rarely the worker has done both passes before this thread begins */
            count = 0;
            st = gap_plan_forward(p, NET_BATCH, b.x, (float *const[4]){again});
        }
        CHECK(st == GAP_ERR_INTERRUPTED);
        gap_interrupt_set(NULL, NULL, NULL, NULL);
        CHECK_OK(gap_plan_forward(p, NET_BATCH, b.x, (float *const[4]){again}));
        CHECK(memcmp(out, again, sizeof out) == 0);
    }
    gap_plan_free(p);
    net_free(&t);
}

static void test_exec_training_learns(void) {
    net t = net_everything(0);
    gap_plan_options o = net_options(NET_BATCH, true, "SGD");
    gap_plan *p = NULL;
    static batch b;
    CHECK_OK(net_end(&t, 9));
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    batch_make(&b, &t, NET_BATCH, 4);
    double first = 0, last = 0, row[GAP_PARAM_MAX];
    gap_step_args args = {.hyper = net_hyper(o.optimizer, 0.02, row), .n_groups = 1, .ema_decay = -1, .ids = b.ids};
    for (int k = 0; k < 40; k++) CHECK_OK(gap_plan_step(p, NET_BATCH, b.x, &b.targets, &args, NULL, NULL, k ? &last : &first));
    CHECK(last < 0.2 * first);
    gap_plan_free(p);
    net_free(&t);
}

int main(void) {
    RUN(test_exec_gradients_are_slopes);
    RUN(test_exec_gradients_are_slopes_in_a_short_batch);
    RUN(test_exec_gradients_of_shared_layers_add_up);
    RUN(test_exec_gradients_beside_frozen_layers);
    RUN(test_exec_frozen_stem_takes_no_part_in_backward);
    RUN(test_exec_training_gives_the_same_bits_everywhere);
    RUN(test_exec_reads_nothing_it_did_not_write);
    RUN(test_exec_threads_may_change_between_steps);
    RUN(test_exec_passes_side_by_side_give_the_same_bits);
    RUN(test_exec_passes_side_by_side_can_be_interrupted);
    RUN(test_exec_short_batch_does_not_see_the_last_one);
    RUN(test_exec_allocates_nothing_after_the_first_step);
    RUN(test_exec_training_learns);
    return harness_end();
}

#include "nets.h"

typedef struct { int calls, stop_at; } poll;
static int poll_now(void *cookie) {
    poll *q = cookie;
    return ++q->calls >= q->stop_at;
}

static void test_update_interrupted_steps_leave_no_trace(void) {
    net t = net_everything(0.3);
    gap_plan_options o = net_options(NET_BATCH, true, "SGD");
    gap_plan *p = NULL;
    CHECK_OK(net_end(&t, 9));
    CHECK_OK(gap_threads_set(1)); /* every chunk polls */
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK_OK(net_step(p, &t, NET_BATCH, 0, 0.01, 0.9, 1.0));
    snapshot before = snapshot_take(t.store);
    poll q = {0, 1};
    int stopped = 0;
    for (;; q.stop_at += 7) {
        q.calls = 0;
        gap_interrupt_set(poll_now, &q, NULL, NULL);
        gap_status st = net_step(p, &t, NET_BATCH, 1, 0.01, 0.9, 1.0);
        gap_interrupt_set(NULL, NULL, NULL, NULL);
        if (st == GAP_OK) break;
        CHECK(st == GAP_ERR_INTERRUPTED);
        CHECK(snapshot_still(&before, t.store));
        stopped++;
        if (st != GAP_ERR_INTERRUPTED || stopped > 5000) break;
    }
    CHECK(stopped > 5);
    snapshot after = snapshot_take(t.store); /* and the step that follows is the step that would have been */
    net twin = net_everything(0.3);
    gap_plan *undisturbed = NULL;
    CHECK_OK(net_end(&twin, 9));
    CHECK_OK(gap_plan_new(&undisturbed, twin.graph, twin.store, &o));
    for (uint32_t k = 0; k < 2; k++) CHECK_OK(net_step(undisturbed, &twin, NET_BATCH, k, 0.01, 0.9, 1.0));
    CHECK(snapshot_still(&after, twin.store));
    CHECK_OK(gap_threads_set(2));
    free(before.bytes);
    free(after.bytes);
    gap_plan_free(undisturbed);
    gap_plan_free(p);
    net_free(&twin);
    net_free(&t);
}

/* Says stop at every poll once the update has begun: the update must not ask. */
static gap_store *watched;
static float watched_first;
static int poll_when_written(void *cookie) {
    (void)cookie;
    return *gap_store_data(watched, GAP_PLANE_MASTER, gap_store_find(watched, "bn1.running_mean")) != watched_first;
}

static void test_update_is_not_interrupted_half_way(void) {
    net t = net_everything(0.3);
    gap_plan_options o = net_options(NET_BATCH, true, "SGD");
    gap_plan *p = NULL;
    CHECK_OK(net_end(&t, 9));
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    watched = t.store;
    watched_first = *gap_store_data(t.store, GAP_PLANE_MASTER, gap_store_find(t.store, "bn1.running_mean"));
    gap_interrupt_set(poll_when_written, NULL, NULL, NULL);
    CHECK_OK(net_step(p, &t, NET_BATCH, 0, 0.01, 0.9, 0));
    gap_interrupted_fn *back;
    void *cookie;
    gap_interrupt_set(NULL, NULL, &back, &cookie);
    CHECK(back == poll_when_written); /* the poll is there again afterwards */
    CHECK(t.store->entry[0].updates == 1);
    gap_plan_free(p);
    net_free(&t);
}

static const char *nonfinite_step(gap_plan *p, const net *t, size_t at, float value) {
    static batch b;
    double row[GAP_PARAM_MAX];
    gap_step_args args = {.hyper = net_hyper(p->opt.optimizer, 0.01, row), .n_groups = 1, .ema_decay = 0.9, .epoch = 2, .step = 17, .ids = b.ids};
    batch_make(&b, t, NET_BATCH, 1);
    b.x[at] = value;
    snapshot before = snapshot_take(t->store);
    CHECK_FAILS(gap_plan_step(p, NET_BATCH, b.x, &b.targets, &args, NULL, NULL, NULL), GAP_ERR_NONFINITE);
    CHECK(snapshot_still(&before, t->store));
    free(before.bytes);
    return gap_error_message();
}

static void test_update_nonfinite_loss_names_the_sample(void) {
    net t = net_begin(3, 10, 8); /* without batch statistics one sample does not spoil the others */
    int a = net_one(&t, "Conv2d", "conv", ARGS(3, 4, 3, 1, 1), 0);
    a = net_one(&t, "Flatten", "flat", NO_ARGS, a);
    net_one(&t, "Linear", "head", ARGS(320, 5), a);
    gap_plan_options o = net_options(NET_BATCH, true, "SGD");
    gap_plan *p = NULL;
    CHECK_OK(net_end(&t, 9));
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    const char *m = nonfinite_step(p, &t, 4 * 240 + 7, NAN); /* sample 4: id 100 + 28 + 1 */
    CHECK(strstr(m, "epoch 2, step 17: the loss of sample 129 is nan (1 of the batch's 7 are not finite)") == m);
    m = nonfinite_step(p, &t, 7, INFINITY);
    CHECK(strstr(m, "the loss of sample 101 is ") != NULL);
    gap_plan_free(p);
    net_free(&t);
}

/* As square_loss, but what it says about the gradient is broken. */
static void broken_forward(const gap_loss_call *call, int64_t begin, int64_t end) {
    square_forward(call, begin, end);
    if (call->gradient != NULL && begin == 0) call->gradient[0][3] = INFINITY;
}
static const gap_loss_def broken_loss = {.name = "broken", .check = square_check, .check_targets = square_check_targets,
                                         .share = square_share, .forward = broken_forward};

static void test_update_nonfinite_gradient_names_the_layer(void) {
    net t = net_everything(0);
    gap_plan_options o = net_options(NET_BATCH, true, "SGD");
    gap_plan *p = NULL;
    o.loss = &broken_loss;
    CHECK_OK(net_end(&t, 9));
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    const char *m = nonfinite_step(p, &t, 0, 0.5f);
    CHECK(strstr(m, "the gradient of head.bias is not finite") != NULL); /* the layer nearest to the loss */
    CHECK(strstr(m, "samples 101, 108, 115") != NULL);
    gap_plan_free(p);
    net_free(&t);
}

static void test_update_nonfinite_statistics_are_refused(void) {
    net t = net_begin(2, 4, 4);
    int a = net_one(&t, "BatchNorm2d", "bn", ARGS(2), 0);
    a = net_one(&t, "Sigmoid", "act", NO_ARGS, a);
    a = net_one(&t, "Flatten", "flat", NO_ARGS, a);
    net_one(&t, "Linear", "head", ARGS(32, 3), a);
    gap_plan_options o = net_options(NET_BATCH, true, "SGD");
    gap_plan *p = NULL;
    CHECK_OK(net_end(&t, 9));
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    const char *m = nonfinite_step(p, &t, 3, 3e38f); /* its square overflows; loss and gradients are finite */
    CHECK(strstr(m, "the batch's statistics would make bn.running_var not finite (samples 101") != NULL);
    gap_plan_free(p);
    net_free(&t);
}

static void test_update_clips_to_the_global_norm(void) {
    net t = net_everything(0);
    gap_plan_options o = net_options(NET_BATCH, true, "SGD");
    gap_plan *p = NULL;
    double norm[2] = {0, 0};
    CHECK_OK(net_end(&t, 9));
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK(gap_plan_gradient(p, 0) == NULL);
    for (int round = 0; round < 2; round++) {
        CHECK_OK(gap_store_init(t.store, 9));
        CHECK_OK(net_step(p, &t, NET_BATCH, 1, 0, -1, round ? 0.25 : 1e9));
        float *g = net_gradients(p, t.store);
        for (size_t k = 0; k < t.store->floats; k++) norm[round] += (double)g[k] * (double)g[k];
        free(g);
    }
    CHECK(sqrt(norm[0]) > 0.5);
    CHECK_NEAR(sqrt(norm[1]), 0.25, 1e-5);
    gap_plan_free(p);
    net_free(&t);
}

static void test_update_ema_follows_weights_and_buffers(void) {
    net t = net_everything(0);
    gap_plan_options o = net_options(NET_BATCH, true, "SGD");
    gap_plan *p = NULL;
    CHECK_OK(net_end(&t, 9));
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK_OK(net_step(p, &t, NET_BATCH, 0, 0.05, -1, 0));
    CHECK(t.store->plane[GAP_PLANE_EMA] == NULL);
    size_t floats = t.store->floats;
    const float *w = gap_store_data(t.store, GAP_PLANE_MASTER, 0);
    double *want = malloc(floats * sizeof *want);
    for (size_t k = 0; k < floats; k++) want[k] = (double)w[k];
    for (uint32_t step = 1; step < 4; step++) {
        CHECK_OK(net_step(p, &t, NET_BATCH, step, 0.05, 0.75, 0));
        const float *ema = gap_store_data(t.store, GAP_PLANE_EMA, 0);
        for (size_t k = 0; k < floats; k++) {
            want[k] = 0.75 * want[k] + 0.25 * (double)w[k];
            CHECK_NEAR((double)ema[k], want[k], 1e-6);
        }
    }
    free(want);
    gap_plan_free(p);
    net_free(&t);
}

static void test_update_is_the_optimizers_per_group(void) {
    net t = net_everything(0);
    gap_plan_options o = net_options(NET_BATCH, true, "SGD");
    gap_plan *p = NULL;
    static batch b;
    double rows[2 * GAP_PARAM_MAX];
    int n_params = o.optimizer->n_params, head = gap_store_find(t.store, "head.weight"), frozen = gap_store_find(t.store, "fc.weight");
    CHECK_OK(net_end(&t, 9));
    t.store->entry[head].group = 1;
    t.store->entry[frozen].trainable = false;
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    net_hyper(o.optimizer, 0.5, rows);
    net_hyper(o.optimizer, 0.125, rows + n_params);
    batch_make(&b, &t, NET_BATCH, 1);
    gap_step_args args = {.hyper = rows, .n_groups = 2, .ema_decay = -1, .ids = b.ids};
    snapshot before = snapshot_take(t.store);
    const float *old = (const float *)(const void *)before.bytes, *w = gap_store_data(t.store, GAP_PLANE_MASTER, 0);
    CHECK_OK(gap_plan_step(p, NET_BATCH, b.x, &b.targets, &args, NULL, NULL, NULL));
    float *g = net_gradients(p, t.store);
    for (int e = 0; e < t.store->n_entries; e++) { /* the first step with momentum: w - lr * g */
        const gap_entry *entry = &t.store->entry[e];
        if (entry->decl.kind == GAP_WEIGHT_BUFFER) continue;
        float lr = e == head ? 0.125f : 0.5f;
        CHECK(entry->updates == (e != frozen));
        for (size_t k = entry->offset; k < entry->offset + entry->count; k++) {
            if (e == frozen) CHECK(w[k] == old[k] && g[k] == 0);
            else CHECK_NEAR((double)w[k], (double)(old[k] - lr * g[k]), 1e-6);
        }
    }
    free(g);
    args.n_groups = 1;
    CHECK_FAILS(gap_plan_step(p, NET_BATCH, b.x, &b.targets, &args, NULL, NULL, NULL), GAP_ERR_VALUE);
    CHECK(strstr(gap_error_message(), "head.weight is in group 1") != NULL);
    args.n_groups = 2, rows[1] = NAN;
    CHECK_FAILS(gap_plan_step(p, NET_BATCH, b.x, &b.targets, &args, NULL, NULL, NULL), GAP_ERR_VALUE);
    rows[1] = 0;
    t.store->entry[frozen].trainable = true;
    CHECK_FAILS(gap_plan_step(p, NET_BATCH, b.x, &b.targets, &args, NULL, NULL, NULL), GAP_ERR_VALUE);
    CHECK(strstr(gap_error_message(), "make a new plan") != NULL);
    free(before.bytes);
    gap_plan_free(p);
    net_free(&t);
}

static void test_update_frozen_norm_keeps_its_statistics(void) {
    net t = net_everything(0);
    gap_plan_options o = net_options(NET_BATCH, true, "SGD");
    gap_plan *p = NULL;
    CHECK_OK(net_end(&t, 9));
    int gamma = gap_store_find(t.store, "bn1.weight"), mean = gap_store_find(t.store, "bn1.running_mean");
    int moving = gap_store_find(t.store, "bn2.running_mean");
    t.store->entry[gamma].trainable = t.store->entry[gamma + 1].trainable = false;
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK_OK(net_step(p, &t, NET_BATCH, 1, 0.1, -1, 0));
    for (int k = 0; k < 18; k++) {
        CHECK(gap_store_data(t.store, GAP_PLANE_MASTER, gamma)[k] == 1 && gap_store_data(t.store, GAP_PLANE_MASTER, mean)[k] == 0);
        CHECK(gap_store_data(t.store, GAP_PLANE_MASTER, mean + 1)[k] == 1);
    }
    CHECK(gap_store_data(t.store, GAP_PLANE_MASTER, moving)[0] != 0);
    gap_plan_free(p);
    net_free(&t);
}

int main(void) {
    RUN(test_update_interrupted_steps_leave_no_trace);
    RUN(test_update_is_not_interrupted_half_way);
    RUN(test_update_nonfinite_loss_names_the_sample);
    RUN(test_update_nonfinite_gradient_names_the_layer);
    RUN(test_update_nonfinite_statistics_are_refused);
    RUN(test_update_clips_to_the_global_norm);
    RUN(test_update_ema_follows_weights_and_buffers);
    RUN(test_update_is_the_optimizers_per_group);
    RUN(test_update_frozen_norm_keeps_its_statistics);
    return harness_end();
}

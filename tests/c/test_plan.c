#include "nets.h"

static gap_status forward(const net *t, int64_t capacity, int64_t n, const float *x, float *out) {
    gap_plan_options o = net_options(capacity, false, NULL);
    gap_plan *p = NULL;
    float *outs[4] = {out};
    gap_status st = gap_plan_new(&p, t->graph, t->store, &o);
    if (st == GAP_OK) st = gap_plan_forward(p, n, x, outs);
    gap_plan_free(p);
    return st;
}

static void test_plan_evaluates_an_image_alike_in_any_company(void) {
    net t = net_everything(0.5);
    CHECK_OK(net_end(&t, 4));
    batch b;
    batch_make(&b, &t, NET_BATCH, 1);
    float together[NET_BATCH * 6], alone[6];
    size_t one = (size_t)gap_desc_count(&t.graph->input);
    CHECK_OK(forward(&t, NET_BATCH, NET_BATCH, b.x, together));
    for (int k = 0; k < NET_BATCH; k++) {
        CHECK_OK(forward(&t, 1, 1, b.x + (size_t)k * one, alone));
        CHECK(memcmp(alone, together + k * 6, sizeof alone) == 0);
        CHECK_OK(forward(&t, 64, 1, b.x + (size_t)k * one, alone));
        CHECK(memcmp(alone, together + k * 6, sizeof alone) == 0);
    }
    CHECK(memcmp(together, together + 6, sizeof alone) != 0);
    net_free(&t);
}

static void test_plan_evaluates_alike_with_any_threads_and_kernels(void) {
    static const char *const sets[] = {"ref", "avx2", "avx512", "neon"};
    static const int threads[] = {1, 2, 3, 7};
    net t = net_everything(0.5);
    CHECK_OK(net_end(&t, 4));
    batch b;
    batch_make(&b, &t, NET_BATCH, 1);
    float want[NET_BATCH * 6], got[NET_BATCH * 6];
    float *outs[4] = {got};
    bool first = true;
    for (int s = 0; s < GAP_COUNTOF(sets); s++)
        for (int k = 0; k < GAP_COUNTOF(threads); k++) {
            gap_plan_options o = net_options(NET_BATCH, false, NULL);
            gap_plan *p = NULL;
            if (gap_kernels_find(&o.kernels, sets[s]) != GAP_OK) continue;
            CHECK_OK(gap_threads_set(threads[k]));
            CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
            CHECK_OK(gap_plan_forward(p, NET_BATCH, b.x, outs));
            if (first) memcpy(want, got, sizeof want);
            first = false;
            CHECK(memcmp(want, got, sizeof want) == 0);
            gap_plan_free(p);
        }
    CHECK_OK(gap_threads_set(2));
    net_free(&t);
}

static void test_plan_evaluate_gives_losses_and_outputs(void) {
    net t = net_everything(0.5);
    CHECK_OK(net_end(&t, 4));
    gap_plan_options o = net_options(NET_BATCH, false, NULL);
    gap_plan *p = NULL;
    batch b;
    float loss[NET_BATCH], out[NET_BATCH * 6], again[NET_BATCH * 6], *outs[4] = {out}, *outs2[4] = {again};
    int32_t pred[NET_BATCH];
    batch_make(&b, &t, 5, 1);
    snapshot before = snapshot_take(t.store);
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK_OK(gap_plan_evaluate(p, 5, b.x, &b.targets, loss, pred, outs));
    for (int s = 0; s < 5; s++) {
        double want = 0;
        for (int k = 0; k < 6; k++) want += pow((double)out[s * 6 + k] - (double)b.y[s] * (0.1 * k - 0.2), 2) / 2;
        CHECK_NEAR((double)loss[s], want, 1e-6);
        for (int k = 0; k < 6; k++) CHECK(out[s * 6 + pred[s]] >= out[s * 6 + k]);
    }
    CHECK_OK(gap_plan_forward(p, 5, b.x, outs2));
    CHECK(memcmp(out, again, 5 * 6 * sizeof(float)) == 0);
    CHECK_OK(gap_plan_evaluate(p, 5, b.x, &b.targets, loss, pred, NULL));
    CHECK_OK(gap_plan_evaluate(p, 5, b.x, &b.targets, NULL, NULL, (float *const[4]){NULL}));
    CHECK(snapshot_still(&before, t.store)); /* an evaluation moves nothing */
    free(before.bytes);
    gap_plan_free(p);
    net_free(&t);
}

static void test_plan_sees_weights_that_moved(void) {
    net t = net_everything(0);
    CHECK_OK(net_end(&t, 4));
    gap_plan_options o = net_options(2, false, NULL);
    gap_plan *p = NULL;
    batch b;
    float one[12], two[12], three[12];
    batch_make(&b, &t, 2, 1);
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK_OK(gap_plan_forward(p, 2, b.x, (float *const[4]){one}));
    CHECK_OK(gap_store_init(t.store, 5));
    CHECK_OK(gap_plan_forward(p, 2, b.x, (float *const[4]){two}));
    CHECK(memcmp(one, two, sizeof one) != 0);
    CHECK_OK(gap_store_init(t.store, 4));
    CHECK_OK(gap_plan_forward(p, 2, b.x, (float *const[4]){three}));
    CHECK(memcmp(one, three, sizeof one) == 0);
    gap_plan_free(p);
    net_free(&t);
}

static void test_plan_takes_uint8_images(void) {
    net t = net_everything(0);
    CHECK_OK(net_end(&t, 4));
    unsigned char image[2 * 80 * 3];
    float plain[2 * 240], from_bytes[12], from_floats[12];
    uint32_t seed = 3;
    for (int k = 0; k < 480; k++) image[k] = (unsigned char)(harness_u32(&seed) & 255);
    for (int n = 0; n < 2; n++)
        for (int c = 0; c < 3; c++)
            for (int at = 0; at < 80; at++) plain[n * 240 + c * 80 + at] = (float)image[n * 240 + at * 3 + c] / 255.0f;
    gap_plan_options o = net_options(2, false, NULL);
    gap_plan *bytes = NULL, *floats = NULL;
    CHECK_OK(gap_plan_new(&floats, t.graph, t.store, &o));
    o.input_dtype = GAP_U8;
    CHECK_OK(gap_plan_new(&bytes, t.graph, t.store, &o));
    CHECK_OK(gap_plan_forward(bytes, 2, image, (float *const[4]){from_bytes}));
    CHECK_OK(gap_plan_forward(floats, 2, plain, (float *const[4]){from_floats}));
    for (int k = 0; k < 12; k++) CHECK_NEAR((double)from_bytes[k], (double)from_floats[k], 1e-5);
    gap_plan_free(bytes);
    gap_plan_free(floats);
    net_free(&t);
}

static void test_plan_gives_images_and_many_outputs_plain(void) {
    net t = net_begin(3, 6, 5);
    int a = net_one(&t, "Conv2d", "conv", ARGS(3, 5, 3, 1, 1), 0);
    int r = net_one(&t, "ReLU", "act", NO_ARGS, a);
    CHECK_OK(net_end(&t, 1));
    CHECK_OK(gap_graph_set_outputs(t.graph, (const int[]){r, a, 0}, 3));
    gap_plan_options o = net_options(2, false, NULL);
    o.loss = NULL;
    gap_plan *p = NULL;
    batch b;
    float out[2 * 150], raw[2 * 150], back[2 * 90];
    batch_make(&b, &t, 2, 1);
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK_OK(gap_plan_forward(p, 2, b.x, (float *const[4]){out, raw, back}));
    CHECK(memcmp(back, b.x, sizeof back) == 0);
    for (int k = 0; k < 300; k++) CHECK((raw[k] > 0 ? raw[k] : 0) == out[k]);
    const float *w = gap_store_data(t.store, GAP_PLANE_MASTER, 0), *bias = gap_store_data(t.store, GAP_PLANE_MASTER, 1);
    double want = (double)bias[4]; /* channel 4, pixel (2, 3) of sample 1, from the definition */
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++)
                if (3 + j - 1 < 5) want += (double)w[((4 * 3 + c) * 3 + i) * 3 + j] * (double)b.x[90 + c * 30 + (2 + i - 1) * 5 + 3 + j - 1];
    CHECK_NEAR((double)raw[150 + 4 * 30 + 2 * 5 + 3], want, 1e-6);
    gap_plan_free(p);
    net_free(&t);
}

static void test_plan_takes_vectors(void) {
    net t = net_begin(20, 0, 0);
    int a = net_one(&t, "Linear", "fc1", ARGS(20, 9), 0);
    a = net_one(&t, "ReLU", "act", NO_ARGS, a);
    net_one(&t, "Linear", "fc2", ARGS(9, 4, 0), a);
    CHECK_OK(net_end(&t, 1));
    gap_plan_options o = net_options(3, true, "SGD");
    gap_plan *p = NULL;
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK_OK(net_step(p, &t, 3, 1, 0.1, -1, 0));
    CHECK(t.store->entry[0].updates == 1);
    gap_plan_free(p);
    o.input_dtype = GAP_U8;
    CHECK_FAILS(gap_plan_new(&p, t.graph, t.store, &o), GAP_ERR_TYPE);
    net_free(&t);
}

static void test_plan_refuses_what_does_not_fit(void) {
    net t = net_everything(0);
    gap_plan_options o = net_options(2, false, NULL);
    gap_plan *p = NULL;
    float x[1] = {0}, *none[4] = {NULL};
    CHECK_OK(gap_graph_set_outputs(t.graph, &t.last, 1));
    CHECK_FAILS(gap_plan_new(&p, t.graph, t.store, &o), GAP_ERR_VALUE); /* not sealed */
    CHECK_OK(net_end(&t, 4));
    o.capacity = 0;
    CHECK_FAILS(gap_plan_new(&p, t.graph, t.store, &o), GAP_ERR_VALUE);
    o.capacity = 2, o.input.n = 1;
    CHECK_FAILS(gap_plan_new(&p, t.graph, t.store, &o), GAP_ERR_SHAPE);
    o.input.n = 0, o.training = true, o.loss = NULL;
    CHECK_FAILS(gap_plan_new(&p, t.graph, t.store, &o), GAP_ERR_VALUE);
    o = net_options(2, false, NULL);
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK_FAILS(gap_plan_forward(p, 3, x, none), GAP_ERR_VALUE);
    CHECK_FAILS(gap_plan_forward(p, 0, x, none), GAP_ERR_VALUE);
    CHECK_FAILS(net_step(p, &t, 2, 1, 0.1, -1, 0), GAP_ERR_VALUE);
    gap_plan_free(p);
    o.training = true;
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK_FAILS(gap_plan_forward(p, 1, x, none), GAP_ERR_VALUE);
    gap_plan_free(p);
    net_free(&t);
}

static void test_plan_describes_itself(void) {
    net t = net_everything(0.5);
    CHECK_OK(net_end(&t, 4));
    gap_plan_options o = net_options(2, true, "Adam");
    gap_plan *p = NULL;
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    int64_t macs = 0, want = 0;
    bool dropout = false;
    for (int k = 0; k < gap_plan_rows(p); k++) {
        gap_plan_row row;
        gap_plan_row_at(p, k, &row);
        CHECK(row.op != NULL && row.layer != NULL && row.out.ndim > 0);
        macs += row.macs;
        dropout |= strcmp(row.layer, "drop") == 0;
    }
    for (int k = 0; k < t.graph->n_nodes; k++) want += gap_graph_macs(t.graph, k);
    CHECK(macs == want && macs > 0 && dropout);
    gap_plan_memory m = gap_plan_memory_of(p);
    size_t learning = 0;
    for (int e = 0; e < t.store->n_entries; e++) learning += t.store->entry[e].trainable ? t.store->entry[e].count * 4 : 0;
    CHECK(m.weights == t.store->floats * 4 && m.gradients == learning && m.slots == (size_t)o.optimizer->n_slots * m.weights);
    CHECK(m.total == m.arena + m.weights + m.slots && m.arena >= m.alive && m.alive >= m.gradients && m.alive >= m.workspace);
    for (int e = 0; e < t.store->n_entries; e++) CHECK(gap_plan_gradient(p, e) == NULL);
    gap_plan_free(p);
    int64_t before = gap_memory_live();
    o.measure = true;
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    gap_plan_memory same = gap_plan_memory_of(p);
    CHECK(memcmp(&m, &same, sizeof m) == 0 && p->arena == NULL);
    CHECK_FAILS(net_step(p, &t, 1, 0, 0.1, -1, 0), GAP_ERR_VALUE);
    gap_plan_free(p);
    CHECK(gap_memory_live() == before);
    net_free(&t);
}

static void test_plan_drops_what_nobody_reads(void) {
    net t = net_begin(3, 6, 6);
    int a = net_one(&t, "Conv2d", "conv", ARGS(3, 5, 3, 1, 1), 0);
    int dead = net_one(&t, "Conv2d", "dead", ARGS(5, 5, 3, 1, 1), a);
    net_one(&t, "BatchNorm2d", "deadbn", ARGS(5), dead);
    net_one(&t, "ReLU", "act", NO_ARGS, a);
    CHECK_OK(net_end(&t, 1));
    gap_plan_options o = net_options(2, false, NULL);
    o.loss = NULL;
    gap_plan *p = NULL;
    float with[2 * 180], without[2 * 180];
    batch b;
    batch_make(&b, &t, 2, 1);
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    int rows = gap_plan_rows(p);
    CHECK_OK(gap_plan_forward(p, 2, b.x, (float *const[4]){with}));
    gap_plan_free(p);
    setenv("GAPLESS_FUSE", "-dead", 1);
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK(gap_plan_rows(p) > rows);
    CHECK_OK(gap_plan_forward(p, 2, b.x, (float *const[4]){without}));
    CHECK(memcmp(with, without, sizeof with) == 0);
    gap_plan_free(p);
    setenv("GAPLESS_FUSE", "-bogus", 1);
    CHECK_FAILS(gap_plan_new(&p, t.graph, t.store, &o), GAP_ERR_VALUE);
    CHECK(strstr(gap_error_message(), "-bogus") != NULL);
    unsetenv("GAPLESS_FUSE");
    o = net_options(2, true, "SGD"); /* in training the dead branch's statistics still move, its weights do not */
    o.loss = &square_loss;
    t.last = net_one(&t, "Flatten", "flat", NO_ARGS, t.last);
    CHECK_OK(net_end(&t, 1));
    CHECK_OK(gap_plan_new(&p, t.graph, t.store, &o));
    CHECK_OK(net_step(p, &t, 2, 1, 0.1, -1, 0));
    int moved = gap_store_find(t.store, "deadbn.running_mean"), still = gap_store_find(t.store, "dead.weight");
    CHECK(gap_store_data(t.store, GAP_PLANE_MASTER, moved)[0] != 0);
    CHECK(t.store->entry[still].updates == 0 && t.store->entry[0].updates == 1);
    gap_plan_free(p);
    net_free(&t);
}

/* Graph, store, plans, a step and an evaluation: everything that allocates. */
static gap_status whole_life(void) {
    net t = net_everything(0.3);
    gap_plan *train = NULL, *eval = NULL;
    gap_plan_options o = net_options(3, true, "AdamW");
    static batch b;
    gap_status st = GAP_OK;
    float out[3 * 6];
    GAP_TRY(t.st);
    GAP_TRY(net_end(&t, 4));
    GAP_TRY(gap_plan_new(&train, t.graph, t.store, &o));
    GAP_TRY(net_step(train, &t, 3, 1, 0.1, 0.9, 1.0));
    o.training = false;
    GAP_TRY(gap_plan_new(&eval, t.graph, t.store, &o));
    batch_make(&b, &t, 3, 2);
    GAP_TRY(gap_plan_forward(eval, 3, b.x, (float *const[4]){out}));
done:
    gap_plan_free(train);
    gap_plan_free(eval);
    net_free(&t);
    return st;
}

static void test_plan_survives_every_failed_allocation(void) {
    int k = 1;
    for (; k < 5000; k++) {
        int64_t live = gap_memory_live();
        gap_memory_fail_after(k);
        gap_status st = whole_life();
        gap_memory_fail_after(0);
        CHECK(gap_memory_live() == live);
        if (st == GAP_OK) break;
        CHECK(st == GAP_ERR_MEMORY);
        if (st != GAP_ERR_MEMORY || gap_memory_live() != live) break;
    }
    CHECK(k > 50 && k < 5000);
}

int main(void) {
    RUN(test_plan_evaluates_an_image_alike_in_any_company);
    RUN(test_plan_evaluates_alike_with_any_threads_and_kernels);
    RUN(test_plan_evaluate_gives_losses_and_outputs);
    RUN(test_plan_sees_weights_that_moved);
    RUN(test_plan_takes_uint8_images);
    RUN(test_plan_gives_images_and_many_outputs_plain);
    RUN(test_plan_takes_vectors);
    RUN(test_plan_refuses_what_does_not_fit);
    RUN(test_plan_describes_itself);
    RUN(test_plan_drops_what_nobody_reads);
    RUN(test_plan_survives_every_failed_allocation);
    return harness_end();
}

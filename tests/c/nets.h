/* nets.h — small networks for the tests of graph/: build, run, compare. */
#ifndef GAP_TESTS_NETS_H
#define GAP_TESTS_NETS_H

#include "core/threads.h"
#include "graph/plan.h"
#include "graph/plan_state.h"
#include "harness.h"

#define NET_BATCH 7
#define NET_MAX_INPUT 1024

typedef struct {
    gap_graph *graph;
    gap_store *store;
    gap_status st;
    int last;      /* value made last */
    int next_id;
} net;

/* "Conv2d", "conv1", values in their params' order; a pair takes one number for both, -1 in `in` ends the inputs. */
static inline int net_add(net *t, const char *layer, const char *name, const double *args, int n_args, const int *in, int n_in) {
    const gap_layer_def *def = gap_layer_find(layer);
    gap_value cfg[GAP_PARAM_MAX];
    if (t->st != GAP_OK) return 0;
    if (def == NULL) return t->st = gap_fail(GAP_ERR_VALUE, "no layer %s", layer), 0;
    gap_config_defaults(def->params, def->n_params, cfg);
    for (int k = 0; k < n_args; k++) {
        cfg[k].none = false, cfg[k].f[0] = args[k];
        cfg[k].i = cfg[k].i2 = (int64_t)args[k];
    }
    t->st = gap_graph_add(t->graph, name, t->next_id++, def, cfg, in, n_in, &t->last);
    if (t->st == GAP_OK && def->weights != NULL && gap_store_find_layer(t->store, name) < 0)
        t->st = gap_store_add(t->store, name, def, cfg);
    return t->last;
}

#define ARGS(...) (const double[]){__VA_ARGS__}, GAP_COUNTOF(((const double[]){__VA_ARGS__}))
#define NO_ARGS NULL, 0

static inline int net_one(net *t, const char *layer, const char *name, const double *args, int n_args, int in) {
    return net_add(t, layer, name, args, n_args, &in, 1);
}

static inline int net_two(net *t, const char *layer, const char *name, int a, int b) {
    return net_add(t, layer, name, NULL, 0, (const int[]){a, b}, 2);
}

static inline void net_free(net *t) {
    gap_graph_free(t->graph);
    gap_store_free(t->store);
    *t = (net){0};
}

static inline net net_begin(int64_t c, int64_t h, int64_t w) {
    net t = {0};
    gap_desc input = {.dtype = GAP_F32, .layout = GAP_PLAIN, .ndim = h > 0 ? 3 : 1, .dim = {c, h, w}};
    t.st = gap_graph_new(&t.graph, &input);
    if (t.st == GAP_OK) t.st = gap_store_new(&t.store);
    return t;
}

static inline gap_status net_end(net *t, uint64_t seed) {
    if (t->st == GAP_OK) t->st = gap_graph_set_outputs(t->graph, &t->last, 1);
    if (t->st == GAP_OK) t->st = gap_store_init(t->store, seed);
    return t->st;
}

/* A bit of everything: residual sum, gate, concat, pools, both norms, dropout, a strided and a depthwise convolution. */
static inline net net_everything(double dropout) {
    net t = net_begin(3, 10, 8);
    int a = net_one(&t, "Conv2d", "conv1", ARGS(3, 18, 3, 1, 1, 1, 1, 0), 0);
    a = net_one(&t, "BatchNorm2d", "bn1", ARGS(18), a);
    a = net_one(&t, "SiLU", "act1", NO_ARGS, a);
    int b = net_one(&t, "Conv2d", "conv2", ARGS(18, 18, 3, 1, 1, 1, 18, 1), a);
    b = net_one(&t, "GroupNorm", "gn2", ARGS(3, 18), b);
    b = net_one(&t, "Sigmoid", "act2", NO_ARGS, b);
    a = net_two(&t, "Add", "add", a, b);
    int g = net_one(&t, "AdaptiveAvgPool2d", "squeeze", ARGS(1), a);
    g = net_one(&t, "Conv2d", "fc", ARGS(18, 18, 1), g);
    g = net_one(&t, "Tanh", "gate", NO_ARGS, g);
    a = net_two(&t, "Mul", "scale", a, g);
    int c = net_one(&t, "Conv2d", "conv3", ARGS(18, 7, 3, 2, 1), a);
    int d = net_one(&t, "AvgPool2d", "avg", ARGS(2), a);
    d = net_one(&t, "Conv2d", "conv4", ARGS(18, 5, 2, 1, 0), d);
    c = net_one(&t, "MaxPool2d", "max", ARGS(2, 1, 0), c);
    d = net_one(&t, "Conv2d", "conv5", ARGS(5, 5, 2, 1, 1, 1, 1, 0), d);
    d = net_one(&t, "MaxPool2d", "max2", ARGS(2, 1), d);
    c = net_two(&t, "Concat", "cat", c, d);
    c = net_one(&t, "BatchNorm2d", "bn2", ARGS(12), c);
    c = net_one(&t, "Dropout", "drop", ARGS(dropout), c);
    c = net_one(&t, "Flatten", "flat", NO_ARGS, c);
    net_one(&t, "Linear", "head", ARGS(12 * 4 * 3, 6), c);
    return t;
}

/* ---- random networks: layers that keep (H, W), dead ends, reuse of values and of layers, some frozen, and much of what
 * fusion is for (graph/fuse.h) and what must stop it ---- */

typedef struct { net t; int value[64], channels[64], n, part; uint32_t seed; char name[16], part_name[24]; } grower;

static inline int pick(grower *g, int below) { return (int)(harness_u32(&g->seed) % (uint32_t)below); }

static inline void grown(grower *g, int value, int channels) {
    g->value[g->n] = value, g->channels[g->n++] = channels;
}

static inline int same_channels(grower *g, int as) {
    int start = pick(g, g->n);
    for (int k = 0; k < g->n; k++)
        if (g->channels[(start + k) % g->n] == g->channels[as]) return (start + k) % g->n;
    return as;
}

/* The name of one more layer of this step. */
static inline const char *part_of(grower *g) {
    snprintf(g->part_name, sizeof g->part_name, "n%d.%d", g->n, g->part++);
    return g->part_name;
}

static const char *const grower_acts[] = {"ReLU", "ReLU6", "LeakyReLU", "SiLU", "Hardswish", "Tanh", "Sigmoid", "Hardsigmoid", "Identity"};

static inline int grow_act(grower *g, int v) { return net_one(&g->t, grower_acts[pick(g, GAP_COUNTOF(grower_acts))], part_of(g), NO_ARGS, v); }

static inline int grow_norm(grower *g, int v, int c) { return net_one(&g->t, "BatchNorm2d", part_of(g), ARGS(c), v); }

/* c -> to channels: plain, 1x1, dilated, or where it can be grouped or depthwise; with a bias or without. */
static inline int grow_conv(grower *g, int v, int c, int to) {
    const int bias = pick(g, 2), kind = pick(g, 6), groups = c == to ? (kind == 4 ? c : kind == 5 && c % 2 == 0 ? 2 : 1) : 1;
    if (kind == 0) return net_one(&g->t, "Conv2d", part_of(g), ARGS(c, to, 1, 1, 0, 1, 1, bias), v);
    if (kind == 1) return net_one(&g->t, "Conv2d", part_of(g), ARGS(c, to, 3, 1, 2, 2, 1, bias), v);
    return net_one(&g->t, "Conv2d", part_of(g), ARGS(c, to, 3, 1, 1, 1, groups, bias), v);
}

static inline int grow_conv_norm(grower *g, int v, int c, int to) { return grow_norm(g, grow_conv(g, v, c, to), to); }

/* conv, norm, act, conv, norm, shortcut (of its own convolution where channels change, or by chance), act */
static inline int grow_block(grower *g, int v, int c, int to) {
    const int u = grow_conv_norm(g, grow_act(g, grow_conv_norm(g, v, c, to)), to, to);
    const int shortcut = c != to || pick(g, 3) == 0 ? grow_conv_norm(g, v, c, to) : v;
    const int sum = pick(g, 2) ? net_two(&g->t, "Add", part_of(g), u, shortcut) : net_two(&g->t, "Add", part_of(g), shortcut, u);
    return pick(g, 5) ? grow_act(g, sum) : sum;
}

/* What fusion is for, and what looks like it. */
static inline void grow_norms(grower *g, int v, int c) {
    static const int widths[] = {5, 16, 18};
    net *t = &g->t;
    const int to = pick(g, 2) ? c : widths[pick(g, 3)];
    int u, w;
    switch (pick(g, 9)) {
    case 0: grown(g, grow_act(g, grow_conv_norm(g, v, c, to)), to); break;
    case 1: grown(g, grow_block(g, v, c, to), to); break;
    case 2: /* a chain of joins */
        for (int k = 0; k < 3; k++) v = grow_block(g, v, k ? to : c, to);
        grown(g, v, to);
        break;
    case 3: grown(g, grow_act(g, net_two(t, "Add", part_of(g), grow_norm(g, v, c), v)), c); break; /* the shortcut is x itself */
    case 4: /* two BatchNorms of one value */
        u = grow_norm(g, v, c);
        grown(g, net_two(t, "Add", part_of(g), u, pick(g, 2) ? u : grow_norm(g, v, c)), c);
        break;
    case 5: /* a convolution and a BatchNorm of many places */
        if (c != 5 && c != 16 && c != 18) return;
        u = net_one(t, "Conv2d", c == 5 ? "twice5" : c == 16 ? "twice16" : "twice18", ARGS(c, c, 3, 1, 1), v);
        u = net_one(t, "BatchNorm2d", c == 5 ? "norm5" : c == 16 ? "norm16" : "norm18", ARGS(c), u);
        grown(g, grow_act(g, pick(g, 2) ? net_two(t, "Add", part_of(g), u, v) : u), c);
        break;
    case 6: /* an inverted bottleneck */
        u = grow_act(g, grow_norm(g, net_one(t, "Conv2d", part_of(g), ARGS(c, 32, 1, 1, 0, 1, 1, 0), v), 32));
        u = grow_act(g, grow_norm(g, net_one(t, "Conv2d", part_of(g), ARGS(32, 32, 3, 1, 1, 1, 32, 0), u), 32));
        grown(g, net_two(t, "Add", part_of(g), v, grow_norm(g, net_one(t, "Conv2d", part_of(g), ARGS(32, c, 1, 1, 0, 1, 1, 0), u), c)), c);
        break;
    case 7: /* strided, down to a gate */
        u = pick(g, 2) ? net_one(t, "Conv2d", part_of(g), ARGS(c, 18, 3, 2, 1), v) : net_one(t, "Conv2d", part_of(g), ARGS(c, 18, 1, 2, 0), v);
        u = grow_act(g, grow_norm(g, u, 18));
        u = grow_act(g, grow_norm(g, net_one(t, "Conv2d", part_of(g), ARGS(18, 16, 3, 1, 1), u), 16));
        u = net_one(t, "Conv2d", part_of(g), ARGS(16, c, 1), net_one(t, "AdaptiveAvgPool2d", part_of(g), ARGS(1), u));
        grown(g, net_two(t, "Mul", part_of(g), v, net_one(t, "Sigmoid", part_of(g), NO_ARGS, u)), c);
        break;
    default: /* values on the way are read again */
        u = grow_conv(g, v, c, to), w = grow_norm(g, u, to);
        grown(g, pick(g, 2) ? u : w, to);
        grown(g, grow_act(g, w), to);
        grown(g, grow_conv_norm(g, g->value[g->n - 1], to, to), to);
    }
}

static inline void grow(grower *g) {
    net *t = &g->t;
    int a = g->n > 4 && pick(g, 4) ? g->n - 1 - pick(g, 4) : pick(g, g->n), v = g->value[a], c = g->channels[a];
    int b = same_channels(g, a), w = g->value[b], other = pick(g, g->n);
    const char *name = g->name;
    g->part = 0;
    snprintf(g->name, sizeof g->name, "n%d", g->n);
    if (pick(g, 3) == 0) {
        grow_norms(g, v, c);
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
    default: grown(g, grow_act(g, v), c);
    }
}

static inline net net_random(uint32_t seed) {
    grower g = {.t = net_begin(5, 4, 4), .seed = seed};
    grown(&g, 0, 5);
    if (seed % 5 == 0) grown(&g, grow_act(&g, grow_norm(&g, 0, 5)), 5); /* BatchNorm of the image itself */
    for (int k = 0; k < 16; k++) grow(&g);
    int last = net_one(&g.t, "BatchNorm2d", "last", ARGS(g.channels[g.n - 1]), g.value[g.n - 1]);
    last = net_one(&g.t, "Flatten", "flat", NO_ARGS, last);
    net_one(&g.t, "Linear", "head", ARGS(16 * g.channels[g.n - 1], 4), last);
    if (net_end(&g.t, seed) != GAP_OK) return g.t;
    for (int k = 0; k < g.t.store->n_entries; k++)
        if (pick(&g, 6) == 0) g.t.store->entry[k].trainable = false;
    return g.t;
}

/* ---- a loss of the tests' own: half the squared distance to a target vector; smooth, and its numbers are double ---- */

static inline gap_status square_check(const gap_value *cfg, const gap_desc *outputs, int n_outputs) {
    (void)cfg;
    return n_outputs == 1 && outputs[0].layout == GAP_PLAIN ? GAP_OK : gap_fail(GAP_ERR_SHAPE, "square: one plain output");
}

static inline gap_status square_check_targets(const gap_value *cfg, const gap_desc *outputs, const gap_targets *y) {
    (void)cfg, (void)outputs;
    return y->values != NULL ? GAP_OK : gap_fail(GAP_ERR_VALUE, "square: no targets");
}

static inline double square_share(const gap_value *cfg, const gap_targets *y, bool training) {
    (void)cfg, (void)training;
    return 1.0 / (double)y->n;
}

static inline void square_forward(const gap_loss_call *call, int64_t begin, int64_t end) {
    int64_t k_count = gap_desc_count(&call->desc[0]);
    for (int64_t s = begin; s < end; s++) {
        double one = 0;
        int64_t top = 0;
        for (int64_t k = 0; k < k_count; k++) {
            if (call->output[0][s * k_count + k] > call->output[0][s * k_count + top]) top = k;
            double e = (double)call->output[0][s * k_count + k] - (double)call->y->values[call->y->offsets[s]] * (0.1 * (double)k - 0.2);
            one += e * e / 2;
            if (call->gradient != NULL) call->gradient[0][s * k_count + k] = (float)(e / (double)call->y->n);
        }
        call->term[s] = one, call->loss[s] = (float)one, call->pred[s] = (int32_t)top;
    }
}

static const gap_loss_def square_loss = {.name = "square", .check = square_check, .check_targets = square_check_targets,
                                         .share = square_share, .forward = square_forward};

/* ---- batches ---- */

typedef struct {
    float x[NET_BATCH * NET_MAX_INPUT];
    float y[NET_BATCH];
    int64_t offsets[NET_BATCH + 1], ids[NET_BATCH];
    gap_targets targets;
} batch;

static inline void batch_make(batch *b, const net *t, int64_t n, uint32_t seed) {
    size_t one = (size_t)gap_desc_count(&t->graph->input);
    harness_fill(b->x, (size_t)n * one, seed);
    for (int64_t k = 0; k <= n; k++) b->offsets[k] = k;
    for (int64_t k = 0; k < n; k++) b->y[k] = (float)(k % 3), b->ids[k] = 100 + 7 * k + seed;
    b->targets = (gap_targets){n, b->y, b->offsets};
}

static inline gap_plan_options net_options(int64_t capacity, bool training, const char *optimizer) {
    gap_plan_options o = {.capacity = capacity, .training = training, .input_dtype = GAP_F32, .loss = &square_loss};
    if (optimizer != NULL) o.optimizer = gap_optimizer_find(optimizer);
    return o;
}

/* The optimizer's defaults with this lr, as one group's row. */
static inline const double *net_hyper(const gap_optimizer_def *def, double lr, double *row) {
    gap_value v[GAP_PARAM_MAX];
    gap_config_defaults(def->params, def->n_params, v);
    for (int k = 0; k < def->n_params; k++) {
        row[k] = def->params[k].kind == GAP_BOOL ? (double)v[k].i : v[k].f[0];
        if (strcmp(def->params[k].name, "lr") == 0) row[k] = lr;
        if (strcmp(def->params[k].name, "momentum") == 0) row[k] = 0.9;
    }
    return row;
}

/* Everything that a step may write, in one block to compare. The caller frees it. */
typedef struct { unsigned char *bytes; size_t size; } snapshot;

static inline snapshot snapshot_take(const gap_store *s) {
    snapshot shot = {0};
    size_t plane = s->floats * sizeof(float), entries = (size_t)s->n_entries * sizeof(int64_t);
    shot.size = plane * GAP_PLANE_COUNT + entries + sizeof s->version;
    shot.bytes = calloc(1, shot.size);
    for (int p = 0; p < GAP_PLANE_COUNT; p++)
        if (s->plane[p] != NULL) memcpy(shot.bytes + (size_t)p * plane, gap_buf_data(s->plane[p]), plane);
    for (int k = 0; k < s->n_entries; k++)
        memcpy(shot.bytes + plane * GAP_PLANE_COUNT + (size_t)k * sizeof(int64_t), &s->entry[k].updates, sizeof(int64_t));
    memcpy(shot.bytes + shot.size - sizeof s->version, &s->version, sizeof s->version);
    return shot;
}

static inline bool snapshot_equal(const snapshot *a, const snapshot *b) {
    return a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;
}

static inline bool snapshot_still(const snapshot *shot, const gap_store *s) {
    snapshot now = snapshot_take(s);
    bool same = snapshot_equal(shot, &now);
    free(now.bytes);
    return same;
}

/* Gradients of the last step, in the planes' layout; zero where nothing learns. The caller frees them. */
static inline float *net_gradients(const gap_plan *p, const gap_store *s) {
    float *flat = calloc(s->floats, sizeof *flat);
    for (int e = 0; e < s->n_entries; e++) {
        const float *g = gap_plan_gradient(p, e);
        if (g != NULL) memcpy(flat + s->entry[e].offset, g, s->entry[e].count * sizeof *flat);
    }
    return flat;
}

/* One optimizer step on batch number `k`. */
static inline gap_status net_step(gap_plan *p, const net *t, int64_t n, uint32_t k, double lr, double ema, double clip) {
    static batch b;
    double row[GAP_PARAM_MAX], mean;
    float loss[NET_BATCH];
    int32_t pred[NET_BATCH];
    gap_step_args args = {.n_groups = 1, .ema_decay = ema, .clip_norm = clip, .seed = 5, .epoch = 1, .step = k, .ids = b.ids};
    if (p->opt.optimizer != NULL) args.hyper = net_hyper(p->opt.optimizer, lr, row);
    batch_make(&b, t, n, k);
    return gap_plan_step(p, n, b.x, &b.targets, &args, loss, pred, &mean);
}

#endif

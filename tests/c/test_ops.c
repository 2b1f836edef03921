/* The ops that are not convolutions, each as a case: an emit call and a forward in plain double. Gradients are held against
 * central differences of that double forward; bits against every kernel set and number of threads. */
#include "ops/ops.h"

#include "core/threads.h"
#include "harness.h"

#define MAX_VALUES 8
#define MAX_WEIGHTS 4
#define BATCH 3
#define CAPACITY 4

/* ---- a small executor: every value, gradient and memory in a block of its own, poisoned with NaN ---- */

typedef struct {
    gap_oplist list;
    int64_t n, capacity;
    float *value[MAX_VALUES], *gradient[MAX_VALUES];
    bool has_gradient[MAX_VALUES];
    float *weight[MAX_WEIGHTS], *dweight[MAX_WEIGHTS];
    void *workspace[MAX_VALUES], *saved[MAX_VALUES], *derived[MAX_VALUES], *derived_back[MAX_VALUES];
    gap_op_ctx ctx;
    int64_t ids[CAPACITY];
} machine;

static void *poisoned(size_t bytes) {
    void *p = malloc(bytes + 64);
    memset(p, 0xFF, bytes + 64);
    return p;
}

static size_t value_floats(const machine *m, int v) {
    const gap_desc *d = &m->list.value[v];
    return (size_t)(gap_desc_stored(d) * (d->per_batch ? 1 : m->capacity));
}

static size_t gradient_floats(const machine *m, int v) {
    const gap_desc *d = &m->list.gradient[v];
    return (size_t)(gap_desc_stored(d) * (d->per_batch ? 1 : m->capacity));
}

static void machine_end(machine *m) {
    for (int k = 0; k < MAX_VALUES; k++)
        free(m->value[k]), free(m->gradient[k]), free(m->workspace[k]), free(m->saved[k]), free(m->derived[k]), free(m->derived_back[k]);
    for (int k = 0; k < MAX_WEIGHTS; k++) free(m->weight[k]), free(m->dweight[k]);
    gap_oplist_free(&m->list);
}

static gap_op_ctx ctx_of(const machine *m, const gap_op *op, int at) {
    gap_op_ctx c = m->ctx;
    c.n = m->n, c.capacity = m->capacity, c.training = m->list.training, c.ids = m->ids;
    c.workspace = m->workspace[at], c.saved = m->saved[at], c.derived = m->derived[at], c.derived_back = m->derived_back[at];
    for (int k = 0; k < op->n_in; k++) c.in[k] = m->value[op->in[k]];
    for (int k = 0; k < op->n_out; k++) c.out[k] = m->value[op->out[k]];
    for (int k = 0; k < op->n_weights; k++)
        if (op->weight[k] >= 0) c.weight[k] = m->weight[op->weight[k]];
    return c;
}

static void machine_prepare(machine *m, const gap_kernels *kernels) {
    gap_op_env env = {.capacity = m->capacity, .training = m->list.training, .kernels = kernels};
    m->ctx.kernels = kernels, m->ctx.seed = 42, m->ctx.epoch = 3;
    for (int k = 0; k < m->capacity; k++) m->ids[k] = 100 + 7 * k;
    for (int v = 0; v < m->list.n_values; v++)
        if (m->value[v] == NULL) m->value[v] = poisoned(value_floats(m, v) * 4);
    for (int k = 0; k < m->list.n_ops; k++) {
        gap_op *op = &m->list.op[k];
        if (op->def->prepare != NULL) CHECK_OK(op->def->prepare(op, &env));
        m->workspace[k] = poisoned(op->workspace_bytes), m->saved[k] = poisoned(op->saved_bytes), m->derived[k] = poisoned(op->derived_bytes);
        m->derived_back[k] = poisoned(op->derived_back_bytes);
    }
}

static void machine_forward(machine *m) {
    for (int k = 0; k < m->list.n_ops; k++) {
        const gap_op *op = &m->list.op[k];
        gap_op_ctx c = ctx_of(m, op, k);
        if (op->def->derive != NULL) CHECK_OK(op->def->derive(op, &c));
        CHECK_OK(op->def->forward(op, &c));
    }
}

/* gradient[last] is given; wanted: values whose gradient is asked for. Workspace is poisoned again in between. */
static void machine_backward(machine *m) {
    for (int k = m->list.n_ops - 1; k >= 0; k--) {
        const gap_op *op = &m->list.op[k];
        if (op->def->backward == NULL) continue;
        gap_op_ctx c = ctx_of(m, op, k);
        memset(m->workspace[k], 0xFF, op->workspace_bytes);
        for (int j = 0; j < op->n_in; j++)
            if (!(op->backward_needs >> j & 1)) c.in[j] = NULL;
        if (!(op->backward_needs & GAP_NEED_OUT)) c.out[0] = NULL;
        c.dout = m->gradient[op->out[0]];
        if (op->n_out > 1) c.dout2 = m->gradient[op->out[1]];
        for (int j = 0; j < op->n_in; j++) {
            int v = op->in[j];
            c.din[j] = m->gradient[v], c.din_add[j] = m->has_gradient[v];
        }
        for (int j = 0; j < op->n_in; j++) m->has_gradient[op->in[j]] = true;
        for (int j = 0; j < op->n_weights; j++)
            if (op->weight[j] >= 0) c.dweight[j] = m->dweight[op->weight[j]];
        CHECK_OK(op->def->backward(op, &c));
    }
}

static void machine_commit(machine *m) {
    for (int k = 0; k < m->list.n_ops; k++) {
        const gap_op *op = &m->list.op[k];
        gap_op_ctx c = ctx_of(m, op, k);
        if (op->def->commit != NULL) CHECK_OK(op->def->commit(op, &c));
    }
}

/* ---- plain (N, C, H, W) doubles <-> stored floats ---- */

static size_t stored_at(const gap_desc *d, int64_t n, int64_t e) {
    int64_t at = n * gap_desc_stored(d);
    if (d->layout != GAP_BLOCKED) return (size_t)(at + e);
    int64_t pixels = d->dim[1] * d->dim[2], c = e / pixels, p = e % pixels;
    return (size_t)(at + (c / d->cb * pixels + p) * d->cb + c % d->cb);
}

static void store(const gap_desc *d, int64_t n, const double *from, float *to) {
    int64_t count = gap_desc_count(d);
    memset(to, 0, (size_t)(n * gap_desc_stored(d)) * 4);
    for (int64_t s = 0; s < n; s++)
        for (int64_t e = 0; e < count; e++) to[stored_at(d, s, e)] = (float)from[s * count + e];
}

static double at(const gap_desc *d, const float *v, int64_t n, int64_t e) { return (double)v[stored_at(d, n, e)]; }

/* Padding channels must be exact zeros. */
static bool padding_is_zero(const gap_desc *d, int64_t n, const float *v) {
    size_t total = (size_t)(n * gap_desc_stored(d));
    bool *real = calloc(total, 1), ok = true;
    for (int64_t s = 0; s < n; s++)
        for (int64_t e = 0; e < gap_desc_count(d); e++) real[stored_at(d, s, e)] = true;
    for (size_t k = 0; k < total; k++) {
        uint32_t bits;
        memcpy(&bits, &v[k], 4);
        ok = ok && (real[k] || bits == 0);
    }
    free(real);
    return ok;
}

/* ---- cases ---- */

typedef struct test_case test_case;
typedef void forward_fn(const test_case *c, int64_t n, double *const *x, double *const *w, double *y);

struct test_case {
    const char *name;
    gap_status (*emit)(const test_case *c, gap_oplist *list, const int *in, int *out);
    forward_fn *forward;
    int n_in;
    gap_desc in[3];
    int n_weights;
    int64_t weight_size;
    bool evaluation;      /* lowered for evaluation, no backward */
    bool across_samples;  /* depends on the batch */
    gap_act act;
    float arg;
    gap_pool_attr pool;
    gap_norm_attr norm;
    int64_t groups;
    double tolerance;     /* of gradients, 0: 2e-4 */
};

static const gap_origin who = {"layer", 5};
#define IMAGE(c, h, w) {.dtype = GAP_F32, .layout = GAP_BLOCKED, .ndim = 3, .dim = {c, h, w}, .cb = 16}
#define VECTOR(n) {.dtype = GAP_F32, .layout = GAP_PLAIN, .ndim = 1, .dim = {n}}

static gap_status emit_act(const test_case *c, gap_oplist *l, const int *in, int *out) { return gap_emit_act(l, who, in[0], c->act, c->arg, out); }
static gap_status emit_add(const test_case *c, gap_oplist *l, const int *in, int *out) { (void)c; return gap_emit_add(l, who, in[0], in[1], out); }
static gap_status emit_twice(const test_case *c, gap_oplist *l, const int *in, int *out) { (void)c; return gap_emit_add(l, who, in[0], in[0], out); }
static gap_status emit_mul(const test_case *c, gap_oplist *l, const int *in, int *out) { (void)c; return gap_emit_mul(l, who, in[0], in[1], out); }
static gap_status emit_square(const test_case *c, gap_oplist *l, const int *in, int *out) { (void)c; return gap_emit_mul(l, who, in[0], in[0], out); }
static gap_status emit_concat(const test_case *c, gap_oplist *l, const int *in, int *out) { return gap_emit_concat(l, who, in, c->n_in, out); }
static gap_status emit_max_pool(const test_case *c, gap_oplist *l, const int *in, int *out) { return gap_emit_max_pool(l, who, in[0], &c->pool, out); }
static gap_status emit_avg_pool(const test_case *c, gap_oplist *l, const int *in, int *out) { return gap_emit_avg_pool(l, who, in[0], &c->pool, out); }
static gap_status emit_global(const test_case *c, gap_oplist *l, const int *in, int *out) { (void)c; return gap_emit_global_avg_pool(l, who, in[0], out); }
static gap_status emit_flatten(const test_case *c, gap_oplist *l, const int *in, int *out) { (void)c; return gap_emit_flatten(l, who, in[0], out); }
static gap_status emit_to_plain(const test_case *c, gap_oplist *l, const int *in, int *out) { (void)c; return gap_emit_to_plain(l, who, in[0], out); }
static gap_status emit_dropout(const test_case *c, gap_oplist *l, const int *in, int *out) { return gap_emit_dropout(l, who, in[0], (double)c->arg, out); }
static gap_status emit_norm(const test_case *c, gap_oplist *l, const int *in, int *out) { return gap_emit_batch_norm(l, who, in[0], &c->norm, 0, 1, 2, 3, out); }
static gap_status emit_group(const test_case *c, gap_oplist *l, const int *in, int *out) {
    return gap_emit_group_norm(l, who, in[0], c->groups, c->norm.eps, c->n_weights ? 0 : -1, c->n_weights ? 1 : -1, out);
}

static double act_exact(gap_act act, double arg, double x) {
    double ramp = x + 3 < 0 ? 0 : x + 3 > 6 ? 6 : x + 3;
    switch (act) {
    case GAP_ACT_NONE: return x;
    case GAP_ACT_RELU: return x > 0 ? x : 0;
    case GAP_ACT_RELU6: return x < 0 ? 0 : x > 6 ? 6 : x;
    case GAP_ACT_LEAKY_RELU: return x > 0 ? x : arg * x;
    case GAP_ACT_TANH: return tanh(x);
    case GAP_ACT_SIGMOID: return 1 / (1 + exp(-x));
    case GAP_ACT_SILU: return x / (1 + exp(-x));
    case GAP_ACT_HARDSWISH: return x * ramp / 6;
    case GAP_ACT_HARDSIGMOID: return ramp / 6;
    }
    return 0;
}

static void exact_act(const test_case *c, int64_t n, double *const *x, double *const *w, double *y) {
    (void)w;
    for (int64_t e = 0; e < n * gap_desc_count(&c->in[0]); e++) y[e] = act_exact(c->act, (double)c->arg, x[0][e]);
}
static void exact_add(const test_case *c, int64_t n, double *const *x, double *const *w, double *y) {
    (void)w;
    for (int64_t e = 0; e < n * gap_desc_count(&c->in[0]); e++) y[e] = x[0][e] + x[c->n_in - 1][e];
}
static void exact_mul(const test_case *c, int64_t n, double *const *x, double *const *w, double *y) {
    (void)w;
    for (int64_t e = 0; e < n * gap_desc_count(&c->in[0]); e++) y[e] = x[0][e] * x[c->n_in - 1][e];
}
static void exact_gate(const test_case *c, int64_t n, double *const *x, double *const *w, double *y) {
    (void)w;
    int image = c->in[0].dim[1] * c->in[0].dim[2] > 1 ? 0 : 1;
    int64_t pixels = c->in[image].dim[1] * c->in[image].dim[2];
    for (int64_t e = 0; e < n * c->in[0].dim[0] * pixels; e++) y[e] = x[image][e] * x[1 - image][e / pixels];
}
static void exact_concat(const test_case *c, int64_t n, double *const *x, double *const *w, double *y) {
    (void)w;
    for (int64_t s = 0; s < n; s++)
        for (int k = 0; k < c->n_in; k++) {
            int64_t count = gap_desc_count(&c->in[k]);
            memcpy(y, x[k] + s * count, (size_t)count * sizeof *y);
            y += count;
        }
}
static void exact_copy(const test_case *c, int64_t n, double *const *x, double *const *w, double *y) {
    (void)w;
    memcpy(y, x[0], (size_t)(n * gap_desc_count(&c->in[0])) * sizeof *y);
}
static void exact_global(const test_case *c, int64_t n, double *const *x, double *const *w, double *y) {
    (void)w;
    int64_t pixels = c->in[0].dim[1] * c->in[0].dim[2];
    for (int64_t e = 0; e < n * c->in[0].dim[0]; e++) {
        y[e] = 0;
        for (int64_t p = 0; p < pixels; p++) y[e] += x[0][e * pixels + p] / (double)pixels;
    }
}

static int64_t pooled(const test_case *c, int axis) {
    const gap_pool_attr *a = &c->pool;
    int64_t room = c->in[0].dim[1 + axis] + 2 * a->padding[axis] - a->dilation[axis] * (a->kernel[axis] - 1) - 1, n = room / a->stride[axis] + 1;
    if (a->ceil_mode && room % a->stride[axis] && n * a->stride[axis] < c->in[0].dim[1 + axis] + a->padding[axis]) n++;
    return n;
}

static void exact_pool(const test_case *c, int64_t n, double *const *x, double *const *w, double *y) {
    (void)w;
    const gap_pool_attr *a = &c->pool;
    bool max = c->emit == emit_max_pool;
    int64_t h = c->in[0].dim[1], wd = c->in[0].dim[2], oh = pooled(c, 0), ow = pooled(c, 1);
    for (int64_t e = 0; e < n * c->in[0].dim[0] * oh * ow; e++) {
        int64_t plane = e / (oh * ow), i = e / ow % oh, j = e % ow, inside = 0, padded = 0;
        double best = -INFINITY, sum = 0;
        for (int64_t p = 0; p < a->kernel[0]; p++)
            for (int64_t q = 0; q < a->kernel[1]; q++) {
                int64_t r = i * a->stride[0] - a->padding[0] + p * a->dilation[0], s = j * a->stride[1] - a->padding[1] + q * a->dilation[1];
                padded += r < h + a->padding[0] && s < wd + a->padding[1];
                if (r < 0 || r >= h || s < 0 || s >= wd) continue;
                double v = x[0][(plane * h + r) * wd + s];
                best = v > best ? v : best, sum += v, inside++;
            }
        y[e] = max ? best : sum / (double)(a->count_include_pad ? padded : inside);
    }
}

static void exact_norm(const test_case *c, int64_t n, double *const *x, double *const *w, double *y) {
    int64_t channels = c->in[0].dim[0], pixels = c->in[0].dim[1] * c->in[0].dim[2];
    for (int64_t ch = 0; ch < channels; ch++) {
        double mean = 0, var = 0, m = (double)(n * pixels);
        for (int64_t k = 0; k < n * pixels; k++) mean += x[0][(k / pixels * channels + ch) * pixels + k % pixels] / m;
        for (int64_t k = 0; k < n * pixels; k++) var += pow(x[0][(k / pixels * channels + ch) * pixels + k % pixels] - mean, 2) / m;
        if (c->evaluation || c->norm.frozen) mean = w[2][ch], var = w[3][ch];
        for (int64_t k = 0; k < n * pixels; k++) {
            int64_t e = (k / pixels * channels + ch) * pixels + k % pixels;
            y[e] = (x[0][e] - mean) / sqrt(var + c->norm.eps) * w[0][ch] + w[1][ch];
        }
    }
}

static void exact_group(const test_case *c, int64_t n, double *const *x, double *const *w, double *y) {
    int64_t channels = c->in[0].dim[0], pixels = c->in[0].dim[1] * c->in[0].dim[2], per = channels / c->groups;
    for (int64_t g = 0; g < n * c->groups; g++) {
        const double *v = x[0] + g * per * pixels;
        double mean = 0, var = 0, m = (double)(per * pixels);
        for (int64_t k = 0; k < per * pixels; k++) mean += v[k] / m;
        for (int64_t k = 0; k < per * pixels; k++) var += pow(v[k] - mean, 2) / m;
        for (int64_t k = 0; k < per * pixels; k++) {
            int64_t ch = g % c->groups * per + k / pixels;
            double xhat = (v[k] - mean) / sqrt(var + c->norm.eps);
            y[g * per * pixels + k] = c->n_weights ? xhat * w[0][ch] + w[1][ch] : xhat;
        }
    }
}

#define ACT(label, which, slope, ...) {.name = label, .emit = emit_act, .forward = exact_act, .n_in = 1, .in = {__VA_ARGS__}, .act = which, .arg = slope}
#define POOL(label, fn, c, h, w, kh, kw, sh, sw, ph, pw, dil, ceil, pad) \
    {.name = label, .emit = fn, .forward = exact_pool, .n_in = 1, .in = {IMAGE(c, h, w)}, \
     .pool = {{kh, kw}, {sh, sw}, {ph, pw}, {dil, dil}, ceil, pad}}

static const test_case cases[] = {
    ACT("relu", GAP_ACT_RELU, 0, IMAGE(20, 5, 7)), ACT("relu6", GAP_ACT_RELU6, 0, IMAGE(3, 4, 4)),
    ACT("leaky relu", GAP_ACT_LEAKY_RELU, 0.1f, IMAGE(17, 3, 3)), ACT("tanh", GAP_ACT_TANH, 0, VECTOR(37)),
    ACT("sigmoid", GAP_ACT_SIGMOID, 0, IMAGE(21, 3, 5)), ACT("sigmoid of a vector", GAP_ACT_SIGMOID, 0, VECTOR(19)),
    ACT("silu", GAP_ACT_SILU, 0, IMAGE(16, 4, 4)), ACT("hardswish", GAP_ACT_HARDSWISH, 0, IMAGE(18, 4, 3)),
    ACT("hardsigmoid", GAP_ACT_HARDSIGMOID, 0, IMAGE(5, 4, 3)),
    {.name = "add", .emit = emit_add, .forward = exact_add, .n_in = 2, .in = {IMAGE(19, 3, 4), IMAGE(19, 3, 4)}},
    {.name = "add to itself", .emit = emit_twice, .forward = exact_add, .n_in = 1, .in = {VECTOR(21)}},
    {.name = "mul", .emit = emit_mul, .forward = exact_mul, .n_in = 2, .in = {IMAGE(7, 3, 4), IMAGE(7, 3, 4)}},
    {.name = "square", .emit = emit_square, .forward = exact_mul, .n_in = 1, .in = {VECTOR(33)}},
    {.name = "gate", .emit = emit_mul, .forward = exact_gate, .n_in = 2, .in = {IMAGE(20, 3, 5), IMAGE(20, 1, 1)}},
    {.name = "gate first", .emit = emit_mul, .forward = exact_gate, .n_in = 2, .in = {IMAGE(5, 1, 1), IMAGE(5, 3, 2)}},
    {.name = "concat blocks", .emit = emit_concat, .forward = exact_concat, .n_in = 2, .in = {IMAGE(16, 3, 4), IMAGE(5, 3, 4)}},
    {.name = "concat shifted", .emit = emit_concat, .forward = exact_concat, .n_in = 3, .in = {IMAGE(5, 3, 2), IMAGE(23, 3, 2), IMAGE(9, 3, 2)}},
    {.name = "concat vectors", .emit = emit_concat, .forward = exact_concat, .n_in = 2, .in = {VECTOR(5), VECTOR(21)}},
    POOL("max 2x2", emit_max_pool, 20, 6, 8, 2, 2, 2, 2, 0, 0, 1, false, false),
    POOL("max 3x3 padded", emit_max_pool, 3, 7, 6, 3, 3, 2, 2, 1, 1, 1, false, false),
    POOL("max ceil", emit_max_pool, 5, 7, 6, 3, 2, 2, 2, 1, 0, 1, true, false),
    POOL("max dilated", emit_max_pool, 4, 9, 8, 3, 2, 1, 2, 1, 0, 2, false, false),
    POOL("avg 2x2", emit_avg_pool, 20, 6, 8, 2, 2, 2, 2, 0, 0, 1, false, true),
    POOL("avg padded, counted", emit_avg_pool, 5, 7, 6, 3, 3, 2, 2, 1, 1, 1, false, true),
    POOL("avg padded, not counted", emit_avg_pool, 5, 7, 6, 3, 3, 2, 2, 1, 1, 1, false, false),
    POOL("avg ceil, counted", emit_avg_pool, 5, 7, 6, 3, 2, 2, 2, 1, 0, 1, true, true),
    {.name = "global avg", .emit = emit_global, .forward = exact_global, .n_in = 1, .in = {IMAGE(18, 5, 3)}},
    {.name = "flatten", .emit = emit_flatten, .forward = exact_copy, .n_in = 1, .in = {IMAGE(18, 3, 2)}},
    {.name = "to plain", .emit = emit_to_plain, .forward = exact_copy, .n_in = 1, .in = {IMAGE(33, 1, 1)}},
    {.name = "batch norm", .emit = emit_norm, .forward = exact_norm, .n_in = 1, .in = {IMAGE(20, 3, 4)}, .n_weights = 4, .weight_size = 20,
     .norm = {0.1, 1e-5, false}, .across_samples = true},
    {.name = "batch norm, frozen", .emit = emit_norm, .forward = exact_norm, .n_in = 1, .in = {IMAGE(20, 3, 4)}, .n_weights = 4,
     .weight_size = 20, .norm = {0.1, 1e-5, true}},
    {.name = "batch norm, evaluation", .emit = emit_norm, .forward = exact_norm, .n_in = 1, .in = {IMAGE(5, 3, 4)}, .n_weights = 4,
     .weight_size = 5, .norm = {0.1, 1e-5, false}, .evaluation = true},
    {.name = "group norm", .emit = emit_group, .forward = exact_group, .n_in = 1, .in = {IMAGE(20, 3, 4)}, .n_weights = 2, .weight_size = 20,
     .norm = {0, 1e-5, false}, .groups = 5},
    {.name = "group norm, plain", .emit = emit_group, .forward = exact_group, .n_in = 1, .in = {IMAGE(6, 4, 4)},
     .norm = {0, 1e-5, false}, .groups = 1},
};

/* ---- the checks ---- */

typedef struct {
    double *x[3], *w[MAX_WEIGHTS], *y, *r; /* inputs, weights, output, and the output's gradient */
    int64_t y_count;                       /* of one sample */
} exact;

static int64_t count_in(const test_case *c, int k) { return gap_desc_count(&c->in[k]); }

/* Values keep away from kinks (0, 3, 6) by being odd multiples of 1/64 + something; distinct within a window with high chance. */
static void exact_begin(const test_case *c, exact *e, uint32_t seed) {
    memset(e, 0, sizeof *e);
    for (int k = 0; k < c->n_in; k++) {
        e->x[k] = calloc((size_t)(BATCH * count_in(c, k)), sizeof(double));
        for (int64_t i = 0; i < BATCH * count_in(c, k); i++) {
            double v = floor(256.0 * 5.0 * (double)harness_uniform(&seed)) / 256.0 + 1.0 / 512.0;
            e->x[k][i] = v;
        }
    }
    for (int k = 0; k < c->n_weights; k++) {
        e->w[k] = calloc((size_t)c->weight_size, sizeof(double));
        for (int64_t i = 0; i < c->weight_size; i++) e->w[k][i] = (double)(float)((k == 0 || k == 3 ? 1.5 : 0.0) + (double)harness_uniform(&seed));
    }
}

static void exact_end(exact *e) {
    for (int k = 0; k < 3; k++) free(e->x[k]);
    for (int k = 0; k < MAX_WEIGHTS; k++) free(e->w[k]);
    free(e->y), free(e->r);
}

static int last_value(const machine *m) { return m->list.n_values - 1; }

/* Builds the list, fills inputs and weights, runs forward and, in training, backward with the given output gradient. */
static void run(const test_case *c, exact *e, machine *m, const gap_kernels *kernels, int64_t n, bool backward) {
    int in[3], out;
    memset(m, 0, sizeof *m);
    gap_oplist_init(&m->list, !c->evaluation);
    m->n = n, m->capacity = CAPACITY;
    for (int k = 0; k < c->n_in; k++) CHECK_OK(gap_oplist_value(&m->list, &c->in[k], &in[k]));
    CHECK_OK(c->emit(c, &m->list, in, &out));
    CHECK(out == last_value(m));
    for (int k = 0; k < c->n_weights; k++) {
        m->weight[k] = poisoned((size_t)c->weight_size * 4), m->dweight[k] = poisoned((size_t)c->weight_size * 4);
        for (int64_t i = 0; i < c->weight_size; i++) m->weight[k][i] = (float)e->w[k][i];
    }
    machine_prepare(m, kernels);
    for (int k = 0; k < c->n_in; k++) store(&c->in[k], n, e->x[k], m->value[k]);
    machine_forward(m);
    const gap_desc *d = &m->list.value[out];
    e->y_count = gap_desc_count(d);
    if (e->r == NULL) {
        uint32_t seed = 99;
        e->r = calloc((size_t)(BATCH * e->y_count), sizeof(double)), e->y = calloc((size_t)(BATCH * e->y_count), sizeof(double));
        for (int64_t i = 0; i < BATCH * e->y_count; i++) e->r[i] = (double)harness_uniform(&seed);
    }
    if (!backward || c->evaluation) return;
    for (int v = 0; v < m->list.n_values; v++)
        m->gradient[v] = poisoned(gradient_floats(m, v) * 4);
    store(d, n, e->r, m->gradient[out]);
    machine_backward(m);
    machine_commit(m);
}

static const gap_kernels *kernels_of(const char *name) {
    const gap_kernels *k = NULL;
    return gap_kernels_find(&k, name) == GAP_OK ? k : NULL;
}

static bool check_near(const char *what, const char *name, double got, double expected, double tolerance) {
    double scale = fabs(expected) > 1 ? fabs(expected) : 1;
    if (fabs(got - expected) <= tolerance * scale) return true;
    printf("%s: %s: %.9g, expected %.9g\n", name, what, got, expected);
    return false;
}

static void test_ops_forward_is_the_exact_one(void) {
    for (int t = 0; t < GAP_COUNTOF(cases); t++) {
        const test_case *c = &cases[t];
        exact e;
        machine m;
        bool ok = true;
        exact_begin(c, &e, 11);
        run(c, &e, &m, kernels_of("ref"), BATCH, false);
        c->forward(c, BATCH, e.x, e.w, e.y);
        const gap_desc *d = &m.list.value[last_value(&m)];
        for (int64_t i = 0; i < BATCH * e.y_count && ok; i++)
            ok = check_near("forward", c->name, at(d, m.value[last_value(&m)], i / e.y_count, i % e.y_count), e.y[i], 2e-6);
        CHECK(ok);
        CHECK(padding_is_zero(d, BATCH, m.value[last_value(&m)]));
        machine_end(&m), exact_end(&e);
    }
}

static double objective(const test_case *c, exact *e) {
    double sum = 0;
    c->forward(c, BATCH, e->x, e->w, e->y);
    for (int64_t i = 0; i < BATCH * e->y_count; i++) sum += e->y[i] * e->r[i];
    return sum;
}

/* d objective / d *v by central differences of the double forward. */
static double slope(const test_case *c, exact *e, double *v) {
    const double step = 1e-5, old = *v;
    *v = old + step;
    double up = objective(c, e);
    *v = old - step;
    double down = objective(c, e);
    *v = old;
    return (up - down) / (2 * step);
}

static void test_ops_backward_is_the_slope_of_forward(void) {
    for (int t = 0; t < GAP_COUNTOF(cases); t++) {
        const test_case *c = &cases[t];
        exact e;
        machine m;
        if (c->evaluation) continue;
        double tolerance = c->tolerance > 0 ? c->tolerance : 1e-5;
        exact_begin(c, &e, 11);
        run(c, &e, &m, kernels_of(NULL), BATCH, true);
        for (int k = 0; k < c->n_in; k++) {
            bool ok = true;
            int64_t count = count_in(c, k);
            for (int64_t i = 0; i < BATCH * count && ok; i++)
                ok = check_near("dx", c->name, at(&c->in[k], m.gradient[k], i / count, i % count), slope(c, &e, &e.x[k][i]), tolerance);
            CHECK(ok);
            CHECK(padding_is_zero(&c->in[k], BATCH, m.gradient[k]));
        }
        for (int k = 0; k < (c->n_weights < 2 ? c->n_weights : 2); k++) {
            bool ok = true;
            for (int64_t i = 0; i < c->weight_size && ok; i++)
                ok = check_near("dweight", c->name, (double)m.dweight[k][i], slope(c, &e, &e.w[k][i]), tolerance);
            CHECK(ok);
        }
        machine_end(&m), exact_end(&e);
    }
}

/* What a second user of a value (din_add) or of a layer (dweight_add) left there stays, and the gradient is added. */
static void test_ops_backward_adds_where_asked(void) {
    for (int t = 0; t < GAP_COUNTOF(cases); t++) {
        const test_case *c = &cases[t];
        exact e;
        machine m, fresh;
        if (c->evaluation) continue;
        exact_begin(c, &e, 11);
        run(c, &e, &fresh, kernels_of(NULL), BATCH, true);
        run(c, &e, &m, kernels_of(NULL), BATCH, true);
        for (int k = 0; k < c->n_in; k++)
            for (int64_t i = 0; i < BATCH * count_in(c, k); i++) m.gradient[k][stored_at(&c->in[k], i / count_in(c, k), i % count_in(c, k))] = 2.0f;
        for (int v = 0; v < m.list.n_values; v++) m.has_gradient[v] = v < c->n_in;
        for (int k = 0; k < c->n_weights; k++)
            for (int64_t i = 0; i < c->weight_size; i++) m.dweight[k][i] = 3.0f;
        m.ctx.dweight_add = true;
        if (c->norm.momentum > 0) /* commit moved the running statistics of the first run */
            for (int k = 0; k < c->n_weights; k++)
                for (int64_t i = 0; i < c->weight_size; i++) m.weight[k][i] = (float)e.w[k][i];
        machine_backward(&m);
        bool ok = true;
        for (int k = 0; k < c->n_in; k++) {
            int64_t count = count_in(c, k);
            for (int64_t i = 0; i < BATCH * count && ok; i++)
                ok = check_near("added dx", c->name, at(&c->in[k], m.gradient[k], i / count, i % count),
                                2.0 + at(&c->in[k], fresh.gradient[k], i / count, i % count), 2e-6);
            CHECK(padding_is_zero(&c->in[k], BATCH, m.gradient[k]));
        }
        for (int k = 0; k < (c->n_weights < 2 ? c->n_weights : 2); k++)
            for (int64_t i = 0; i < c->weight_size && ok; i++)
                ok = check_near("added dweight", c->name, (double)m.dweight[k][i], 3.0 + (double)fresh.dweight[k][i], 2e-6);
        CHECK(ok);
        machine_end(&m), machine_end(&fresh), exact_end(&e);
    }
}

static bool equal_runs(const test_case *c, const machine *a, const machine *b) {
    int out = last_value(a);
    bool same = memcmp(a->value[out], b->value[out], (size_t)(gap_desc_stored(&a->list.value[out]) * a->n) * 4) == 0;
    for (int k = 0; k < c->n_in && a->gradient[k] != NULL; k++)
        same = same && memcmp(a->gradient[k], b->gradient[k], (size_t)(gap_desc_stored(&c->in[k]) * a->n) * 4) == 0;
    for (int k = 0; k < c->n_weights; k++)
        same = same && memcmp(a->weight[k], b->weight[k], (size_t)c->weight_size * 4) == 0 &&
               (c->evaluation || k > 1 || memcmp(a->dweight[k], b->dweight[k], (size_t)c->weight_size * 4) == 0);
    return same;
}

/* The same shapes grown, so that there are several chunks and pieces. */
static test_case grown(const test_case *c) {
    test_case big = *c;
    for (int k = 0; k < c->n_in; k++) {
        if (big.in[k].layout == GAP_BLOCKED && big.in[k].dim[1] * big.in[k].dim[2] > 1) big.in[k].dim[1] += 70, big.in[k].dim[2] += 51;
        else if (big.in[k].layout == GAP_PLAIN) big.in[k].dim[0] *= 1001;
    }
    return big;
}

static void check_same_bits(const test_case *c) {
    const char *const names[] = {"ref", "avx2", "avx512", "neon"};
    const int threads[] = {1, 2, 3, 7};
    exact e;
    machine first;
    exact_begin(c, &e, 5);
    CHECK_OK(gap_threads_set(1));
    run(c, &e, &first, kernels_of("ref"), BATCH, true);
    for (int s = 0; s < GAP_COUNTOF(names); s++)
        for (int t = 0; t < GAP_COUNTOF(threads); t++) {
            machine m;
            if (kernels_of(names[s]) == NULL) continue;
            CHECK_OK(gap_threads_set(threads[t]));
            run(c, &e, &m, kernels_of(names[s]), BATCH, true);
            if (!equal_runs(c, &first, &m)) {
                printf("%s: %s with %d threads gives other bits than ref with 1\n", c->name, names[s], threads[t]);
                CHECK(!"same bits");
            }
            machine_end(&m);
        }
    CHECK_OK(gap_threads_set(1));
    machine_end(&first), exact_end(&e);
}

static void test_ops_same_bits_in_every_set_at_any_number_of_threads(void) {
    for (int t = 0; t < GAP_COUNTOF(cases); t++) {
        test_case big = grown(&cases[t]);
        check_same_bits(&cases[t]);
        check_same_bits(&big);
    }
}

/* A sample alone gives the bits that it has in a batch. */
static void test_ops_evaluation_does_not_depend_on_the_batch(void) {
    for (int t = 0; t < GAP_COUNTOF(cases); t++) {
        const test_case *c = &cases[t];
        exact e;
        machine whole, one;
        if (c->across_samples) continue;
        exact_begin(c, &e, 5);
        run(c, &e, &whole, kernels_of(NULL), BATCH, false);
        run(c, &e, &one, kernels_of(NULL), 1, false);
        int out = last_value(&whole);
        CHECK(memcmp(whole.value[out], one.value[out], (size_t)gap_desc_stored(&one.list.value[out]) * 4) == 0);
        machine_end(&whole), machine_end(&one), exact_end(&e);
    }
}

static const test_case *case_named(const char *name) {
    for (int t = 0; t < GAP_COUNTOF(cases); t++)
        if (strcmp(cases[t].name, name) == 0) return &cases[t];
    return NULL;
}

static void test_batch_norm_moves_running_statistics_in_commit_only(void) {
    const test_case *c = case_named("batch norm");
    exact e;
    machine m;
    exact_begin(c, &e, 11);
    run(c, &e, &m, kernels_of(NULL), BATCH, false);
    for (int64_t i = 0; i < 20; i++) CHECK(m.weight[2][i] == (float)e.w[2][i] && m.weight[3][i] == (float)e.w[3][i]);
    machine_commit(&m);
    for (int64_t ch = 0; ch < 20; ch++) {
        double mean = 0, var = 0, n = BATCH * 12;
        for (int64_t k = 0; k < BATCH * 12; k++) mean += e.x[0][(k / 12 * 20 + ch) * 12 + k % 12] / n;
        for (int64_t k = 0; k < BATCH * 12; k++) var += pow(e.x[0][(k / 12 * 20 + ch) * 12 + k % 12] - mean, 2) / (n - 1);
        CHECK_NEAR((double)m.weight[2][ch], 0.9 * e.w[2][ch] + 0.1 * mean, 1e-6);
        CHECK_NEAR((double)m.weight[3][ch], 0.9 * e.w[3][ch] + 0.1 * var, 1e-6);
    }
    machine_end(&m), exact_end(&e);
}

/* A mean 1000 times the deviation: sums about the running mean keep the variance. */
static void test_batch_norm_large_mean_keeps_its_variance(void) {
    test_case c = *case_named("batch norm");
    exact e;
    machine m;
    exact_begin(&c, &e, 11);
    for (int64_t i = 0; i < BATCH * count_in(&c, 0); i++) e.x[0][i] = (double)(float)(1000.0 + e.x[0][i] / 5.0);
    for (int64_t i = 0; i < 20; i++) e.w[2][i] = 999.0;
    run(&c, &e, &m, kernels_of(NULL), BATCH, false);
    c.forward(&c, BATCH, e.x, e.w, e.y);
    const gap_desc *d = &m.list.value[last_value(&m)];
    for (int64_t i = 0; i < BATCH * e.y_count; i++) CHECK_NEAR(at(d, m.value[last_value(&m)], i / e.y_count, i % e.y_count), e.y[i], 3e-4);
    machine_end(&m), exact_end(&e);
}

static void test_batch_norm_one_value_per_channel_is_an_error(void) {
    gap_oplist l;
    gap_desc d = gap_desc_image(4, 1, 1);
    gap_norm_attr attr = {0.1, 1e-5, false};
    int in, out;
    gap_oplist_init(&l, true);
    CHECK_OK(gap_oplist_value(&l, &d, &in));
    CHECK_OK(gap_emit_batch_norm(&l, who, in, &attr, 0, 1, 2, 3, &out));
    gap_op_env env = {.capacity = 1, .training = true, .kernels = kernels_of(NULL)};
    CHECK(l.op[1].def == &gap_op_norm);
    CHECK_FAILS(l.op[1].def->prepare(&l.op[1], &env), GAP_ERR_SHAPE);
    CHECK(strstr(gap_error_message(), "one value per channel") != NULL);
    env.capacity = 2;
    CHECK_OK(l.op[1].def->prepare(&l.op[1], &env));
    gap_op_ctx c = {.n = 1, .capacity = 2, .training = true, .kernels = env.kernels};
    CHECK_FAILS(l.op[1].def->forward(&l.op[1], &c), GAP_ERR_SHAPE); /* a short last batch */
    gap_oplist_free(&l);
}

/* One window of four equal values, one with a NaN, one of -infinity only. */
static void test_max_pool_ties_nan_and_infinity(void) {
    const test_case c = {.name = "max", .emit = emit_max_pool, .n_in = 1, .in = {IMAGE(1, 2, 6)}, .pool = {{2, 2}, {2, 2}, {0, 0}, {1, 1}, false, false}};
    const double row[12] = {1, 1, 5, 2, -INFINITY, -INFINITY, 1, 1, NAN, 7, -INFINITY, -INFINITY};
    const char *const names[] = {"ref", "avx2", "avx512", "neon"};
    for (int s = 0; s < 4; s++) {
        exact e;
        machine m;
        if (kernels_of(names[s]) == NULL) continue;
        exact_begin(&c, &e, 1);
        for (int n = 0; n < BATCH; n++) memcpy(e.x[0] + n * 12, row, sizeof row);
        run(&c, &e, &m, kernels_of(names[s]), BATCH, true);
        const float *y = m.value[1], *dx = m.gradient[0];
        CHECK(y[0] == 1.0f && isnan(y[16]) && isinf(y[32]) && y[32] < 0);
        CHECK(dx[0] == (float)e.r[0] && dx[16] == 0.0f && dx[6 * 16] == 0.0f && dx[7 * 16] == 0.0f); /* first of equals */
        CHECK(dx[8 * 16] == (float)e.r[1] && dx[2 * 16] == 0.0f);                                     /* NaN wins */
        CHECK(dx[4 * 16] == (float)e.r[2]);
        machine_end(&m), exact_end(&e);
    }
}

static void test_dropout_is_a_function_of_its_place(void) {
    test_case c = {.name = "dropout", .emit = emit_dropout, .n_in = 1, .in = {IMAGE(20, 7, 5)}, .arg = 0.25f};
    exact e;
    machine m;
    exact_begin(&c, &e, 3);
    for (int64_t i = 0; i < BATCH * 700; i++) e.x[0][i] = 1.0;
    run(&c, &e, &m, kernels_of(NULL), BATCH, true);
    int64_t kept = 0;
    for (int64_t i = 0; i < BATCH * 700; i++) {
        gap_rng place = {.seed = 42, .stream = GAP_STREAM_DROPOUT, .epoch = 3, .sample = (uint32_t)(100 + 7 * (i / 700)), .op = 5};
        uint32_t word[4];
        gap_rng_block(&place, (uint32_t)(i % 700 / 4), word);
        bool keep = (double)gap_u32_to_unit(word[i % 4]) >= 0.25;
        CHECK(at(&c.in[0], m.value[1], i / 700, i % 700) == (keep ? (double)(float)(1 / 0.75) : 0.0));
        CHECK_NEAR(at(&c.in[0], m.gradient[0], i / 700, i % 700), keep ? (double)(float)e.r[i] / 0.75 : 0.0, 1e-6);
        kept += keep;
    }
    CHECK(kept > BATCH * 700 * 0.70 && kept < BATCH * 700 * 0.80);
    CHECK(padding_is_zero(&c.in[0], BATCH, m.value[1]) && padding_is_zero(&c.in[0], BATCH, m.gradient[0]));
    machine_end(&m), exact_end(&e);
    check_same_bits(&c);
    c.in[0] = (gap_desc)VECTOR(37);
    check_same_bits(&c);
}

/* Byte images and the same images as floats, normalised, against one fma per value. */
static void check_input(gap_desc d, bool normalise) {
    gap_input_attr attr = {.n = normalise ? (int)d.dim[0] : 0};
    int64_t c = d.dim[0], pixels = d.dim[1] * d.dim[2];
    bool bytes = d.dtype == GAP_U8, ok = true;
    for (int k = 0; k < attr.n; k++) attr.a[k] = 0.017f + 0.001f * (float)k, attr.b[k] = -1.9f + 0.1f * (float)k;
    machine m = {.n = BATCH, .capacity = CAPACITY};
    int in, out;
    uint32_t seed = 4;
    gap_oplist_init(&m.list, false);
    CHECK_OK(gap_oplist_value(&m.list, &d, &in));
    CHECK_OK(gap_emit_input(&m.list, in, &attr, &out));
    machine_prepare(&m, kernels_of(NULL));
    uint8_t *u = (uint8_t *)m.value[0];
    for (int64_t i = 0; i < BATCH * c * pixels; i++) {
        if (bytes) u[i] = (uint8_t)harness_u32(&seed);
        else m.value[0][i] = harness_uniform(&seed);
    }
    machine_forward(&m);
    for (int64_t i = 0; i < BATCH * c * pixels; i++) {
        int64_t s = i / (c * pixels), ch = i / pixels % c, p = i % pixels;
        float x = bytes ? (float)u[(s * pixels + p) * c + ch] : m.value[0][i];
        float a = normalise ? attr.a[ch] : bytes ? (float)(1.0 / 255.0) : 1.0f, b = normalise ? attr.b[ch] : 0.0f;
        ok = ok && m.value[out][stored_at(&m.list.value[out], s, i % (c * pixels))] == fmaf(x, a, b);
    }
    CHECK(ok);
    CHECK(padding_is_zero(&m.list.value[out], BATCH, m.value[out]));
    machine_end(&m);
}

static void test_input_bytes_and_floats(void) {
    for (int k = 0; k < 4; k++) {
        int64_t c = (const int64_t[]){1, 3, 4, 3}[k];
        gap_desc bytes = {.dtype = GAP_U8, .layout = GAP_NHWC, .ndim = 3, .dim = {c, 5, 7}};
        gap_desc floats = {.dtype = GAP_F32, .layout = GAP_PLAIN, .ndim = 3, .dim = {c, 5, 7}};
        check_input(bytes, k % 2 == 0), check_input(floats, k % 2 == 0);
    }
    gap_desc many = {.dtype = GAP_U8, .layout = GAP_NHWC, .ndim = 3, .dim = {19, 3, 2}};
    check_input(many, false);
}

static void test_shape_errors_say_what_was_expected(void) {
    gap_oplist l;
    gap_desc a = gap_desc_image(4, 5, 5), b = gap_desc_image(5, 5, 5), v = gap_desc_vector(9);
    gap_pool_attr pool = {{3, 3}, {1, 1}, {2, 2}, {1, 1}, false, true};
    int ia, ib, iv, out;
    gap_oplist_init(&l, true);
    CHECK_OK(gap_oplist_value(&l, &a, &ia));
    CHECK_OK(gap_oplist_value(&l, &b, &ib));
    CHECK_OK(gap_oplist_value(&l, &v, &iv));
    CHECK_FAILS(gap_emit_add(&l, who, ia, ib, &out), GAP_ERR_SHAPE);
    CHECK(strstr(gap_error_message(), "(4, 5, 5) and (5, 5, 5)") != NULL);
    CHECK_FAILS(gap_emit_mul(&l, who, ia, ib, &out), GAP_ERR_SHAPE);
    CHECK_FAILS(gap_emit_concat(&l, who, (const int[]){ia, iv}, 2, &out), GAP_ERR_SHAPE);
    CHECK_FAILS(gap_emit_concat(&l, who, &ia, 1, &out), GAP_ERR_SHAPE);
    CHECK_FAILS(gap_emit_max_pool(&l, who, ia, &pool, &out), GAP_ERR_SHAPE);
    CHECK(strstr(gap_error_message(), "at most half") != NULL);
    pool.padding[0] = pool.padding[1] = 0, pool.kernel[0] = 6;
    CHECK_FAILS(gap_emit_avg_pool(&l, who, ia, &pool, &out), GAP_ERR_SHAPE);
    CHECK_FAILS(gap_emit_group_norm(&l, who, ia, 3, 1e-5, -1, -1, &out), GAP_ERR_SHAPE);
    CHECK_FAILS(gap_emit_global_avg_pool(&l, who, iv, &out), GAP_ERR_SHAPE);
    CHECK_FAILS(gap_emit_dropout(&l, who, ia, 1.0, &out), GAP_ERR_VALUE);
    CHECK(l.n_ops == 0 && l.n_values == 3);
    CHECK_OK(gap_emit_flatten(&l, who, iv, &out));
    CHECK(out == iv && l.n_ops == 0);
    gap_oplist_free(&l);
}

int main(void) {
    RUN(test_ops_forward_is_the_exact_one);
    RUN(test_ops_backward_is_the_slope_of_forward);
    RUN(test_ops_backward_adds_where_asked);
    RUN(test_ops_same_bits_in_every_set_at_any_number_of_threads);
    RUN(test_ops_evaluation_does_not_depend_on_the_batch);
    RUN(test_batch_norm_moves_running_statistics_in_commit_only);
    RUN(test_batch_norm_large_mean_keeps_its_variance);
    RUN(test_batch_norm_one_value_per_channel_is_an_error);
    RUN(test_max_pool_ties_nan_and_infinity);
    RUN(test_dropout_is_a_function_of_its_place);
    RUN(test_input_bytes_and_floats);
    RUN(test_shape_errors_say_what_was_expected);
    return harness_end();
}

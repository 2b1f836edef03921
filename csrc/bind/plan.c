#include "bind/bind.h"

#include <string.h>

#define MAX_OUTPUTS 4

typedef struct {
    PyObject_HEAD
    gap_plan *plan;
    gap_graph_object *graph; /* strong: the plan borrows what they own */
    gap_store_object *store;
    PyObject *keep;          /* list: what the loss's long lists and the names to recompute point into */
    const gap_kernels *kernels;
    gap_dtype input_dtype;
    int64_t capacity;
    int n_hyper;             /* parameters of the optimizer; 0 without one */
    bool training, has_loss;
    bool busy;               /* a call is running; guarded by the GIL */
} gap_plan_object;

/* ---- one call at a time ---- */

static int enter(gap_plan_object *self, bool write) {
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "Plan: another thread is using this plan now; a plan serves one call at a time, "
                                            "so make one plan per thread");
        return -1;
    }
    if (gap_bind_store_lock(self->store, write) < 0) return -1;
    self->busy = true;
    return 0;
}

static void leave(gap_plan_object *self, bool write) {
    self->busy = false;
    gap_bind_store_unlock(self->store, write);
}

/* ---- making ---- */

int gap_bind_input_attr(const char *owner, PyObject *mean, PyObject *std, int64_t channels, gap_dtype dtype, gap_input_attr *out) {
    static const gap_param rows[2] = {
        {"mean", GAP_FLOATS, .optional = true, .dflt_none = true}, {"std", GAP_FLOATS, .optional = true, .dflt_none = true}};
    gap_value v[2];
    memset(out, 0, sizeof *out);
    PyObject *config = Py_BuildValue("{s:O, s:O}", "mean", mean, "std", std);
    int failed = config == NULL || gap_bind_config_parse(owner, rows, 2, config, v) < 0;
    Py_XDECREF(config);
    if (failed) return -1;
    if (v[0].none && v[1].none) return 0;
    int n = (int)channels;
    bool fits = !v[0].none && !v[1].none && n <= GAP_COUNTOF(out->a) && (v[0].n == 1 || v[0].n == n) && (v[1].n == 1 || v[1].n == n);
    if (!fits) {
        PyErr_Format(PyExc_ValueError, "%s: mean and std must both be given, with one number each or one per channel (%lld)", owner,
                     (long long)channels);
        return -1;
    }
    double scale = dtype == GAP_U8 ? 255.0 : 1.0; /* mean and std are those of pixels in [0, 1] */
    for (int c = 0; c < n; c++) {
        double m = v[0].f[v[0].n == 1 ? 0 : c], s = v[1].f[v[1].n == 1 ? 0 : c];
        if (!(s > 0)) {
            PyErr_Format(PyExc_ValueError, "%s: std must be > 0", owner);
            return -1;
        }
        out->a[c] = (float)(1.0 / (scale * s)), out->b[c] = (float)(-m / s);
    }
    out->n = n;
    return 0;
}

static int parse_choice(const char *name, const char *text, const char *a, const char *b, bool *is_b) {
    *is_b = strcmp(text, b) == 0;
    if (*is_b || strcmp(text, a) == 0) return 0;
    PyErr_Format(PyExc_ValueError, "Plan: %s must be '%s' or '%s', got '%s'", name, a, b, text);
    return -1;
}

static int parse_loss(PyObject *loss, PyObject *keep, gap_plan_options *o) {
    const char *name;
    PyObject *config;
    if (loss == Py_None) return 0;
    if (!PyTuple_Check(loss) || !PyArg_ParseTuple(loss, "sO;Plan: loss must be (name, config)", &name, &config)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "Plan: loss must be (name, config) or None");
        return -1;
    }
    o->loss = gap_loss_find(name);
    if (o->loss == NULL) {
        PyErr_Format(PyExc_ValueError, "Plan: there is no loss '%s'", name);
        return -1;
    }
    return gap_bind_config_parse_keep(o->loss->name, o->loss->params, o->loss->n_params, config, keep, o->loss_cfg);
}

/* Names of layers: a sequence of str. The array and the strings live as long as `keep`. */
static int parse_recompute(PyObject *names, PyObject *keep, gap_plan_options *o) {
    if (names == Py_None) return 0;
    PyObject *held = PySequence_Tuple(names);
    if (held == NULL || PyUnicode_Check(names)) {
        if (held != NULL) PyErr_SetString(PyExc_TypeError, "Plan: recompute must be a sequence of layer names");
        Py_XDECREF(held);
        return -1;
    }
    const Py_ssize_t n = PyTuple_GET_SIZE(held);
    PyObject *array = PyBytes_FromStringAndSize(NULL, n * (Py_ssize_t)sizeof(char *));
    int failed = array == NULL || n > INT32_MAX || PyList_Append(keep, held) < 0 || PyList_Append(keep, array) < 0;
    for (Py_ssize_t k = 0; !failed && k < n; k++) {
        const char *name = PyUnicode_Check(PyTuple_GET_ITEM(held, k)) ? PyUnicode_AsUTF8(PyTuple_GET_ITEM(held, k)) : NULL;
        if (name == NULL && !PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "Plan: recompute must be a sequence of layer names");
        failed = name == NULL;
        memcpy(PyBytes_AS_STRING(array) + k * (Py_ssize_t)sizeof name, &name, sizeof name);
    }
    if (!failed) o->recompute = (const char *const *)(const void *)PyBytes_AS_STRING(array), o->n_recompute = (int)n;
    Py_DECREF(held);
    Py_XDECREF(array);
    return failed ? -1 : 0;
}

static int parse_options(PyObject *args, PyObject *kwargs, gap_bind_state *state, gap_plan_options *o, PyObject **graph,
                         PyObject **store, PyObject *keep) {
    static char *keys[] = {"graph", "store", "batch", "training", "precision", "kernels", "mean", "std", "input_dtype", "loss",
                           "optimizer", "recompute", "measure", NULL};
    const char *precision = "fast", *kernels = NULL, *dtype = "uint8", *optimizer = NULL;
    PyObject *mean = Py_None, *std = Py_None, *loss = Py_None, *recompute = Py_None;
    long long batch = 0;
    int training = 0, measure = 0;
    bool precise, is_float;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!|$LpszOOsOzOp:Plan", keys, state->graph_type, graph, state->store_type, store,
                                     &batch, &training, &precision, &kernels, &mean, &std, &dtype, &loss, &optimizer, &recompute,
                                     &measure))
        return -1;
    if (batch < 1) {
        PyErr_Format(PyExc_ValueError, "Plan: batch must be >= 1, got %lld", batch);
        return -1;
    }
    if (parse_choice("precision", precision, "fast", "precise", &precise) < 0) return -1;
    if (parse_choice("input_dtype", dtype, "uint8", "float32", &is_float) < 0) return -1;
    o->capacity = batch, o->training = training != 0;
    o->precision = precise ? GAP_PRECISION_PRECISE : GAP_PRECISION_FAST;
    o->input_dtype = is_float ? GAP_F32 : GAP_U8;
    const gap_desc *input = &((gap_graph_object *)*graph)->graph->input;
    if (gap_bind_input_attr("Plan", mean, std, input->ndim == 3 ? input->dim[0] : 0, o->input_dtype, &o->input) < 0) return -1;
    o->measure = measure != 0;
    if (parse_loss(loss, keep, o) < 0 || parse_recompute(recompute, keep, o) < 0) return -1;
    if (optimizer != NULL && (o->optimizer = gap_optimizer_find(optimizer)) == NULL) {
        PyErr_Format(PyExc_ValueError, "Plan: there is no optimizer '%s'", optimizer);
        return -1;
    }
    gap_status st = gap_kernels_find(&o->kernels, kernels);
    if (st != GAP_OK) gap_bind_raise(st);
    return st == GAP_OK ? 0 : -1;
}

static int compile(gap_plan_object *self, const gap_plan_options *o) {
    gap_bind_call call;
    if (enter(self, true) < 0) return -1;
    gap_bind_begin(&call);
    gap_status st = gap_plan_new(&self->plan, self->graph->graph, self->store->store, o);
    int failed = gap_bind_end(&call, st);
    leave(self, true);
    if (!failed) self->graph->in_use = true;
    return failed;
}

static PyObject *plan_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    gap_bind_state *state = gap_bind_state_of(type);
    PyObject *graph, *store, *keep = PyList_New(0);
    gap_plan_object *self = NULL;
    gap_plan_options o;
    memset(&o, 0, sizeof o);
    if (state != NULL && keep != NULL && parse_options(args, kwargs, state, &o, &graph, &store, keep) == 0)
        self = (gap_plan_object *)type->tp_alloc(type, 0);
    if (self == NULL) {
        Py_XDECREF(keep);
        return NULL;
    }
    self->graph = (gap_graph_object *)Py_NewRef(graph);
    self->store = (gap_store_object *)Py_NewRef(store);
    self->keep = keep;
    self->kernels = o.kernels, self->capacity = o.capacity, self->input_dtype = o.input_dtype;
    self->training = o.training, self->has_loss = o.loss != NULL;
    self->n_hyper = o.optimizer != NULL ? o.optimizer->n_params : 0;
    if (compile(self, &o) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

static int plan_traverse(PyObject *o, visitproc visit, void *arg) {
    gap_plan_object *self = (gap_plan_object *)o;
    Py_VISIT(Py_TYPE(o));
    Py_VISIT(self->graph);
    Py_VISIT(self->store);
    Py_VISIT(self->keep);
    return 0;
}

/* The plan borrows the two, so it goes before them. */
static int plan_clear(PyObject *o) {
    gap_plan_object *self = (gap_plan_object *)o;
    gap_plan_free(self->plan);
    self->plan = NULL;
    Py_CLEAR(self->graph);
    Py_CLEAR(self->store);
    Py_CLEAR(self->keep);
    return 0;
}

static void plan_dealloc(PyObject *o) {
    PyTypeObject *type = Py_TYPE(o);
    PyObject_GC_UnTrack(o);
    (void)plan_clear(o);
    type->tp_free(o);
    Py_DECREF(type);
}

/* ---- operands of a call ---- */

/* x as the plan's input type says: images (n, H, W, C) uint8, or (n, C, H, W) / (n, F) float32. */
static PyArrayObject *parse_x(const gap_plan_object *self, PyObject *x, int64_t *n) {
    const gap_desc *d = &self->graph->graph->input;
    int64_t dim[GAP_MAX_DIM];
    bool u8 = self->input_dtype == GAP_U8;
    memcpy(dim, d->dim, sizeof dim);
    if (u8 && d->ndim == 3) dim[0] = d->dim[1], dim[1] = d->dim[2], dim[2] = d->dim[0];
    PyArrayObject *a = gap_bind_array(x, u8 ? NPY_UINT8 : NPY_FLOAT32, "x");
    if (a != NULL && gap_bind_batch_check(a, dim, d->ndim, self->capacity, "x", n) < 0) Py_CLEAR(a);
    return a;
}

/* New tuple of float32 arrays (n, …), one per output; their memory in out[]. */
static PyObject *new_outputs(const gap_plan_object *self, int64_t n, float *out[MAX_OUTPUTS]) {
    const gap_graph *g = self->graph->graph;
    PyObject *t = PyTuple_New(g->n_outputs);
    for (int k = 0; t != NULL && k < g->n_outputs; k++) {
        gap_desc d = gap_graph_desc(g, g->output[k]);
        npy_intp dims[GAP_MAX_DIM + 1] = {(npy_intp)n};
        for (int j = 0; j < d.ndim; j++) dims[j + 1] = (npy_intp)d.dim[j];
        PyObject *a = PyArray_SimpleNew(d.ndim + 1, dims, NPY_FLOAT32);
        if (a == NULL) {
            Py_CLEAR(t);
            break;
        }
        out[k] = PyArray_DATA((PyArrayObject *)a);
        PyTuple_SET_ITEM(t, k, a);
    }
    return t;
}

typedef struct { PyObject *loss, *pred; } sample_results;

static int new_results(int64_t n, sample_results *r) {
    npy_intp dim = (npy_intp)n;
    r->loss = PyArray_SimpleNew(1, &dim, NPY_FLOAT32);
    r->pred = r->loss != NULL ? PyArray_SimpleNew(1, &dim, NPY_INT32) : NULL;
    return r->pred != NULL ? 0 : -1;
}

static void clear_results(sample_results *r) {
    Py_CLEAR(r->loss);
    Py_CLEAR(r->pred);
}

static int need_loss(const gap_plan_object *self) {
    if (self->has_loss) return 0;
    PyErr_SetString(PyExc_ValueError, "Plan: it was made without a loss");
    return -1;
}

/* ---- forward, evaluate, step ---- */

PyDoc_STRVAR(forward_doc, "forward($self, x, /)\n--\n\nEvaluation forward of n <= batch samples.");

static PyObject *plan_forward(PyObject *o, PyObject *x) {
    gap_plan_object *self = (gap_plan_object *)o;
    int64_t n;
    float *out[MAX_OUTPUTS];
    PyArrayObject *a = parse_x(self, x, &n);
    if (a == NULL) return NULL;
    PyObject *outputs = new_outputs(self, n, out);
    if (outputs != NULL && enter(self, false) == 0) {
        gap_bind_call call;
        gap_bind_begin(&call);
        gap_status st = gap_plan_forward(self->plan, n, PyArray_DATA(a), out);
        if (gap_bind_end(&call, st) < 0) Py_CLEAR(outputs);
        leave(self, false);
    } else {
        Py_CLEAR(outputs);
    }
    Py_DECREF(a);
    return outputs;
}

PyDoc_STRVAR(evaluate_doc, "evaluate($self, /, x, y)\n--\n\nEvaluation forward with the plain loss and the prediction per sample.");

static PyObject *plan_evaluate(PyObject *o, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"x", "y", NULL};
    gap_plan_object *self = (gap_plan_object *)o;
    PyObject *x, *y, *outputs = NULL, *result = NULL;
    sample_results r = {NULL, NULL};
    gap_bind_targets t = {.values = NULL};
    int64_t n;
    float *out[MAX_OUTPUTS];
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:evaluate", keys, &x, &y) || need_loss(self) < 0) return NULL;
    PyArrayObject *a = parse_x(self, x, &n);
    if (a == NULL) return NULL;
    if (gap_bind_targets_parse(y, n, &t) < 0 || new_results(n, &r) < 0) goto done;
    outputs = new_outputs(self, n, out);
    if (outputs == NULL || enter(self, false) < 0) goto done;
    gap_bind_call call;
    gap_bind_begin(&call);
    gap_status st = gap_plan_evaluate(self->plan, n, PyArray_DATA(a), &t.targets, PyArray_DATA((PyArrayObject *)r.loss),
                                      PyArray_DATA((PyArrayObject *)r.pred), out);
    if (gap_bind_end(&call, st) == 0) result = PyTuple_Pack(3, r.loss, r.pred, outputs);
    leave(self, false);
done:
    Py_XDECREF(outputs);
    clear_results(&r);
    gap_bind_targets_clear(&t);
    Py_DECREF(a);
    return result;
}

/* hyper: float64 (n_groups, n_params); a plan without optimizer takes any. */
static PyArrayObject *parse_hyper(const gap_plan_object *self, PyObject *hyper, gap_step_args *out) {
    PyArrayObject *a = gap_bind_array(hyper, NPY_FLOAT64, "hyper");
    if (a == NULL) return NULL;
    bool fits = PyArray_NDIM(a) == 2 && PyArray_DIM(a, 0) >= 1 && PyArray_DIM(a, 0) <= INT32_MAX;
    if (!fits || (self->n_hyper > 0 && PyArray_DIM(a, 1) != self->n_hyper)) {
        gap_bind_raise(gap_fail(GAP_ERR_SHAPE, "hyper: shape must be (groups >= 1, %d)", self->n_hyper));
        Py_DECREF(a);
        return NULL;
    }
    out->hyper = PyArray_DATA(a), out->n_groups = (int)PyArray_DIM(a, 0);
    for (int k = 0; self->n_hyper > 0 && k < self->store->store->n_entries; k++) {
        const gap_entry *e = &self->store->store->entry[k];
        if (e->group < out->n_groups) continue;
        PyErr_Format(PyExc_ValueError, "hyper: %s is in group %d, but there are %d rows", e->name, e->group, out->n_groups);
        Py_DECREF(a);
        return NULL;
    }
    return a;
}

static PyArrayObject *parse_ids(PyObject *ids, int64_t n) {
    PyArrayObject *a = gap_bind_array(ids, NPY_INT64, "ids");
    if (a == NULL || (PyArray_NDIM(a) == 1 && PyArray_DIM(a, 0) == n)) return a;
    gap_bind_raise(gap_fail(GAP_ERR_SHAPE, "ids: shape must be (%lld), one per sample of x", (long long)n));
    Py_DECREF(a);
    return NULL;
}

static PyObject *run_step(gap_plan_object *self, int64_t n, const PyArrayObject *x, const gap_targets *y, const gap_step_args *step) {
    sample_results r = {NULL, NULL};
    PyObject *result = NULL;
    double mean = 0.0;
    if (new_results(n, &r) == 0 && enter(self, true) == 0) {
        gap_bind_call call;
        gap_bind_begin(&call);
        gap_status st = gap_plan_step(self->plan, n, PyArray_DATA((PyArrayObject *)x), y, step, PyArray_DATA((PyArrayObject *)r.loss),
                                      PyArray_DATA((PyArrayObject *)r.pred), &mean);
        if (gap_bind_end(&call, st) == 0) result = Py_BuildValue("(OOd)", r.loss, r.pred, mean);
        leave(self, true);
    }
    clear_results(&r);
    return result;
}

PyDoc_STRVAR(step_doc, "step($self, /, x, y, *, hyper=None, epoch=0, step=0, ids=None, seed=0, ema_decay=-1.0, clip_norm=0.0)\n--\n\n"
                       "One training step; leaves no trace when it fails or is interrupted.");

static PyObject *plan_step(PyObject *o, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"x", "y", "hyper", "epoch", "step", "ids", "seed", "ema_decay", "clip_norm", NULL};
    gap_plan_object *self = (gap_plan_object *)o;
    PyObject *x, *y, *hyper = NULL, *ids = NULL, *result = NULL;
    PyArrayObject *hyper_a = NULL, *ids_a = NULL;
    gap_bind_targets t = {.values = NULL};
    long long epoch = 0, step = 0;
    unsigned long long seed = 0;
    gap_step_args s = {.ema_decay = -1.0};
    int64_t n;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$OLLOKdd:step", keys, &x, &y, &hyper, &epoch, &step, &ids, &seed, &s.ema_decay,
                                     &s.clip_norm) || need_loss(self) < 0)
        return NULL;
    if (hyper == NULL || ids == NULL) return PyErr_Format(PyExc_TypeError, "step: hyper and ids must be given");
    if (!self->training) return PyErr_Format(PyExc_ValueError, "Plan: it was made for evaluation (training=False)");
    PyArrayObject *a = parse_x(self, x, &n);
    if (a == NULL) return NULL;
    s.epoch = epoch, s.step = step, s.seed = seed;
    if (gap_bind_targets_parse(y, n, &t) == 0 && (hyper_a = parse_hyper(self, hyper, &s)) != NULL &&
        (ids_a = parse_ids(ids, n)) != NULL) {
        s.ids = PyArray_DATA(ids_a);
        result = run_step(self, n, a, &t.targets, &s);
    }
    gap_bind_targets_clear(&t);
    Py_XDECREF(hyper_a);
    Py_XDECREF(ids_a);
    Py_DECREF(a);
    return result;
}

/* ---- what a plan tells about itself ---- */

PyDoc_STRVAR(gradients_doc, "gradients($self, /)\n--\n\nCopies of the last step's gradients by weight name; frozen weights and buffers are left out.");

static PyObject *plan_gradients(PyObject *o, PyObject *unused) {
    (void)unused;
    gap_plan_object *self = (gap_plan_object *)o;
    const gap_store *s = self->store->store;
    bool any = false;
    for (int k = 0; k < s->n_entries; k++) any |= gap_plan_gradient(self->plan, k) != NULL;
    if (!any) return PyErr_Format(PyExc_ValueError, "Plan: no gradients before the first step, nor after one that failed");
    if (enter(self, false) < 0) return NULL;
    PyObject *d = PyDict_New();
    for (int k = 0; d != NULL && k < s->n_entries; k++) {
        const gap_entry *e = &s->entry[k];
        if (e->decl.kind != GAP_WEIGHT_PARAM || !e->trainable) continue;
        npy_intp dims[GAP_MAX_DIM];
        for (int j = 0; j < e->decl.ndim; j++) dims[j] = (npy_intp)e->decl.dim[j];
        PyObject *a = PyArray_SimpleNew(e->decl.ndim, dims, NPY_FLOAT32);
        const float *g = gap_plan_gradient(self->plan, k);
        if (a != NULL && g != NULL) memcpy(PyArray_DATA((PyArrayObject *)a), g, e->count * sizeof(float));
        else if (a != NULL) memset(PyArray_DATA((PyArrayObject *)a), 0, e->count * sizeof(float)); /* reaches no loss */
        if (a == NULL || PyDict_SetItemString(d, e->name, a) < 0) Py_CLEAR(d);
        Py_XDECREF(a);
    }
    leave(self, false);
    return d;
}

PyDoc_STRVAR(describe_doc, "describe($self, /)\n--\n\nOne row per op, after fusion: op, layer, shapes, what was chosen, multiply-accumulates.");

static PyObject *plan_describe(PyObject *o, PyObject *unused) {
    (void)unused;
    const gap_plan *plan = ((gap_plan_object *)o)->plan;
    int n = gap_plan_rows(plan);
    PyObject *list = PyList_New(n);
    for (int k = 0; list != NULL && k < n; k++) {
        gap_plan_row row;
        memset(&row, 0, sizeof row);
        gap_plan_row_at(plan, k, &row);
        PyObject *d = Py_BuildValue("{s:s, s:s, s:N, s:N, s:s, s:L}", "op", row.op, "layer", row.layer != NULL ? row.layer : "", "in",
                                    gap_bind_int_tuple(row.in.dim, row.in.ndim), "out", gap_bind_int_tuple(row.out.dim, row.out.ndim),
                                    "choice", row.choice, "macs", (long long)row.macs);
        if (d == NULL) Py_CLEAR(list);
        else PyList_SET_ITEM(list, k, d);
    }
    return list;
}

PyDoc_STRVAR(profile_doc, "profile($self, /)\n--\n\nSeconds per op since the last call; the first call begins the timing. The last two rows "
                          "are the loss and the update, in forward_seconds.");

static PyObject *profile_row(const gap_plan *plan, int k, const gap_plan_times *t) {
    static const char *const extra[GAP_PLAN_EXTRA_ROWS] = {"loss", "update"};
    gap_plan_row row;
    memset(&row, 0, sizeof row);
    int n = gap_plan_rows(plan);
    if (k < n) gap_plan_row_at(plan, k, &row);
    else row.op = extra[k - n];
    return Py_BuildValue("{s:s, s:s, s:s, s:d, s:d, s:d}", "op", row.op, "layer", row.layer != NULL ? row.layer : "", "choice", row.choice,
                         "forward_seconds", t->forward, "backward_seconds", t->backward, "derive_seconds", t->derive);
}

static PyObject *plan_profile(PyObject *o, PyObject *unused) {
    (void)unused;
    gap_plan_object *self = (gap_plan_object *)o;
    int n = gap_plan_rows(self->plan) + GAP_PLAN_EXTRA_ROWS;
    gap_plan_times *times = PyMem_Calloc((size_t)n, sizeof *times);
    if (times == NULL) return PyErr_NoMemory();
    PyObject *list = NULL;
    if (enter(self, false) == 0) { /* a step in another thread writes what is read here */
        gap_status st = gap_plan_profile(self->plan, times);
        leave(self, false);
        if (st == GAP_OK) list = PyList_New(n);
        else gap_bind_raise(st);
    }
    for (int k = 0; list != NULL && k < n; k++) {
        PyObject *row = profile_row(self->plan, k, &times[k]);
        if (row == NULL) Py_CLEAR(list);
        else PyList_SET_ITEM(list, k, row);
    }
    PyMem_Free(times);
    return list;
}

PyDoc_STRVAR(memory_doc, "memory($self, /)\n--\n\nBytes by use. gradients, derived, saved and workspace lie in the arena, not all at the same time;\n"
                         "alive: what lives there at once at most. total = arena + weights + slots.");

static PyObject *plan_memory(PyObject *o, PyObject *unused) {
    (void)unused;
    gap_plan_memory m = gap_plan_memory_of(((gap_plan_object *)o)->plan);
    return Py_BuildValue("{s:n, s:n, s:n, s:n, s:n, s:n, s:n, s:n, s:n}", "arena", (Py_ssize_t)m.arena, "weights", (Py_ssize_t)m.weights,
                         "gradients", (Py_ssize_t)m.gradients, "slots", (Py_ssize_t)m.slots, "derived", (Py_ssize_t)m.derived, "saved",
                         (Py_ssize_t)m.saved, "workspace", (Py_ssize_t)m.workspace, "alive", (Py_ssize_t)m.alive, "total", (Py_ssize_t)m.total);
}

static PyObject *plan_kernel_set(PyObject *o, void *unused) {
    (void)unused;
    return PyUnicode_FromString(gap_kernel_set_name(((gap_plan_object *)o)->kernels->id));
}

static PyObject *plan_batch(PyObject *o, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(((gap_plan_object *)o)->capacity);
}

static PyMethodDef plan_methods[] = {
    {"forward", plan_forward, METH_O, forward_doc},
    {"evaluate", (PyCFunction)(void (*)(void))plan_evaluate, METH_VARARGS | METH_KEYWORDS, evaluate_doc},
    {"step", (PyCFunction)(void (*)(void))plan_step, METH_VARARGS | METH_KEYWORDS, step_doc},
    {"gradients", plan_gradients, METH_NOARGS, gradients_doc},
    {"describe", plan_describe, METH_NOARGS, describe_doc},
    {"profile", plan_profile, METH_NOARGS, profile_doc},
    {"memory", plan_memory, METH_NOARGS, memory_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef plan_getset[] = {
    {"kernel_set", plan_kernel_set, NULL, "Name of the kernel set.", NULL},
    {"batch", plan_batch, NULL, "Largest batch.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot plan_slots[] = {
    {Py_tp_new, plan_new},
    {Py_tp_dealloc, plan_dealloc},
    {Py_tp_traverse, plan_traverse},
    {Py_tp_clear, plan_clear},
    {Py_tp_methods, plan_methods},
    {Py_tp_getset, plan_getset},
    {Py_tp_doc, "Plan(graph, store, *, batch=0, training=False, precision='fast', kernels=None, mean=None, std=None, "
                "input_dtype='uint8', loss=None, optimizer=None, recompute=None, measure=False)\n--\n\nA graph compiled for a batch capacity. One call at a time."},
    {0, NULL},
};

PyType_Spec gap_bind_plan_spec = {
    .name = "gapless._core.Plan", .basicsize = sizeof(gap_plan_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, .slots = plan_slots,
};

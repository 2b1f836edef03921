/* random.c — draws and initial values as functions of their coordinates. */
#include "bind/bind.h"

#include <string.h>

#include "core/memory.h"

PyObject *gap_bind_philox(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long seed;
    unsigned int stream, epoch, sample, op;
    Py_ssize_t n;
    if (!PyArg_ParseTuple(args, "KIIIIn:philox", &seed, &stream, &epoch, &sample, &op, &n)) return NULL;
    npy_intp dim = n;
    PyObject *out = n < 0 ? PyErr_Format(PyExc_ValueError, "philox: n must be >= 0, got %zd", n) : PyArray_SimpleNew(1, &dim, NPY_UINT32);
    if (out == NULL) return NULL;
    uint32_t *word = PyArray_DATA((PyArrayObject *)out);
    gap_draws draws;
    gap_rng place = {.seed = seed, .stream = stream, .epoch = epoch, .sample = sample, .op = op};
    Py_BEGIN_ALLOW_THREADS
    gap_draws_begin(&draws, &place);
    for (Py_ssize_t k = 0; k < n; k++) word[k] = gap_draws_u32(&draws);
    Py_END_ALLOW_THREADS
    return out;
}

PyObject *gap_bind_permutation(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long seed;
    unsigned int epoch;
    Py_ssize_t n;
    if (!PyArg_ParseTuple(args, "nKI:permutation", &n, &seed, &epoch)) return NULL;
    if (n < 0 || n > (Py_ssize_t)1 << 32) return PyErr_Format(PyExc_ValueError, "permutation: n must be in [0, 2^32], got %zd", n);
    npy_intp dim = n;
    PyObject *out = PyArray_SimpleNew(1, &dim, NPY_INT64);
    if (out == NULL) return NULL;
    int64_t *p = PyArray_DATA((PyArrayObject *)out);
    gap_draws draws;
    gap_rng place = {.seed = seed, .stream = GAP_STREAM_SHUFFLE, .epoch = epoch};
    Py_BEGIN_ALLOW_THREADS
    gap_draws_begin(&draws, &place);
    for (int64_t k = 0; k < n; k++) p[k] = k;
    for (int64_t k = (int64_t)n - 1; k > 0; k--) { /* Fisher-Yates from the end, Durstenfeld's form */
        int64_t j = gap_draws_below(&draws, k + 1), keep = p[k];
        p[k] = p[j];
        p[j] = keep;
    }
    Py_END_ALLOW_THREADS
    return out;
}

/* ---- init_fill: a store of one made-up layer, so that the rule for initial values has one home ---- */

enum { FILL_KIND, FILL_NDIM, FILL_DIM0, FILL_ARG = FILL_DIM0 + GAP_MAX_DIM, FILL_COUNT };

static gap_status fill_weights(const gap_value *cfg, gap_weight_decl *out, int *n) {
    gap_weight_decl d = {.suffix = "fill", .kind = GAP_WEIGHT_PARAM, .ndim = (int)cfg[FILL_NDIM].i};
    for (int k = 0; k < d.ndim; k++) d.dim[k] = cfg[FILL_DIM0 + k].i;
    d.init = (gap_init_kind)cfg[FILL_KIND].i;
    d.init_arg = cfg[FILL_ARG].f[0];
    out[0] = d;
    *n = 1;
    return GAP_OK;
}

static gap_status fill(gap_store **out, const gap_value *cfg, const char *name, uint64_t seed) {
    static const gap_layer_def def = {.name = "Fill", .doc = "", .weights = fill_weights};
    gap_status st = GAP_OK;
    gap_store *s = NULL;
    GAP_TRY(gap_store_new(&s));
    GAP_TRY(gap_store_add(s, "init", &def, cfg));
    gap_free(s->entry[0].name); /* draws follow the entry's whole name */
    s->entry[0].name = NULL;
    GAP_TRY(gap_strdup(&s->entry[0].name, name));
    GAP_TRY(gap_store_seal(s));
    GAP_TRY(gap_store_init(s, seed));
    *out = s, s = NULL;
done:
    gap_store_free(s);
    return st;
}

int gap_bind_init_kind(const char *text, gap_init_kind *out) {
    static const char *const kinds[] = {"zero", "one", "uniform", "normal"};
    for (int k = 0; k < GAP_COUNTOF(kinds); k++) {
        if (strcmp(text, kinds[k]) != 0) continue;
        *out = (gap_init_kind)k;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "init: kind must be one of 'zero', 'one', 'uniform', 'normal', got '%s'", text);
    return -1;
}

PyObject *gap_bind_init_fill(PyObject *module, PyObject *args, PyObject *kwargs) {
    (void)module;
    static char *keys[] = {"kind", "shape", "arg", "seed", "name", NULL};
    const char *kind_text, *name;
    PyObject *shape, *out = NULL;
    double arg;
    unsigned long long seed;
    gap_init_kind kind;
    int64_t dim[GAP_MAX_DIM];
    int ndim;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sOdKs:init_fill", keys, &kind_text, &shape, &arg, &seed, &name)) return NULL;
    if (gap_bind_init_kind(kind_text, &kind) < 0 || gap_bind_ints("init_fill", "shape", shape, dim, GAP_MAX_DIM, &ndim) < 0) return NULL;
    gap_value cfg[FILL_COUNT];
    memset(cfg, 0, sizeof cfg);
    cfg[FILL_KIND].i = kind, cfg[FILL_NDIM].i = ndim, cfg[FILL_ARG].f[0] = arg;
    npy_intp dims[GAP_MAX_DIM];
    for (int k = 0; k < ndim; k++) {
        if (dim[k] < 1) return PyErr_Format(PyExc_ValueError, "init_fill: sizes must be >= 1, got %lld", (long long)dim[k]);
        cfg[FILL_DIM0 + k].i = dim[k], dims[k] = (npy_intp)dim[k];
    }
    gap_store *s = NULL;
    gap_bind_call call;
    gap_bind_begin(&call);
    gap_status st = fill(&s, cfg, name, seed);
    if (gap_bind_end(&call, st) == 0) out = PyArray_SimpleNew(ndim, dims, NPY_FLOAT32);
    if (out != NULL)
        memcpy(PyArray_DATA((PyArrayObject *)out), gap_store_data(s, GAP_PLANE_MASTER, 0), s->entry[0].count * sizeof(float));
    gap_store_free(s);
    return out;
}

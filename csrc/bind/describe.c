/* describe.c — the tables and the build, as Python sees them. */
#include "bind/bind.h"

#include <stdlib.h>
#include <string.h>

#include "augment/augment.h"

#ifndef GAPLESS_VERSION
#define GAPLESS_VERSION "0+unknown"
#endif
#if defined(__has_include)
#if __has_include("gen/build_flags.h")
#include "gen/build_flags.h" /* written by setup.py */
#endif
#endif
#if defined(__GNUC__) && !defined(__clang__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER __VERSION__ /* clang says its name itself */
#endif
#ifndef GAPLESS_FLAGS
#define GAPLESS_FLAGS ""
#endif

/* What the four families have in common; `extra` holds what only one has, "key:value" pairs for Py_BuildValue's result. */
typedef struct {
    const char *name, *doc;
    const gap_param *params;
    int n_params;
} table_row;

/* Puts `value` (stolen, may be NULL) under key. */
static int put(PyObject *dict, const char *key, PyObject *value) {
    int failed = value == NULL || PyDict_SetItemString(dict, key, value) < 0;
    Py_XDECREF(value);
    return failed ? -1 : 0;
}

static PyObject *row_dict(const table_row *row) {
    PyObject *d = PyDict_New();
    if (d == NULL) return NULL;
    if (put(d, "name", PyUnicode_FromString(row->name)) < 0 ||
        put(d, "doc", PyUnicode_FromString(row->doc != NULL ? row->doc : "")) < 0 ||
        put(d, "params", gap_bind_params_list(row->params, row->n_params)) < 0)
        Py_CLEAR(d);
    return d;
}

static PyObject *layer_dict(int k) {
    const gap_layer_def *def = gap_layer_table[k];
    PyObject *d = row_dict(&(table_row){def->name, def->doc, def->params, def->n_params});
    if (d != NULL && (put(d, "min_in", PyLong_FromLong(def->min_in)) < 0 || put(d, "max_in", PyLong_FromLong(def->max_in)) < 0 ||
                      put(d, "weights", PyBool_FromLong(def->weights != NULL)) < 0))
        Py_CLEAR(d);
    return d;
}

static PyObject *loss_dict(int k) {
    const gap_loss_def *def = gap_loss_table[k];
    return row_dict(&(table_row){def->name, def->doc, def->params, def->n_params});
}

static PyObject *optimizer_dict(int k) {
    const gap_optimizer_def *def = gap_optimizer_table[k];
    PyObject *d = row_dict(&(table_row){def->name, def->doc, def->params, def->n_params});
    PyObject *slots = PyTuple_New(def->n_slots);
    for (int j = 0; slots != NULL && j < def->n_slots; j++) {
        PyObject *s = PyUnicode_FromString(def->slot_names[j]);
        if (s == NULL) Py_CLEAR(slots);
        else PyTuple_SET_ITEM(slots, j, s);
    }
    if (d == NULL) {
        Py_XDECREF(slots);
        return NULL;
    }
    if (put(d, "slots", slots) < 0) Py_CLEAR(d);
    return d;
}

static PyObject *augment_dict(int k) {
    const gap_augment_def *def = gap_augment_table[k];
    PyObject *d = row_dict(&(table_row){def->name, def->doc, def->params, def->n_params});
    if (d != NULL && (put(d, "random", PyBool_FromLong(def->random)) < 0 || put(d, "last", PyBool_FromLong(def->last)) < 0))
        Py_CLEAR(d);
    return d;
}

static PyObject *family_list(int n, PyObject *(*row)(int)) {
    PyObject *list = PyList_New(n);
    for (int k = 0; list != NULL && k < n; k++) {
        PyObject *d = row(k);
        if (d == NULL) Py_CLEAR(list);
        else PyList_SET_ITEM(list, k, d);
    }
    return list;
}

PyObject *gap_bind_describe(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    PyObject *d = PyDict_New();
    if (d == NULL) return NULL;
    if (put(d, "layers", family_list(gap_layer_count, layer_dict)) < 0 ||
        put(d, "losses", family_list(gap_loss_count, loss_dict)) < 0 ||
        put(d, "optimizers", family_list(gap_optimizer_count, optimizer_dict)) < 0 ||
        put(d, "augments", family_list(gap_augment_count, augment_dict)) < 0)
        Py_CLEAR(d);
    return d;
}

/* ---- show_config ---- */

static PyObject *flag_tuple(unsigned flags) {
    PyObject *list = PyList_New(0);
    static const struct { unsigned bit; const char *name; } names[] = {
        {GAP_CPU_AVX2, "avx2"}, {GAP_CPU_AVX512, "avx512"}, {GAP_CPU_NEON, "neon"}};
    for (int k = 0; list != NULL && k < GAP_COUNTOF(names); k++) {
        if ((flags & names[k].bit) == 0) continue;
        PyObject *s = PyUnicode_FromString(names[k].name);
        if (s == NULL || PyList_Append(list, s) < 0) Py_CLEAR(list);
        Py_XDECREF(s);
    }
    PyObject *t = list != NULL ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return t;
}

static PyObject *kernel_set_tuple(void) {
    PyObject *list = PyList_New(0);
    for (int id = 0; list != NULL && id < GAP_SET_COUNT; id++) {
        if (!gap_kernels_available((gap_kernel_set_id)id)) continue;
        PyObject *s = PyUnicode_FromString(gap_kernel_set_name((gap_kernel_set_id)id));
        if (s == NULL || PyList_Append(list, s) < 0) Py_CLEAR(list);
        Py_XDECREF(s);
    }
    PyObject *t = list != NULL ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return t;
}

/* The set that a plan takes by itself; the error of a misspelt GAPLESS_KERNELS is raised here too. */
static PyObject *default_kernel_set(void) {
    const gap_kernels *k = NULL;
    gap_status st = gap_kernels_find(&k, NULL);
    if (st == GAP_OK) return PyUnicode_FromString(gap_kernel_set_name(k->id));
    gap_bind_raise(st);
    return NULL;
}

/* The core that OpenBLAS chose on this machine, or None without it. */
static PyObject *blas_name(void) {
    const gap_kernels *k = NULL;
    if (!gap_kernels_available(GAP_SET_BLAS) || gap_kernels_find(&k, "blas") != GAP_OK) Py_RETURN_NONE;
    return PyUnicode_FromString(k->blas->corename());
}

PyObject *gap_bind_show_config(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    PyObject *d = PyDict_New();
    if (d == NULL) return NULL;
    if (put(d, "version", PyUnicode_FromString(GAPLESS_VERSION)) < 0 || put(d, "compiler", PyUnicode_FromString(COMPILER)) < 0 ||
        put(d, "flags", PyUnicode_FromString(GAPLESS_FLAGS)) < 0 || put(d, "cpu_flags", flag_tuple(gap_cpu_flags())) < 0 ||
        put(d, "kernel_sets", kernel_set_tuple()) < 0 || put(d, "kernel_set", default_kernel_set()) < 0 ||
        put(d, "blas", blas_name()) < 0 || put(d, "threads", PyLong_FromLong(gap_threads_get())) < 0)
        Py_CLEAR(d);
    return d;
}

/* ---- check_config(family, name, config): defaults filled in, ranges checked ---- */

static bool find_row(const char *family, const char *name, table_row *out) {
    const gap_layer_def *layer;
    const gap_loss_def *loss;
    const gap_optimizer_def *optimizer;
    const gap_augment_def *augment;
    if (strcmp(family, "layers") == 0 && (layer = gap_layer_find(name)) != NULL)
        *out = (table_row){layer->name, layer->doc, layer->params, layer->n_params};
    else if (strcmp(family, "losses") == 0 && (loss = gap_loss_find(name)) != NULL)
        *out = (table_row){loss->name, loss->doc, loss->params, loss->n_params};
    else if (strcmp(family, "optimizers") == 0 && (optimizer = gap_optimizer_find(name)) != NULL)
        *out = (table_row){optimizer->name, optimizer->doc, optimizer->params, optimizer->n_params};
    else if (strcmp(family, "augments") == 0 && (augment = gap_augment_find(name)) != NULL)
        *out = (table_row){augment->name, augment->doc, augment->params, augment->n_params};
    else
        return false;
    return true;
}

/* The optimizer's own check, on its values as a step gets them. */
static gap_status check_optimizer(const gap_optimizer_def *def, const gap_value *v) {
    double hyper[GAP_PARAM_MAX];
    for (int k = 0; k < def->n_params; k++) hyper[k] = def->params[k].kind == GAP_FLOAT ? v[k].f[0] : (double)v[k].i;
    return def->check(hyper);
}

/* What ranges cannot say (groups divide channels) is said by the layer's own declaration of its weights, or by the row's check. */
static int check_rest(const char *family, const char *name, const gap_value *v) {
    gap_weight_decl decl[GAP_LAYER_MAX_WEIGHTS];
    int n = 0;
    const gap_layer_def *def = strcmp(family, "layers") == 0 ? gap_layer_find(name) : NULL;
    gap_status st = def != NULL && def->weights != NULL ? def->weights(v, decl, &n) : GAP_OK;
    const gap_augment_def *augment = strcmp(family, "augments") == 0 ? gap_augment_find(name) : NULL;
    if (augment != NULL && augment->check != NULL) st = augment->check(v);
    const gap_optimizer_def *optimizer = strcmp(family, "optimizers") == 0 ? gap_optimizer_find(name) : NULL;
    if (optimizer != NULL && optimizer->check != NULL) st = check_optimizer(optimizer, v);
    if (st != GAP_OK) gap_bind_raise(st);
    return st == GAP_OK ? 0 : -1;
}

PyObject *gap_bind_check_config(PyObject *module, PyObject *args) {
    (void)module;
    const char *family, *name;
    PyObject *config, *result = NULL;
    table_row row;
    gap_value v[GAP_PARAM_MAX];
    if (!PyArg_ParseTuple(args, "ssO:check_config", &family, &name, &config)) return NULL;
    if (!find_row(family, name, &row)) return PyErr_Format(PyExc_ValueError, "%s: there is no '%s'", family, name);
    PyObject *keep = PyList_New(0);
    if (keep != NULL && gap_bind_config_parse_keep(row.name, row.params, row.n_params, config, keep, v) == 0 &&
        check_rest(family, name, v) == 0)
        result = gap_bind_config_dict(row.params, row.n_params, v);
    Py_XDECREF(keep);
    return result;
}

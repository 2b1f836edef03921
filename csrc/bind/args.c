/* args.c — configs by table row: the one parser for layers, losses, optimizers and augmentations alike. */
#include "bind/bind.h"

#include <string.h>

#define WORD_MAX 64

/* ---- nearest name ---- */

/* Levenshtein distance of two words, both cut at WORD_MAX - 1 letters. */
static int distance(const char *a, const char *b) {
    int row[WORD_MAX];
    int na = (int)strnlen(a, WORD_MAX - 1), nb = (int)strnlen(b, WORD_MAX - 1);
    for (int j = 0; j <= nb; j++) row[j] = j;
    for (int i = 1; i <= na; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[nb];
}

const char *gap_bind_nearest(const char *word, const char *const *names, int n) {
    const char *best = NULL;
    int best_distance = (int)strnlen(word, WORD_MAX - 1) / 2 + 1; /* half of the letters may be wrong */
    for (int k = 0; k < n; k++) {
        int d = distance(word, names[k]);
        if (strstr(names[k], word) == names[k] && strlen(word) >= 3) d = 0;
        if (d < best_distance) best_distance = d, best = names[k];
    }
    return best;
}

static int unknown_parameter(const char *owner, const char *key, const gap_param *params, int n_params) {
    const char *names[GAP_PARAM_MAX] = {NULL};
    for (int k = 0; k < n_params; k++) names[k] = params[k].name;
    const char *near = gap_bind_nearest(key, names, n_params);
    if (near != NULL) PyErr_Format(PyExc_TypeError, "%s: unknown parameter '%s'; did you mean '%s'?", owner, key, near);
    else if (n_params == 0) PyErr_Format(PyExc_TypeError, "%s: unknown parameter '%s'; it takes none", owner, key);
    else PyErr_Format(PyExc_TypeError, "%s: unknown parameter '%s'; the first that it knows is '%s'", owner, key, params[0].name);
    return -1;
}

/* ---- Python -> gap_value ---- */

static int wrong_type(const char *owner, const gap_param *p, const char *expected, PyObject *o) {
    PyErr_Format(PyExc_TypeError, "%s: %s must be %s, got %.200R (%s)", owner, p->name, expected, o, Py_TYPE(o)->tp_name);
    return -1;
}

/* 1: read; 0: not a whole number; -1: exception. True and False are not numbers here. */
static int read_int(PyObject *o, int64_t *out) {
    if (PyBool_Check(o) || !PyIndex_Check(o)) return 0;
    PyObject *index = PyNumber_Index(o);
    if (index == NULL) return -1;
    long long v = PyLong_AsLongLong(index);
    Py_DECREF(index);
    if (v == -1 && PyErr_Occurred()) return -1;
    *out = (int64_t)v;
    return 1;
}

/* 1: read; 0: not a number; -1: exception. */
static int read_float(PyObject *o, double *out) {
    if (PyBool_Check(o) || PyUnicode_Check(o) || PyBytes_Check(o) || !PyNumber_Check(o)) return 0;
    double v = PyFloat_AsDouble(o);
    if (v == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError)) return -1;
        PyErr_Clear();
        return 0;
    }
    *out = v;
    return 1;
}

static int parse_pair(const char *owner, const gap_param *p, PyObject *o, gap_value *v) {
    const char *expected = "an int or a pair of ints";
    int got = read_int(o, &v->i);
    if (got != 0) {
        v->i2 = v->i;
        return got < 0 ? -1 : 0;
    }
    if (PyUnicode_Check(o) || !PySequence_Check(o)) return wrong_type(owner, p, expected, o);
    PyObject *seq = PySequence_Fast(o, expected);
    if (seq == NULL) return -1;
    bool two = PySequence_Fast_GET_SIZE(seq) == 2;
    int a = two ? read_int(PySequence_Fast_GET_ITEM(seq, 0), &v->i) : 0;
    int b = a == 1 ? read_int(PySequence_Fast_GET_ITEM(seq, 1), &v->i2) : 0;
    Py_DECREF(seq);
    if (PyErr_Occurred()) return -1;
    return a == 1 && b == 1 ? 0 : wrong_type(owner, p, expected, o);
}

static int parse_enum(const char *owner, const gap_param *p, PyObject *o, gap_value *v) {
    if (!PyUnicode_Check(o)) return wrong_type(owner, p, "a str", o);
    const char *text = PyUnicode_AsUTF8(o);
    if (text == NULL) return -1;
    int n = 0;
    for (; p->choices[n] != NULL; n++) {
        if (strcmp(p->choices[n], text) != 0) continue;
        v->i = n;
        return 0;
    }
    PyObject *all = PyUnicode_FromString("");
    for (int k = 0; all != NULL && k < n; k++) {
        PyObject *next = PyUnicode_FromFormat(k ? "%U, '%s'" : "%U'%s'", all, p->choices[k]);
        Py_SETREF(all, next);
    }
    if (all == NULL) return -1;
    const char *near = gap_bind_nearest(text, p->choices, n);
    if (near != NULL)
        PyErr_Format(PyExc_ValueError, "%s: %s must be one of %U, got '%s'; did you mean '%s'?", owner, p->name, all, text, near);
    else PyErr_Format(PyExc_ValueError, "%s: %s must be one of %U, got '%s'", owner, p->name, all, text);
    Py_DECREF(all);
    return -1;
}

static int read_number(const gap_param *p, PyObject *o, double *out) {
    if (p->kind == GAP_FLOATS) return read_float(o, out);
    int64_t whole;
    int got = read_int(o, &whole);
    if (got == 1) *out = (double)whole;
    return got;
}

/* A list that is longer than a value can hold lies in a bytes object that `keep` owns. */
static double *long_list(const char *owner, const gap_param *p, Py_ssize_t n, PyObject *keep, gap_value *v) {
    Py_ssize_t most = p->max_n > 0 ? p->max_n : GAP_FLOATS_MAX;
    if (n > most || keep == NULL) {
        PyErr_Format(PyExc_ValueError, "%s: %s must hold at most %zd numbers, got %zd", owner, p->name,
                     keep == NULL ? (Py_ssize_t)GAP_FLOATS_MAX : most, n);
        return NULL;
    }
    PyObject *memory = PyBytes_FromStringAndSize(NULL, n * (Py_ssize_t)sizeof(double));
    if (memory == NULL || PyList_Append(keep, memory) < 0) {
        Py_XDECREF(memory);
        return NULL;
    }
    double *list = (double *)(void *)PyBytes_AS_STRING(memory);
    Py_DECREF(memory); /* the list has it */
    v->list = list;
    return list;
}

static int parse_numbers(const char *owner, const gap_param *p, PyObject *o, PyObject *keep, gap_value *v) {
    const char *expected = p->kind == GAP_FLOATS ? "a number or a sequence of numbers" : "an int or a sequence of ints";
    int got = PySequence_Check(o) ? 0 : read_number(p, o, &v->f[0]);
    v->n = 1;
    if (got != 0) return got < 0 ? -1 : 0;
    if (PyUnicode_Check(o) || !PySequence_Check(o)) return wrong_type(owner, p, expected, o);
    PyObject *seq = PySequence_Fast(o, expected);
    if (seq == NULL) return -1;
    Py_ssize_t n = PySequence_Fast_GET_SIZE(seq);
    double *to = n <= GAP_FLOATS_MAX ? v->f : long_list(owner, p, n, keep, v);
    got = to != NULL ? 1 : -1;
    v->n = (int)n;
    for (Py_ssize_t k = 0; k < n && got >= 0; k++) {
        got = read_number(p, PySequence_Fast_GET_ITEM(seq, k), &to[k]);
        if (got == 0) got = wrong_type(owner, p, expected, o);
    }
    Py_DECREF(seq);
    return got < 0 ? -1 : 0;
}

static int parse_value(const char *owner, const gap_param *p, PyObject *o, PyObject *keep, gap_value *v) {
    memset(v, 0, sizeof *v);
    if (o == Py_None) {
        if (!p->optional) return wrong_type(owner, p, "given", o);
        v->none = true;
        return 0;
    }
    int got = 0;
    const char *expected = "";
    switch (p->kind) {
    case GAP_INT:
        expected = "an int";
        got = read_int(o, &v->i);
        break;
    case GAP_FLOAT:
        expected = "a number";
        got = read_float(o, &v->f[0]);
        v->n = 1;
        break;
    case GAP_BOOL:
        expected = "True or False";
        got = PyBool_Check(o) || PyArray_IsScalar(o, Bool);
        if (got) v->i = PyObject_IsTrue(o);
        break;
    case GAP_PAIR: return parse_pair(owner, p, o, v);
    case GAP_ENUM: return parse_enum(owner, p, o, v);
    case GAP_FLOATS:
    case GAP_INTS: return parse_numbers(owner, p, o, keep, v);
    }
    if (got == 0) return wrong_type(owner, p, expected, o);
    return got < 0 ? -1 : 0;
}

int gap_bind_config_parse(const char *owner, const gap_param *params, int n_params, PyObject *config, gap_value *out) {
    return gap_bind_config_parse_keep(owner, params, n_params, config, NULL, out);
}

int gap_bind_config_parse_keep(const char *owner, const gap_param *params, int n_params, PyObject *config, PyObject *keep,
                               gap_value *out) {
    gap_config_defaults(params, n_params, out);
    if (config != Py_None && !PyDict_Check(config)) {
        PyErr_Format(PyExc_TypeError, "%s: config must be a dict, got %s", owner, Py_TYPE(config)->tp_name);
        return -1;
    }
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (config != Py_None && PyDict_Next(config, &at, &key, &value)) {
        const char *name = PyUnicode_Check(key) ? PyUnicode_AsUTF8(key) : NULL;
        if (name == NULL) {
            if (!PyErr_Occurred()) PyErr_Format(PyExc_TypeError, "%s: parameter names must be str, got %R", owner, key);
            return -1;
        }
        int k = 0;
        while (k < n_params && strcmp(params[k].name, name) != 0) k++;
        if (k == n_params) return unknown_parameter(owner, name, params, n_params);
        if (parse_value(owner, &params[k], value, keep, &out[k]) < 0) return -1;
    }
    gap_status st = gap_config_check(owner, params, n_params, out);
    if (st != GAP_OK) gap_bind_raise(st);
    return st == GAP_OK ? 0 : -1;
}

/* ---- gap_value -> Python ---- */

static PyObject *numbers_tuple(const gap_param *p, const double *f, int n) {
    PyObject *t = PyTuple_New(n);
    for (int k = 0; t != NULL && k < n; k++) {
        PyObject *x = p->kind == GAP_INTS ? PyLong_FromLongLong((long long)f[k]) : PyFloat_FromDouble(f[k]);
        if (x == NULL) Py_CLEAR(t);
        else PyTuple_SET_ITEM(t, k, x);
    }
    return t;
}

PyObject *gap_bind_value_object(const gap_param *p, const gap_value *v) {
    if (v->none) Py_RETURN_NONE;
    switch (p->kind) {
    case GAP_INT: return PyLong_FromLongLong(v->i);
    case GAP_FLOAT: return PyFloat_FromDouble(v->f[0]);
    case GAP_BOOL: return PyBool_FromLong((long)v->i);
    case GAP_PAIR: return v->i == v->i2 ? PyLong_FromLongLong(v->i) : Py_BuildValue("(LL)", (long long)v->i, (long long)v->i2);
    case GAP_ENUM: return PyUnicode_FromString(p->choices[v->i]);
    case GAP_FLOATS: /* one number is given back as one number, so that 256 does not become (256,) in a recipe */
        if (v->n == 1) return PyFloat_FromDouble(v->f[0]);
        return numbers_tuple(p, gap_value_floats(v), v->n);
    case GAP_INTS:
        if (v->n == 1) return PyLong_FromLongLong((long long)v->f[0]);
        return numbers_tuple(p, gap_value_floats(v), v->n);
    }
    PyErr_Format(PyExc_SystemError, "%s: unknown kind of parameter", p->name);
    return NULL;
}

/* Puts `value` (stolen, may be NULL) under key; -1 with an exception set. */
static int put(PyObject *dict, const char *key, PyObject *value) {
    int failed = value == NULL || PyDict_SetItemString(dict, key, value) < 0;
    Py_XDECREF(value);
    return failed ? -1 : 0;
}

PyObject *gap_bind_config_dict(const gap_param *params, int n_params, const gap_value *v) {
    PyObject *d = PyDict_New();
    for (int k = 0; d != NULL && k < n_params; k++)
        if (put(d, params[k].name, gap_bind_value_object(&params[k], &v[k])) < 0) Py_CLEAR(d);
    return d;
}

static const char *kind_name(gap_param_kind k) {
    static const char *const names[] = {"int", "float", "bool", "pair", "enum", "floats", "ints"};
    return names[k];
}

static PyObject *limit_object(const gap_param *p, double x) {
    if ((p->lo == 0 && p->hi == 0) || !Py_IS_FINITE(x)) Py_RETURN_NONE;
    return PyFloat_FromDouble(x);
}

static PyObject *choices_object(const gap_param *p) {
    int n = 0;
    while (p->kind == GAP_ENUM && p->choices[n] != NULL) n++;
    PyObject *t = PyTuple_New(n);
    for (int k = 0; t != NULL && k < n; k++) {
        PyObject *s = PyUnicode_FromString(p->choices[k]);
        if (s == NULL) Py_CLEAR(t);
        else PyTuple_SET_ITEM(t, k, s);
    }
    return t;
}

static PyObject *param_dict(const gap_param *p) {
    gap_value dflt;
    gap_config_defaults(p, 1, &dflt);
    PyObject *d = PyDict_New();
    if (d == NULL) return NULL;
    if (put(d, "name", PyUnicode_FromString(p->name)) < 0 || put(d, "kind", PyUnicode_FromString(kind_name(p->kind))) < 0 ||
        put(d, "required", PyBool_FromLong(p->required)) < 0 || put(d, "optional", PyBool_FromLong(p->optional)) < 0 ||
        put(d, "default", gap_bind_value_object(p, &dflt)) < 0 || put(d, "lo", limit_object(p, p->lo)) < 0 ||
        put(d, "hi", limit_object(p, p->hi)) < 0 || put(d, "lo_open", PyBool_FromLong(p->lo_open)) < 0 ||
        put(d, "hi_open", PyBool_FromLong(p->hi_open)) < 0 || put(d, "choices", choices_object(p)) < 0 ||
        put(d, "doc", PyUnicode_FromString(p->doc != NULL ? p->doc : "")) < 0)
        Py_CLEAR(d);
    return d;
}

PyObject *gap_bind_params_list(const gap_param *params, int n_params) {
    PyObject *list = PyList_New(n_params);
    for (int k = 0; list != NULL && k < n_params; k++) {
        PyObject *d = param_dict(&params[k]);
        if (d == NULL) Py_CLEAR(list);
        else PyList_SET_ITEM(list, k, d);
    }
    return list;
}

/* ---- small operands ---- */

int gap_bind_text(const char *owner, const char *name, PyObject *o, const char **text) {
    if (!PyUnicode_Check(o)) {
        PyErr_Format(PyExc_TypeError, "%s: %s must be a str, got %s", owner, name, Py_TYPE(o)->tp_name);
        return -1;
    }
    *text = PyUnicode_AsUTF8(o);
    return *text == NULL ? -1 : 0;
}

int gap_bind_ints(const char *owner, const char *name, PyObject *o, int64_t *out, int max, int *n) {
    PyObject *seq = PyUnicode_Check(o) ? NULL : PySequence_Fast(o, "");
    if (seq == NULL) {
        PyErr_Format(PyExc_TypeError, "%s: %s must be a sequence of ints, got %s", owner, name, Py_TYPE(o)->tp_name);
        return -1;
    }
    int got = 1;
    Py_ssize_t size = PySequence_Fast_GET_SIZE(seq);
    if (size > max) {
        PyErr_Format(PyExc_ValueError, "%s: %s must hold at most %d numbers, got %zd", owner, name, max, size);
        got = -1;
    }
    for (Py_ssize_t k = 0; k < size && got == 1; k++) {
        got = read_int(PySequence_Fast_GET_ITEM(seq, k), &out[k]);
        if (got == 0) PyErr_Format(PyExc_TypeError, "%s: %s must be a sequence of ints, got %R", owner, name, o);
    }
    *n = (int)size;
    Py_DECREF(seq);
    return got == 1 ? 0 : -1;
}

PyObject *gap_bind_int_tuple(const int64_t *v, int n) {
    PyObject *t = PyTuple_New(n);
    for (int k = 0; t != NULL && k < n; k++) {
        PyObject *x = PyLong_FromLongLong(v[k]);
        if (x == NULL) Py_CLEAR(t);
        else PyTuple_SET_ITEM(t, k, x);
    }
    return t;
}

#include "bind/bind.h"

#include <string.h>

PyArrayObject *gap_bind_array(PyObject *o, int typenum, const char *what) {
    PyArrayObject *a = (PyArrayObject *)PyArray_FROM_O(o);
    if (a == NULL) return NULL;
    if (PyArray_TYPE(a) != typenum) {
        PyArray_Descr *want = PyArray_DescrFromType(typenum);
        PyErr_Format(PyExc_TypeError, "%s: dtype must be %S, got %S", what, (PyObject *)want, (PyObject *)PyArray_DESCR(a));
        Py_XDECREF(want);
        Py_DECREF(a);
        return NULL;
    }
    PyObject *c = PyArray_FROM_OF((PyObject *)a, NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED | NPY_ARRAY_NOTSWAPPED);
    Py_DECREF(a);
    return (PyArrayObject *)c;
}

/* "(n <= 32, 3, 8, 8)" or, for an array, "(4, 3, 8, 8)" */
static PyObject *shape_text(const int64_t *dim, int ndim, int64_t capacity) {
    PyObject *t = capacity < 0 ? PyUnicode_FromString("(") : PyUnicode_FromFormat("(n <= %lld", (long long)capacity);
    for (int k = 0; t != NULL && k < ndim; k++) {
        PyObject *next = PyUnicode_FromFormat(k == 0 && capacity < 0 ? "%U%lld" : "%U, %lld", t, (long long)dim[k]);
        Py_SETREF(t, next);
    }
    if (t == NULL) return NULL;
    PyObject *whole = PyUnicode_FromFormat("%U)", t);
    Py_DECREF(t);
    return whole;
}

int gap_bind_batch_check(const PyArrayObject *a, const int64_t *dim, int ndim, int64_t capacity, const char *what, int64_t *n) {
    int got_ndim = PyArray_NDIM(a);
    bool fits = got_ndim == ndim + 1;
    for (int k = 0; fits && k < ndim; k++) fits = PyArray_DIM(a, k + 1) == dim[k];
    if (fits && PyArray_DIM(a, 0) >= 1 && PyArray_DIM(a, 0) <= capacity) {
        *n = PyArray_DIM(a, 0);
        return 0;
    }
    int64_t got_dim[NPY_MAXDIMS];
    for (int k = 0; k < got_ndim; k++) got_dim[k] = PyArray_DIM(a, k);
    PyObject *want = shape_text(dim, ndim, capacity), *got = shape_text(got_dim, got_ndim, -1);
    PyObject *text = want != NULL && got != NULL
                         ? PyUnicode_FromFormat("%s: shape must be %U with 1 <= n, got %U", what, want, got) : NULL;
    const char *utf8 = text != NULL ? PyUnicode_AsUTF8(text) : NULL;
    if (utf8 != NULL) gap_bind_raise(gap_fail(GAP_ERR_SHAPE, "%s", utf8));
    Py_XDECREF(want);
    Py_XDECREF(got);
    Py_XDECREF(text);
    return -1;
}

/* ---- targets ---- */

static int fail(gap_status code, const char *text) {
    gap_bind_raise(gap_fail(code, "y: %s", text));
    return -1;
}

/* Offsets 0, step, 2*step, … of n samples. */
static PyObject *regular_offsets(int64_t n, int64_t step) {
    npy_intp dim = (npy_intp)(n + 1);
    PyObject *a = PyArray_SimpleNew(1, &dim, NPY_INT64);
    if (a == NULL) return NULL;
    int64_t *o = PyArray_DATA((PyArrayObject *)a);
    for (int64_t k = 0; k <= n; k++) o[k] = k * step;
    return a;
}

static int parse_classes(PyArrayObject *y, int64_t n, gap_bind_targets *out) {
    if (PyArray_NDIM(y) != 1 || PyArray_DIM(y, 0) != n) return fail(GAP_ERR_SHAPE, "classes must have shape (n), one per sample of x");
    PyArrayObject *wide = (PyArrayObject *)PyArray_FROM_OTF((PyObject *)y, NPY_INT64, NPY_ARRAY_IN_ARRAY | NPY_ARRAY_FORCECAST);
    if (wide == NULL) return -1;
    npy_intp dim = (npy_intp)n;
    out->values = PyArray_SimpleNew(1, &dim, NPY_FLOAT32);
    out->offsets = regular_offsets(n, 1);
    int bad = 0;
    if (out->values != NULL && out->offsets != NULL) {
        const int64_t *from = PyArray_DATA(wide);
        float *to = PyArray_DATA((PyArrayObject *)out->values);
        for (int64_t k = 0; k < n; k++) {
            bad |= from[k] < -((int64_t)1 << 24) || from[k] > (int64_t)1 << 24; /* a float holds every class up to 2^24 */
            to[k] = (float)from[k];
        }
    }
    Py_DECREF(wide);
    if (bad) return fail(GAP_ERR_VALUE, "a class is beyond 2^24");
    return out->values != NULL && out->offsets != NULL ? 0 : -1;
}

static int parse_ragged(PyObject *y, int64_t n, gap_bind_targets *out) {
    out->values = (PyObject *)gap_bind_array(PyTuple_GET_ITEM(y, 0), NPY_FLOAT32, "y values");
    if (out->values == NULL) return -1;
    out->offsets = (PyObject *)gap_bind_array(PyTuple_GET_ITEM(y, 1), NPY_INT64, "y offsets");
    if (out->offsets == NULL) return -1;
    PyArrayObject *offsets = (PyArrayObject *)out->offsets;
    if (PyArray_NDIM(offsets) != 1 || PyArray_DIM(offsets, 0) != n + 1) return fail(GAP_ERR_SHAPE, "offsets must have shape (n + 1)");
    const int64_t *o = PyArray_DATA(offsets);
    for (int64_t k = 0; k < n; k++)
        if (o[k] > o[k + 1]) return fail(GAP_ERR_VALUE, "offsets must not fall");
    if (o[0] != 0 || o[n] != PyArray_SIZE((PyArrayObject *)out->values))
        return fail(GAP_ERR_VALUE, "offsets must begin at 0 and end at the number of values");
    return 0;
}

int gap_bind_targets_parse(PyObject *y, int64_t n, gap_bind_targets *out) {
    memset(out, 0, sizeof *out);
    int got;
    if (PyTuple_Check(y) && PyTuple_GET_SIZE(y) == 2) {
        got = parse_ragged(y, n, out);
    } else {
        PyArrayObject *a = (PyArrayObject *)PyArray_FROM_O(y);
        if (a == NULL) return -1;
        if (PyArray_ISINTEGER(a)) {
            got = parse_classes(a, n, out);
        } else if (PyArray_NDIM(a) == 2 && PyArray_DIM(a, 0) == n) {
            out->values = (PyObject *)gap_bind_array((PyObject *)a, NPY_FLOAT32, "y");
            out->offsets = out->values != NULL ? regular_offsets(n, PyArray_DIM(a, 1)) : NULL;
            got = out->offsets != NULL ? 0 : -1;
        } else {
            got = fail(GAP_ERR_SHAPE, "must be classes (n) of an integer type, soft targets (n, K) float32, or (values, offsets)");
        }
        Py_DECREF(a);
    }
    if (got < 0) {
        gap_bind_targets_clear(out);
        return -1;
    }
    out->targets.n = n;
    out->targets.values = PyArray_DATA((PyArrayObject *)out->values);
    out->targets.offsets = PyArray_DATA((PyArrayObject *)out->offsets);
    return 0;
}

void gap_bind_targets_clear(gap_bind_targets *t) {
    Py_CLEAR(t->values);
    Py_CLEAR(t->offsets);
}

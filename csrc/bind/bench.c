/* bench.c — the machine's limits, measured with a kernel set and the pool's threads. */
#include "bind/bind.h"

#include "ops/peak.h"

static int find_set(const char *name, const gap_kernels **out) {
    gap_status st = gap_kernels_find(out, name);
    if (st != GAP_OK) gap_bind_raise(st);
    return st == GAP_OK ? 0 : -1;
}

PyObject *gap_bind_bench_fma(PyObject *module, PyObject *args) {
    (void)module;
    const char *name = NULL;
    const gap_kernels *kernels = NULL;
    double rate = 0;
    gap_bind_call call;
    if (!PyArg_ParseTuple(args, "|z:bench_fma", &name) || find_set(name, &kernels) < 0) return NULL;
    gap_bind_begin(&call);
    gap_status st = gap_peak_fma(kernels, &rate);
    return gap_bind_end(&call, st) < 0 ? NULL : PyFloat_FromDouble(rate);
}

PyObject *gap_bind_bench_triad(PyObject *module, PyObject *args) {
    (void)module;
    const char *name = NULL;
    const gap_kernels *kernels = NULL;
    Py_ssize_t bytes;
    double rate = 0;
    gap_bind_call call;
    if (!PyArg_ParseTuple(args, "n|z:bench_triad", &bytes, &name) || find_set(name, &kernels) < 0) return NULL;
    if (bytes < 0) return PyErr_Format(PyExc_ValueError, "triad: bytes must be >= 192, got %zd", bytes);
    gap_bind_begin(&call);
    gap_status st = gap_peak_triad(kernels, (size_t)bytes, &rate);
    return gap_bind_end(&call, st) < 0 ? NULL : PyFloat_FromDouble(rate);
}

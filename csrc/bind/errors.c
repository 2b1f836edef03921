#include "bind/bind.h"

/* The module's state from whichever thread asks; the exception classes live in gapless.errors. Looking them up by import
 * costs nothing that matters (an error is on its way) and needs no global. */
static void raise_ours(const char *name, const char *text) {
    PyObject *errors = PyImport_ImportModule("gapless.errors");
    PyObject *cls = errors != NULL ? PyObject_GetAttrString(errors, name) : NULL;
    if (cls != NULL) PyErr_SetString(cls, text);
    Py_XDECREF(cls);
    Py_XDECREF(errors);
}

void gap_bind_raise(gap_status st) {
    if (PyErr_Occurred()) return; /* an interrupt's exception, or one that a callback set, goes first */
    const char *text = gap_error_message();
    switch (st) {
    case GAP_OK: PyErr_SetString(PyExc_SystemError, "gapless: raised without an error"); return;
    case GAP_ERR_VALUE: PyErr_SetString(PyExc_ValueError, text); return;
    case GAP_ERR_TYPE: PyErr_SetString(PyExc_TypeError, text); return;
    case GAP_ERR_SHAPE: raise_ours("ShapeError", text); return;
    case GAP_ERR_NONFINITE: raise_ours("NonFiniteError", text); return;
    case GAP_ERR_MEMORY: PyErr_SetString(PyExc_MemoryError, text); return;
    case GAP_ERR_SYSTEM: PyErr_SetString(PyExc_OSError, text); return;
    case GAP_ERR_INTERRUPTED: PyErr_SetNone(PyExc_KeyboardInterrupt); return;
    case GAP_ERR_INTERNAL: PyErr_SetString(PyExc_RuntimeError, text); return;
    }
    PyErr_SetString(PyExc_RuntimeError, text);
}

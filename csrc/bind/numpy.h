/* numpy.h — the one way in which bind/ includes Python and NumPy (2.x API; the array table is imported by module.c). */
#ifndef GAP_BIND_NUMPY_H
#define GAP_BIND_NUMPY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL gapless_numpy_api
#ifndef GAP_BIND_IMPORT_ARRAY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#endif

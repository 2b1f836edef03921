/* module.c — gapless._core: multi-phase init, per-module state, the module's functions. */
#define GAP_BIND_IMPORT_ARRAY
#include "bind/bind.h"

#include "core/memory.h"

gap_bind_state *gap_bind_state_of_module(PyObject *module) { return PyModule_GetState(module); }

gap_bind_state *gap_bind_state_of(PyTypeObject *type) {
    PyObject *module = PyType_GetModuleByDef(type, &gap_bind_module_def);
    return module != NULL ? PyModule_GetState(module) : NULL;
}

/* ---- threads and test hooks ---- */

PyDoc_STRVAR(set_num_threads_doc, "set_num_threads($module, n, /)\n--\n\nThreads that the core works with, 1 to 256. Changes no result.");

static PyObject *set_num_threads(PyObject *module, PyObject *args) {
    (void)module;
    int n;
    if (!PyArg_ParseTuple(args, "i:set_num_threads", &n)) return NULL;
    gap_bind_call call; /* waits for a running call to end: never with the GIL */
    gap_bind_begin(&call);
    gap_status st = gap_threads_set(n);
    if (gap_bind_end(&call, st) < 0) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(get_num_threads_doc, "get_num_threads($module, /)\n--\n\nThreads that the core works with.");

static PyObject *get_num_threads(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyLong_FromLong(gap_threads_get());
}

PyDoc_STRVAR(memory_counters_doc, "memory_counters($module, /)\n--\n\nBlocks that the core holds, and has allocated since it began.");

static PyObject *memory_counters(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return Py_BuildValue("(LL)", (long long)gap_memory_live(), (long long)gap_memory_count());
}

PyDoc_STRVAR(memory_fail_after_doc, "memory_fail_after($module, k, /)\n--\n\nFor tests: the k-th allocation of the core from now fails once; 0: off.");

static PyObject *memory_fail_after(PyObject *module, PyObject *args) {
    (void)module;
    long long k;
    if (!PyArg_ParseTuple(args, "L:memory_fail_after", &k)) return NULL;
    gap_memory_fail_after(k);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"describe", gap_bind_describe, METH_NOARGS, PyDoc_STR("describe($module, /)\n--\n\nThe tables of layers, losses, optimizers and augmentations.")},
    {"show_config", gap_bind_show_config, METH_NOARGS, PyDoc_STR("show_config($module, /)\n--\n\nWhat this build is and what it found on this machine.")},
    {"check_config", gap_bind_check_config, METH_VARARGS,
     PyDoc_STR("check_config($module, family, name, config, /)\n--\n\nThe whole config with defaults filled in, or an error that names the parameter.")},
    {"set_num_threads", set_num_threads, METH_VARARGS, set_num_threads_doc},
    {"get_num_threads", get_num_threads, METH_NOARGS, get_num_threads_doc},
    {"philox", gap_bind_philox, METH_VARARGS,
     PyDoc_STR("philox($module, seed, stream, epoch, sample, op, n, /)\n--\n\nThe first n 32-bit words drawn at a place.")},
    {"permutation", gap_bind_permutation, METH_VARARGS,
     PyDoc_STR("permutation($module, n, seed, epoch, /)\n--\n\nThe order of n samples in an epoch.")},
    {"init_fill", (PyCFunction)(void (*)(void))gap_bind_init_fill, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("init_fill($module, /, kind, shape, arg, seed, name)\n--\n\nInitial values of a weight of that name.")},
    {"bench_fma", gap_bind_bench_fma, METH_VARARGS,
     PyDoc_STR("bench_fma($module, kernels=None, /)\n--\n\nFp32 operations per second that all threads reach out of registers.")},
    {"bench_triad", gap_bind_bench_triad, METH_VARARGS,
     PyDoc_STR("bench_triad($module, bytes, kernels=None, /)\n--\n\nBytes per second of STREAM's triad over that many bytes, all threads.")},
    {"memory_counters", memory_counters, METH_NOARGS, memory_counters_doc},
    {"memory_fail_after", memory_fail_after, METH_VARARGS, memory_fail_after_doc},
    {NULL, NULL, 0, NULL},
};

/* ---- fork ---- */

/* A fork in one thread waits for a parallel call in another, whose poll waits for the GIL: so the waiting is done here,
 * before the fork and without the GIL. */
static PyObject *before_fork(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    Py_BEGIN_ALLOW_THREADS
    gap_threads_fork_begin();
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *after_fork(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    gap_threads_fork_end();
    Py_RETURN_NONE;
}

static PyMethodDef before_fork_def = {"_before_fork", before_fork, METH_NOARGS, NULL};
static PyMethodDef after_fork_def = {"_after_fork", after_fork, METH_NOARGS, NULL};

static int register_fork(void) {
    int failed = -1;
    PyObject *os = PyImport_ImportModule("os"), *empty = PyTuple_New(0), *kwargs = NULL, *hook = NULL, *done = NULL;
    PyObject *before = PyCFunction_New(&before_fork_def, NULL), *after = PyCFunction_New(&after_fork_def, NULL);
    if (os == NULL || empty == NULL || before == NULL || after == NULL) goto done;
    if (!PyObject_HasAttrString(os, "register_at_fork")) {
        failed = 0; /* a system without fork */
        goto done;
    }
    hook = PyObject_GetAttrString(os, "register_at_fork");
    kwargs = Py_BuildValue("{s:O, s:O, s:O}", "before", before, "after_in_parent", after, "after_in_child", after);
    if (hook != NULL && kwargs != NULL) done = PyObject_Call(hook, empty, kwargs);
    failed = done == NULL ? -1 : 0;
done:
    Py_XDECREF(os);
    Py_XDECREF(empty);
    Py_XDECREF(kwargs);
    Py_XDECREF(hook);
    Py_XDECREF(done);
    Py_XDECREF(before);
    Py_XDECREF(after);
    return failed;
}

/* ---- init ---- */

static PyTypeObject *add_type(PyObject *module, PyType_Spec *spec) {
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, type) < 0) Py_CLEAR(type);
    return type;
}

static int module_exec(PyObject *module) {
    import_array1(-1);
    gap_bind_state *state = PyModule_GetState(module);
    if ((state->graph_type = add_type(module, &gap_bind_graph_spec)) == NULL) return -1;
    if ((state->store_type = add_type(module, &gap_bind_store_spec)) == NULL) return -1;
    if ((state->plan_type = add_type(module, &gap_bind_plan_spec)) == NULL) return -1;
    if (gap_bind_pipeline_add(module) < 0) return -1;
    return register_fork();
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    gap_bind_state *state = PyModule_GetState(module);
    Py_VISIT(state->graph_type);
    Py_VISIT(state->store_type);
    Py_VISIT(state->plan_type);
    return 0;
}

static int module_clear(PyObject *module) {
    gap_bind_state *state = PyModule_GetState(module);
    Py_CLEAR(state->graph_type);
    Py_CLEAR(state->store_type);
    Py_CLEAR(state->plan_type);
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED}, /* NumPy is not, either */
#endif
    {0, NULL},
};

struct PyModuleDef gap_bind_module_def = {
    PyModuleDef_HEAD_INIT, .m_name = "gapless._core", .m_doc = "The C core: tables, weights, graphs, plans, pipelines.",
    .m_size = sizeof(gap_bind_state), .m_methods = functions, .m_slots = slots, .m_traverse = module_traverse, .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&gap_bind_module_def); }

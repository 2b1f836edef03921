#include "bind/bind.h"

#include <stdio.h>
#include <string.h>

static const char *const plane_names[GAP_PLANE_COUNT] = {"master", "ema", "slot0", "slot1", "slot2", "slot3"};

/* ---- one writer or many readers, among threads ---- */

int gap_bind_store_lock(gap_store_object *s, bool write) {
    if (s->writing || (write && s->readers > 0)) {
        PyErr_SetString(PyExc_RuntimeError, "Store: another thread is using these weights now; one may write or several may read, "
                                            "so let one call end before the next begins");
        return -1;
    }
    if (write) s->writing = true;
    else s->readers++;
    return 0;
}

void gap_bind_store_unlock(gap_store_object *s, bool write) {
    if (write) s->writing = false;
    else s->readers--;
}

/* ---- life ---- */

static PyObject *store_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Store", keys)) return NULL;
    gap_store_object *self = (gap_store_object *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    gap_status st = gap_store_new(&self->store);
    if (st != GAP_OK) {
        gap_bind_raise(st);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void store_dealloc(PyObject *o) {
    gap_store_object *self = (gap_store_object *)o;
    PyTypeObject *type = Py_TYPE(o);
    PyObject_GC_UnTrack(o);
    gap_store_free(self->store);
    type->tp_free(o);
    Py_DECREF(type);
}

static int store_traverse(PyObject *o, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(o));
    return 0;
}

/* ---- parsing ---- */

/* Entry of that name, or KeyError with the nearest. */
static gap_entry *find_entry(gap_store *s, const char *name, int *index) {
    int k = gap_store_find(s, name);
    if (k >= 0) {
        *index = k;
        return &s->entry[k];
    }
    const char *near = NULL, *names[512];
    int n = s->n_entries < 512 ? s->n_entries : 512;
    for (int j = 0; j < n; j++) names[j] = s->entry[j].name;
    near = gap_bind_nearest(name, names, n);
    if (near != NULL) PyErr_Format(PyExc_KeyError, "no weight '%s'; did you mean '%s'?", name, near);
    else PyErr_Format(PyExc_KeyError, "no weight '%s'", name);
    return NULL;
}

static int parse_plane(const char *text, gap_plane *out) {
    for (int k = 0; k < GAP_PLANE_COUNT; k++) {
        if (strcmp(text, plane_names[k]) != 0) continue;
        *out = (gap_plane)k;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "plane must be 'master', 'ema' or 'slot0' to 'slot3', got '%s'", text);
    return -1;
}

static int need_sealed(const gap_store *s) {
    if (s->plane[GAP_PLANE_MASTER] != NULL) return 0;
    PyErr_SetString(PyExc_ValueError, "Store: call seal() before its weights are used");
    return -1;
}

static int need_plane(const gap_store *s, gap_plane p) {
    if (need_sealed(s) < 0) return -1;
    if (s->plane[p] != NULL) return 0;
    PyErr_Format(PyExc_ValueError, "Store: there is no plane '%s' yet", plane_names[p]);
    return -1;
}

static PyObject *none_or_raise(gap_status st) {
    if (st == GAP_OK) Py_RETURN_NONE;
    gap_bind_raise(st);
    return NULL;
}

/* ---- building ---- */

PyDoc_STRVAR(add_doc, "add($self, /, name, layer, config)\n--\n\nAdd a layer's weights, in order.");

static PyObject *store_add(PyObject *o, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"name", "layer", "config", NULL};
    gap_store_object *self = (gap_store_object *)o;
    const char *name, *layer;
    PyObject *config;
    gap_value cfg[GAP_PARAM_MAX];
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ssO:add", keys, &name, &layer, &config)) return NULL;
    const gap_layer_def *def = gap_bind_layer_find(layer);
    if (def == NULL || gap_bind_config_parse(def->name, def->params, def->n_params, config, cfg) < 0) return NULL;
    return none_or_raise(gap_store_add(self->store, name, def, cfg));
}

PyDoc_STRVAR(seal_doc, "seal($self, /)\n--\n\nMake the weights (zeros); nothing can be added after it.");

static PyObject *store_seal(PyObject *o, PyObject *unused) {
    (void)unused;
    return none_or_raise(gap_store_seal(((gap_store_object *)o)->store));
}

PyDoc_STRVAR(init_doc, "init($self, /, seed)\n--\n\nFill the weights by their rules; clears averages, slots and update counts.");

static PyObject *store_init(PyObject *o, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"seed", NULL};
    gap_store_object *self = (gap_store_object *)o;
    unsigned long long seed;
    gap_bind_call call;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "K:init", keys, &seed) || need_sealed(self->store) < 0) return NULL;
    if (gap_bind_store_lock(self, true) < 0) return NULL;
    gap_bind_begin(&call);
    gap_status st = gap_store_init(self->store, seed);
    int failed = gap_bind_end(&call, st);
    gap_bind_store_unlock(self, true);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_init_doc, "set_init($self, /, name, kind, arg=0.0)\n--\n\nChange a weight's rule: 'zero', 'one', 'uniform' (-arg, arg), 'normal' (0, arg^2).");

static PyObject *store_set_init(PyObject *o, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"name", "kind", "arg", NULL};
    gap_store_object *self = (gap_store_object *)o;
    const char *name, *text;
    double arg = 0.0;
    gap_init_kind kind;
    int k = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ss|d:set_init", keys, &name, &text, &arg)) return NULL;
    if (gap_bind_init_kind(text, &kind) < 0 || find_entry(self->store, name, &k) == NULL) return NULL;
    return none_or_raise(gap_store_set_init(self->store, k, kind, arg));
}

/* ---- reading ---- */

PyDoc_STRVAR(entries_doc, "entries($self, /)\n--\n\nWeights and buffers in the store's order.");

static PyObject *store_entries(PyObject *o, PyObject *unused) {
    (void)unused;
    const gap_store *s = ((gap_store_object *)o)->store;
    PyObject *list = PyList_New(s->n_entries);
    for (int k = 0; list != NULL && k < s->n_entries; k++) {
        const gap_entry *e = &s->entry[k];
        PyObject *d = Py_BuildValue("{s:s, s:s, s:s, s:N, s:N, s:N, s:i, s:L, s:n, s:n}", "name", e->name, "layer", s->layer_name[e->layer],
                                    "kind", e->decl.kind == GAP_WEIGHT_PARAM ? "param" : "buffer", "shape",
                                    gap_bind_int_tuple(e->decl.dim, e->decl.ndim), "norm_or_bias",
                                    PyBool_FromLong(e->decl.norm_or_bias), "trainable", PyBool_FromLong(e->trainable), "group",
                                    e->group, "updates", (long long)e->updates, "offset", (Py_ssize_t)e->offset, "count",
                                    (Py_ssize_t)e->count);
        if (d == NULL) Py_CLEAR(list);
        else PyList_SET_ITEM(list, k, d);
    }
    return list;
}

PyDoc_STRVAR(get_doc, "get($self, /, name, plane='master')\n--\n\nA copy of one weight.");

static PyObject *store_get(PyObject *o, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"name", "plane", NULL};
    gap_store_object *self = (gap_store_object *)o;
    const char *name, *text = "master";
    gap_plane p;
    int k = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|s:get", keys, &name, &text)) return NULL;
    const gap_entry *e = find_entry(self->store, name, &k);
    if (e == NULL || parse_plane(text, &p) < 0 || need_plane(self->store, p) < 0) return NULL;
    npy_intp dims[GAP_MAX_DIM];
    for (int j = 0; j < e->decl.ndim; j++) dims[j] = (npy_intp)e->decl.dim[j];
    if (gap_bind_store_lock(self, false) < 0) return NULL;
    PyObject *out = PyArray_SimpleNew(e->decl.ndim, dims, NPY_FLOAT32);
    if (out != NULL) memcpy(PyArray_DATA((PyArrayObject *)out), gap_store_data(self->store, p, k), e->count * sizeof(float));
    gap_bind_store_unlock(self, false);
    return out;
}

/* `array` as float32 of exactly the entry's shape. */
static PyArrayObject *entry_array(const gap_entry *e, PyObject *array) {
    PyArrayObject *a = gap_bind_array(array, NPY_FLOAT32, e->name);
    if (a == NULL) return NULL;
    bool fits = PyArray_NDIM(a) == e->decl.ndim;
    for (int k = 0; fits && k < e->decl.ndim; k++) fits = PyArray_DIM(a, k) == e->decl.dim[k];
    if (fits) return a;
    PyObject *want = gap_bind_int_tuple(e->decl.dim, e->decl.ndim), *got = PyObject_GetAttrString((PyObject *)a, "shape");
    PyObject *text = want != NULL && got != NULL ? PyUnicode_FromFormat("%s: shape must be %R, got %R", e->name, want, got) : NULL;
    const char *utf8 = text != NULL ? PyUnicode_AsUTF8(text) : NULL;
    if (utf8 != NULL) gap_bind_raise(gap_fail(GAP_ERR_SHAPE, "%s", utf8));
    Py_XDECREF(text);
    Py_XDECREF(want);
    Py_XDECREF(got);
    Py_DECREF(a);
    return NULL;
}

PyDoc_STRVAR(set_doc, "set($self, /, name, array, plane='master')\n--\n\nReplace one weight (float32, same shape); makes the plane at first use.");

static PyObject *store_set(PyObject *o, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"name", "array", "plane", NULL};
    gap_store_object *self = (gap_store_object *)o;
    gap_store *s = self->store;
    const char *name, *text = "master";
    PyObject *array;
    gap_plane p;
    int k = 0;
    float *base;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO|s:set", keys, &name, &array, &text)) return NULL;
    const gap_entry *e = find_entry(s, name, &k);
    if (e == NULL || parse_plane(text, &p) < 0 || need_sealed(s) < 0) return NULL;
    PyArrayObject *a = entry_array(e, array);
    if (a == NULL) return NULL;
    if (gap_bind_store_lock(self, true) < 0) {
        Py_DECREF(a);
        return NULL;
    }
    gap_status st = gap_store_plane(s, p, &base);
    if (st == GAP_OK) {
        memcpy(gap_store_data(s, p, k), PyArray_DATA(a), e->count * sizeof(float));
        if (p == GAP_PLANE_MASTER) s->version++;
    }
    gap_bind_store_unlock(self, true);
    Py_DECREF(a);
    return none_or_raise(st);
}

PyDoc_STRVAR(planes_doc, "planes($self, /)\n--\n\nPlanes made so far.");

static PyObject *store_planes(PyObject *o, PyObject *unused) {
    (void)unused;
    const gap_store *s = ((gap_store_object *)o)->store;
    PyObject *list = PyList_New(0);
    for (int k = 0; list != NULL && k < GAP_PLANE_COUNT; k++) {
        if (s->plane[k] == NULL) continue;
        PyObject *t = PyUnicode_FromString(plane_names[k]);
        if (t == NULL || PyList_Append(list, t) < 0) Py_CLEAR(list);
        Py_XDECREF(t);
    }
    return list;
}

static void drop_capsule(PyObject *capsule) {
    gap_buf *b = PyCapsule_GetPointer(capsule, "gapless.buf");
    if (b != NULL) gap_buf_unref(&b);
}

PyDoc_STRVAR(flat_doc, "flat($self, /, plane='master')\n--\n\nThe whole plane, float32, read-only, sharing memory.");

static PyObject *store_flat(PyObject *o, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"plane", NULL};
    const gap_store *s = ((gap_store_object *)o)->store;
    const char *text = "master";
    gap_plane p;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|s:flat", keys, &text)) return NULL;
    if (parse_plane(text, &p) < 0 || need_plane(s, p) < 0) return NULL;
    gap_buf *b = gap_buf_ref(s->plane[p]); /* the array's own count, dropped with its base */
    PyObject *base = PyCapsule_New(b, "gapless.buf", drop_capsule);
    if (base == NULL) {
        gap_buf_unref(&b);
        return NULL;
    }
    npy_intp dim = (npy_intp)s->floats;
    PyObject *a = PyArray_SimpleNewFromData(1, &dim, NPY_FLOAT32, gap_buf_data(b));
    if (a == NULL) {
        Py_DECREF(base);
        return NULL;
    }
    PyArray_CLEARFLAGS((PyArrayObject *)a, NPY_ARRAY_WRITEABLE);
    if (PyArray_SetBaseObject((PyArrayObject *)a, base) < 0) Py_CLEAR(a); /* takes `base`, also on failure */
    return a;
}

/* ---- per-weight settings ---- */

PyDoc_STRVAR(set_trainable_doc, "set_trainable($self, name, trainable, /)\n--\n\nFreeze or thaw a parameter.");

static PyObject *store_set_trainable(PyObject *o, PyObject *args) {
    gap_store_object *self = (gap_store_object *)o;
    const char *name;
    int on, k = 0;
    if (!PyArg_ParseTuple(args, "sp:set_trainable", &name, &on)) return NULL;
    gap_entry *e = find_entry(self->store, name, &k);
    if (e == NULL) return NULL;
    if (e->decl.kind != GAP_WEIGHT_PARAM)
        return PyErr_Format(PyExc_ValueError, "%s is a buffer: it follows the data and is never trained", name);
    e->trainable = on != 0;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_group_doc, "set_group($self, name, group, /)\n--\n\nPut a weight into a hyper-parameter group.");

static PyObject *store_set_group(PyObject *o, PyObject *args) {
    gap_store_object *self = (gap_store_object *)o;
    const char *name;
    int group, k = 0;
    if (!PyArg_ParseTuple(args, "si:set_group", &name, &group)) return NULL;
    gap_entry *e = find_entry(self->store, name, &k);
    if (e == NULL) return NULL;
    if (group < 0) return PyErr_Format(PyExc_ValueError, "%s: group must be >= 0, got %d", name, group);
    e->group = group;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_updates_doc, "set_updates($self, name, updates, /)\n--\n\nSay how many updates a weight has had (on resuming).");

static PyObject *store_set_updates(PyObject *o, PyObject *args) {
    gap_store_object *self = (gap_store_object *)o;
    const char *name;
    long long updates;
    int k = 0;
    if (!PyArg_ParseTuple(args, "sL:set_updates", &name, &updates)) return NULL;
    gap_entry *e = find_entry(self->store, name, &k);
    if (e == NULL) return NULL;
    if (updates < 0) return PyErr_Format(PyExc_ValueError, "%s: updates must be >= 0, got %lld", name, updates);
    e->updates = updates;
    Py_RETURN_NONE;
}

static PyObject *store_version(PyObject *o, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(((gap_store_object *)o)->store->version);
}

static PyMethodDef store_methods[] = {
    {"add", (PyCFunction)(void (*)(void))store_add, METH_VARARGS | METH_KEYWORDS, add_doc},
    {"seal", store_seal, METH_NOARGS, seal_doc},
    {"init", (PyCFunction)(void (*)(void))store_init, METH_VARARGS | METH_KEYWORDS, init_doc},
    {"set_init", (PyCFunction)(void (*)(void))store_set_init, METH_VARARGS | METH_KEYWORDS, set_init_doc},
    {"entries", store_entries, METH_NOARGS, entries_doc},
    {"get", (PyCFunction)(void (*)(void))store_get, METH_VARARGS | METH_KEYWORDS, get_doc},
    {"set", (PyCFunction)(void (*)(void))store_set, METH_VARARGS | METH_KEYWORDS, set_doc},
    {"planes", store_planes, METH_NOARGS, planes_doc},
    {"flat", (PyCFunction)(void (*)(void))store_flat, METH_VARARGS | METH_KEYWORDS, flat_doc},
    {"set_trainable", store_set_trainable, METH_VARARGS, set_trainable_doc},
    {"set_group", store_set_group, METH_VARARGS, set_group_doc},
    {"set_updates", store_set_updates, METH_VARARGS, set_updates_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef store_getset[] = {
    {"version", store_version, NULL, "Moves at every write to the weights.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot store_slots[] = {
    {Py_tp_new, store_new},
    {Py_tp_dealloc, store_dealloc},
    {Py_tp_traverse, store_traverse},
    {Py_tp_methods, store_methods},
    {Py_tp_getset, store_getset},
    {Py_tp_doc, "Store()\n--\n\nWeights and buffers of a network: flat float32 planes in torch's order."},
    {0, NULL},
};

PyType_Spec gap_bind_store_spec = {
    .name = "gapless._core.Store", .basicsize = sizeof(gap_store_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, .slots = store_slots,
};

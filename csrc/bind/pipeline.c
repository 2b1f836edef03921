/* pipeline.c — _core.Pipeline: a list of augment ops over lists of NumPy pictures. */
#include "bind/bind.h"

#include <string.h>

#include "augment/pipeline.h"

typedef struct {
    PyObject_HEAD
    gap_pipeline *pipeline;
} pipeline_object;

static gap_pipeline *pipeline_of(PyObject *o) { return ((pipeline_object *)o)->pipeline; }

/* ---- making ---- */

static const gap_augment_def *find_augment(const char *name) {
    const gap_augment_def *def = gap_augment_find(name);
    if (def != NULL) return def;
    const char *names[256];
    int n = gap_augment_count < GAP_COUNTOF(names) ? gap_augment_count : GAP_COUNTOF(names);
    for (int k = 0; k < n; k++) names[k] = gap_augment_table[k]->name;
    const char *near = gap_bind_nearest(name, names, n);
    if (near != NULL) PyErr_Format(PyExc_ValueError, "pipeline: there is no augmentation '%s'; did you mean '%s'?", name, near);
    else PyErr_Format(PyExc_ValueError, "pipeline: there is no augmentation '%s'", name);
    return NULL;
}

/* One (name, id, config). */
static int parse_op(PyObject *o, gap_pipeline_op *op) {
    const char *name;
    long long id;
    PyObject *config;
    if (!PyTuple_Check(o) || !PyArg_ParseTuple(o, "sLO;an op must be a tuple (name, id, config)", &name, &id, &config)) {
        if (!PyErr_Occurred()) PyErr_Format(PyExc_TypeError, "pipeline: an op must be a tuple (name, id, config), got %R", o);
        return -1;
    }
    op->def = find_augment(name);
    if (op->def == NULL) return -1;
    if (id < 0 || id > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%s: id must be in [0, 2^32), got %lld", name, id);
        return -1;
    }
    op->id = (uint32_t)id;
    return gap_bind_config_parse(op->def->name, op->def->params, op->def->n_params, config, op->cfg);
}

static gap_pipeline *new_from(PyObject *seq) {
    gap_pipeline *p = NULL;
    gap_pipeline_op *ops = NULL; /* (n); some tens of kilobytes: too much for a stack */
    Py_ssize_t n = PySequence_Fast_GET_SIZE(seq);
    if (n > GAP_PIPELINE_MAX_OPS) return PyErr_Format(PyExc_ValueError, "pipeline: at most %d ops, got %zd", GAP_PIPELINE_MAX_OPS, n), NULL;
    gap_status st = gap_alloc(&ops, (size_t)n, sizeof *ops);
    for (Py_ssize_t k = 0; st == GAP_OK && k < n; k++)
        if (parse_op(PySequence_Fast_GET_ITEM(seq, k), &ops[k]) < 0) goto done;
    if (st == GAP_OK) st = gap_pipeline_new(&p, ops, (int)n);
    if (st != GAP_OK) gap_bind_raise(st);
done:
    gap_free(ops);
    return p;
}

static PyObject *pipeline_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"ops", NULL};
    PyObject *ops;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Pipeline", names, &ops)) return NULL;
    PyObject *seq = PySequence_Fast(ops, "Pipeline: ops must be a list of (name, id, config)");
    if (seq == NULL) return NULL;
    gap_pipeline *p = new_from(seq);
    Py_DECREF(seq);
    pipeline_object *self = p != NULL ? (pipeline_object *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL) gap_pipeline_free(p);
    else self->pipeline = p;
    return (PyObject *)self;
}

static void pipeline_dealloc(PyObject *o) {
    PyTypeObject *type = Py_TYPE(o);
    gap_pipeline_free(pipeline_of(o));
    type->tp_free(o);
    Py_DECREF(type);
}

/* ---- a batch's operands ---- */

typedef struct {
    gap_pipeline_batch batch;
    gap_image *images;
    PyObject **arrays;                /* (n) what the images borrow from */
    PyArrayObject *ids;
    int64_t oh, ow, c;
} operands;

static void operands_clear(operands *o) {
    for (int64_t k = 0; o->arrays != NULL && k < o->batch.n; k++) Py_XDECREF(o->arrays[k]);
    gap_free(o->arrays);
    gap_free(o->images);
    Py_XDECREF(o->ids);
}

/* Borrows picture k, of `id`. */
static int take_image(operands *o, int64_t k, PyObject *source, int64_t id) {
    PyArrayObject *a = gap_bind_array(source, NPY_UINT8, "pipeline: a picture");
    if (a == NULL) return -1;
    o->arrays[k] = (PyObject *)a;
    int ndim = PyArray_NDIM(a);
    if (ndim != 3 && ndim != 2) {
        gap_bind_raise(gap_fail(GAP_ERR_SHAPE, "in sample %lld: a picture must be (H, W, C) or (H, W), got %d dimensions", (long long)id, ndim));
        return -1;
    }
    o->images[k] = (gap_image){.data = PyArray_DATA(a), .h = PyArray_DIM(a, 0), .w = PyArray_DIM(a, 1),
                               .c = ndim == 3 ? PyArray_DIM(a, 2) : 1, .capacity = (size_t)PyArray_NBYTES(a)};
    return 0;
}

static int take_ids(operands *o, PyObject *ids, Py_ssize_t n) {
    o->ids = (PyArrayObject *)PyArray_FROM_OTF(ids, NPY_INT64, NPY_ARRAY_IN_ARRAY);
    if (o->ids == NULL) return -1;
    if (PyArray_NDIM(o->ids) == 1 && PyArray_DIM(o->ids, 0) == n) return 0;
    gap_bind_raise(gap_fail(GAP_ERR_SHAPE, "pipeline: ids must hold one number for each of the %lld pictures", (long long)n));
    return -1;
}

static int take_list(operands *o, PyObject *list, PyObject *ids) {
    PyObject *seq = PySequence_Fast(list, "pipeline: images must be a sequence of uint8 arrays (H, W, C)");
    if (seq == NULL) return -1;
    int failed = 0;
    Py_ssize_t n = PySequence_Fast_GET_SIZE(seq);
    gap_status st = gap_alloc(&o->images, (size_t)n, sizeof *o->images);
    if (st == GAP_OK) st = gap_alloc(&o->arrays, (size_t)n, sizeof *o->arrays);
    if (st != GAP_OK) gap_bind_raise(st);
    failed = st != GAP_OK || take_ids(o, ids, n) < 0;
    if (!failed) {
        o->batch = (gap_pipeline_batch){.n = n, .images = o->images, .ids = PyArray_DATA(o->ids)};
        for (Py_ssize_t k = 0; !failed && k < n; k++) failed = take_image(o, k, PySequence_Fast_GET_ITEM(seq, k), o->batch.ids[k]) < 0;
    }
    Py_DECREF(seq);
    return failed ? -1 : 0;
}

/* images, ids, epoch, seed, and `out` where the method takes one (out_object not NULL). */
static int operands_parse(operands *o, PyObject *args, PyObject *kwargs, PyObject **out_object) {
    static char *names[] = {"images", "ids", "epoch", "seed", "out", NULL};
    static char *names_without[] = {"images", "ids", "epoch", "seed", NULL};
    PyObject *list, *ids, *seed;
    long long epoch;
    memset(o, 0, sizeof *o);
    int got = out_object != NULL
                  ? PyArg_ParseTupleAndKeywords(args, kwargs, "OOLO|O", names, &list, &ids, &epoch, &seed, out_object)
                  : PyArg_ParseTupleAndKeywords(args, kwargs, "OOLO", names_without, &list, &ids, &epoch, &seed);
    if (!got) return -1;
    unsigned long long s = PyLong_AsUnsignedLongLong(seed);
    if (s == (unsigned long long)-1 && PyErr_Occurred()) return -1;
    if (take_list(o, list, ids) < 0) return -1;
    o->batch.epoch = epoch;
    o->batch.seed = s;
    return 0;
}

static int find_size(gap_pipeline *p, operands *o) {
    if (o->batch.n == 0) {
        gap_bind_raise(gap_fail(GAP_ERR_SHAPE, "pipeline: a batch needs at least one picture"));
        return -1;
    }
    gap_status st = gap_pipeline_batch_shape(p, &o->batch, &o->oh, &o->ow);
    if (st != GAP_OK) gap_bind_raise(st);
    o->c = o->images[0].c;
    return st == GAP_OK ? 0 : -1;
}

/* New array, or a new reference to the caller's `out` when it is what is needed. */
static PyArrayObject *take_out(const operands *o, PyObject *out) {
    npy_intp dim[4] = {(npy_intp)o->batch.n, (npy_intp)o->oh, (npy_intp)o->ow, (npy_intp)o->c};
    if (out == NULL || out == Py_None) return (PyArrayObject *)PyArray_SimpleNew(4, dim, NPY_UINT8);
    PyArrayObject *a = (PyArrayObject *)out;
    if (!PyArray_Check(out) || PyArray_TYPE(a) != NPY_UINT8 || PyArray_NDIM(a) != 4 || !PyArray_CompareLists(PyArray_DIMS(a), dim, 4) ||
        !PyArray_IS_C_CONTIGUOUS(a) || !PyArray_ISWRITEABLE(a)) {
        gap_bind_raise(gap_fail(GAP_ERR_SHAPE, "pipeline: out must be a writeable, contiguous uint8 array (%lld, %lld, %lld, %lld)",
                                (long long)dim[0], (long long)dim[1], (long long)dim[2], (long long)dim[3]));
        return NULL;
    }
    Py_INCREF(out);
    return a;
}

/* ---- methods ---- */

PyDoc_STRVAR(run_doc, "run($self, /, images, ids, epoch, seed, out=None)\n--\n\n"
                      "Pictures through the ops, all but Normalize. All results must have one size.");

static PyObject *pipeline_run(PyObject *self, PyObject *args, PyObject *kwargs) {
    operands o;
    PyObject *out = NULL;
    PyArrayObject *y = NULL;
    gap_bind_call call;
    if (operands_parse(&o, args, kwargs, &out) < 0 || find_size(pipeline_of(self), &o) < 0) goto done;
    y = take_out(&o, out);
    if (y == NULL) goto done;
    gap_bind_begin(&call);
    gap_status st = gap_pipeline_run(pipeline_of(self), &o.batch, PyArray_DATA(y));
    if (gap_bind_end(&call, st) < 0) Py_CLEAR(y);
done:
    operands_clear(&o);
    return (PyObject *)y;
}

PyDoc_STRVAR(run_float_doc, "run_float($self, /, images, ids, epoch, seed)\n--\n\n"
                            "As run, then normalised with the bits of the network's first layer.");

static PyObject *pipeline_run_float(PyObject *self, PyObject *args, PyObject *kwargs) {
    operands o;
    PyArrayObject *x = NULL, *y = NULL;
    gap_bind_call call;
    gap_pipeline *p = pipeline_of(self);
    if (operands_parse(&o, args, kwargs, NULL) < 0 || find_size(p, &o) < 0) goto done;
    npy_intp dim[4] = {(npy_intp)o.batch.n, (npy_intp)o.c, (npy_intp)o.oh, (npy_intp)o.ow};
    x = take_out(&o, NULL);
    y = x != NULL ? (PyArrayObject *)PyArray_SimpleNew(4, dim, NPY_FLOAT32) : NULL;
    if (y == NULL) goto done;
    gap_bind_begin(&call);
    gap_status st = gap_pipeline_run(p, &o.batch, PyArray_DATA(x));
    if (st == GAP_OK) st = gap_pipeline_to_float(p, o.batch.n, o.oh, o.ow, o.c, PyArray_DATA(x), PyArray_DATA(y));
    if (gap_bind_end(&call, st) < 0) Py_CLEAR(y);
done:
    operands_clear(&o);
    Py_XDECREF(x);
    return (PyObject *)y;
}

/* {"name": …, drawn name: number, …} of one op. */
static PyObject *drawn_dict(const gap_augment_def *def, const gap_aug_params *drawn) {
    PyObject *d = Py_BuildValue("{ss}", "name", def->name);
    for (int k = 0; d != NULL && def->drawn != NULL && def->drawn[k] != NULL; k++) {
        PyObject *x = PyFloat_FromDouble(drawn->v[k]);
        if (x == NULL || PyDict_SetItemString(d, def->drawn[k], x) < 0) Py_CLEAR(d);
        Py_XDECREF(x);
    }
    return d;
}

/* {op id: drawn_dict} of the ops that draw. */
static PyObject *sample_dict(const gap_pipeline *p, const gap_aug_params *drawn) {
    PyObject *d = PyDict_New();
    for (int k = 0; d != NULL && k < gap_pipeline_count(p); k++) {
        const gap_pipeline_op *op = gap_pipeline_op_at(p, k);
        if (!op->def->random) continue;
        PyObject *key = PyLong_FromUnsignedLong(op->id), *value = drawn_dict(op->def, &drawn[k]);
        if (key == NULL || value == NULL || PyDict_SetItem(d, key, value) < 0) Py_CLEAR(d);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return d;
}

PyDoc_STRVAR(params_doc, "params($self, /, images, ids, epoch, seed)\n--\n\n"
                         "What each random op draws for each picture; only the pictures' sizes matter.");

static PyObject *pipeline_params(PyObject *self, PyObject *args, PyObject *kwargs) {
    operands o;
    PyObject *list = NULL;
    gap_aug_params drawn[GAP_PIPELINE_MAX_OPS];
    const gap_pipeline *p = pipeline_of(self);
    if (operands_parse(&o, args, kwargs, NULL) < 0) goto done;
    list = PyList_New((Py_ssize_t)o.batch.n);
    for (int64_t k = 0; list != NULL && k < o.batch.n; k++) {
        const gap_image *im = &o.images[k];
        gap_status st = gap_pipeline_sample(p, o.batch.seed, o.batch.epoch, o.batch.ids[k], im->h, im->w, im->c, drawn);
        if (st != GAP_OK) gap_bind_raise(st);
        PyObject *d = st == GAP_OK ? sample_dict(p, drawn) : NULL;
        if (d == NULL) Py_CLEAR(list);
        else PyList_SET_ITEM(list, (Py_ssize_t)k, d);
    }
done:
    operands_clear(&o);
    return list;
}

PyDoc_STRVAR(output_shape_doc, "output_shape($self, h, w, c, /)\n--\n\n"
                               "Size of the result for a picture; fixed: the same for every picture that passes.");

static PyObject *pipeline_output_shape(PyObject *self, PyObject *args) {
    long long h, w, c;
    int64_t oh = 0, ow = 0;
    bool fixed = false;
    if (!PyArg_ParseTuple(args, "LLL:output_shape", &h, &w, &c)) return NULL;
    gap_status st = gap_pipeline_shape(pipeline_of(self), h, w, c, &oh, &ow, &fixed);
    if (st == GAP_OK) return Py_BuildValue("(LLLO)", (long long)oh, (long long)ow, c, fixed ? Py_True : Py_False);
    gap_bind_raise(st);
    return NULL;
}

static PyObject *get_random(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(gap_pipeline_random(pipeline_of(self)));
}

/* Normalize's mean (which 0) or std (1), or None. */
static PyObject *get_normal(PyObject *self, void *which) {
    const gap_pipeline *p = pipeline_of(self);
    int n = gap_pipeline_count(p), k = which == NULL ? 0 : 1;
    const gap_pipeline_op *op = n > 0 ? gap_pipeline_op_at(p, n - 1) : NULL;
    if (op == NULL || !op->def->last) Py_RETURN_NONE;
    return gap_bind_value_object(&op->def->params[k], &op->cfg[k]);
}

static PyMethodDef pipeline_methods[] = {
    {"run", (PyCFunction)(void (*)(void))pipeline_run, METH_VARARGS | METH_KEYWORDS, run_doc},
    {"run_float", (PyCFunction)(void (*)(void))pipeline_run_float, METH_VARARGS | METH_KEYWORDS, run_float_doc},
    {"params", (PyCFunction)(void (*)(void))pipeline_params, METH_VARARGS | METH_KEYWORDS, params_doc},
    {"output_shape", pipeline_output_shape, METH_VARARGS, output_shape_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pipeline_getset[] = {
    {"random", get_random, NULL, "True when an op draws numbers.", NULL},
    {"mean", get_normal, NULL, "Normalize's mean, or None.", NULL},
    {"std", get_normal, NULL, "Normalize's std, or None.", "std"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pipeline_slots[] = {
    {Py_tp_new, pipeline_new},
    {Py_tp_dealloc, pipeline_dealloc},
    {Py_tp_methods, pipeline_methods},
    {Py_tp_getset, pipeline_getset},
    {Py_tp_doc, "Pipeline(ops)\n--\n\nAugment ops, [(name, id, config), ...], over uint8 pictures: a thread per picture."},
    {0, NULL},
};

static PyType_Spec pipeline_spec = {
    .name = "gapless._core.Pipeline", .basicsize = sizeof(pipeline_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, .slots = pipeline_slots,
};

int gap_bind_pipeline_add(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &pipeline_spec, NULL);
    if (type == NULL) return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

#include "bind/bind.h"

#include <string.h>

const gap_layer_def *gap_bind_layer_find(const char *name) {
    const gap_layer_def *def = gap_layer_find(name);
    if (def != NULL) return def;
    const char *near = NULL;
    const char *names[256];
    int n = gap_layer_count < 256 ? gap_layer_count : 256;
    for (int k = 0; k < n; k++) names[k] = gap_layer_table[k]->name;
    near = gap_bind_nearest(name, names, n);
    if (near != NULL) PyErr_Format(PyExc_ValueError, "unknown layer '%s'; did you mean '%s'?", name, near);
    else PyErr_Format(PyExc_ValueError, "unknown layer '%s'", name);
    return NULL;
}

/* fp32 input of a graph: (C, H, W) or (F). */
static int parse_input(PyObject *shape, gap_desc *out) {
    int64_t dim[GAP_MAX_DIM];
    int n;
    if (gap_bind_ints("Graph", "input_shape", shape, dim, GAP_MAX_DIM, &n) < 0) return -1;
    bool good = n == 1 || n == 3;
    for (int k = 0; good && k < n; k++) good = dim[k] >= 1;
    if (!good) {
        PyObject *text = PyUnicode_FromFormat("%R", shape);
        const char *utf8 = text != NULL ? PyUnicode_AsUTF8(text) : NULL;
        if (utf8 != NULL)
            gap_bind_raise(gap_fail(GAP_ERR_SHAPE, "Graph: input_shape must be (C, H, W) or (F,), sizes >= 1, got %s", utf8));
        Py_XDECREF(text);
        return -1;
    }
    *out = (gap_desc){.dtype = GAP_F32, .layout = GAP_PLAIN, .ndim = n};
    memcpy(out->dim, dim, (size_t)n * sizeof *dim);
    return 0;
}

static PyObject *graph_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"input_shape", NULL};
    PyObject *shape;
    gap_desc input;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Graph", keys, &shape) || parse_input(shape, &input) < 0) return NULL;
    gap_graph_object *self = (gap_graph_object *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    gap_status st = gap_graph_new(&self->graph, &input);
    if (st != GAP_OK) {
        gap_bind_raise(st);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void graph_dealloc(PyObject *o) {
    gap_graph_object *self = (gap_graph_object *)o;
    PyTypeObject *type = Py_TYPE(o);
    PyObject_GC_UnTrack(o);
    gap_graph_free(self->graph);
    type->tp_free(o);
    Py_DECREF(type);
}

static int graph_traverse(PyObject *o, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(o));
    return 0;
}

static int refuse_change(const gap_graph_object *self) {
    if (!self->in_use) return 0;
    PyErr_SetString(PyExc_ValueError, "Graph: a plan was made from it; build a new graph to change it");
    return -1;
}

PyDoc_STRVAR(add_doc, "add($self, /, layer, name, id, config, inputs)\n--\n\n"
                      "Add a layer; gives the number of its value (0 is the input).");

static PyObject *graph_add(PyObject *o, PyObject *args, PyObject *kwargs) {
    static char *keys[] = {"layer", "name", "id", "config", "inputs", NULL};
    gap_graph_object *self = (gap_graph_object *)o;
    const char *layer, *name;
    PyObject *config, *inputs;
    int id, n_in, in[GAP_OP_MAX_IN], out;
    int64_t wide[GAP_OP_MAX_IN];
    gap_value cfg[GAP_PARAM_MAX];
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ssiOO:add", keys, &layer, &name, &id, &config, &inputs)) return NULL;
    const gap_layer_def *def = gap_bind_layer_find(layer);
    if (def == NULL || refuse_change(self) < 0) return NULL;
    if (gap_bind_config_parse(def->name, def->params, def->n_params, config, cfg) < 0) return NULL;
    if (gap_bind_ints(name, "inputs", inputs, wide, GAP_OP_MAX_IN, &n_in) < 0) return NULL;
    for (int k = 0; k < n_in; k++) {
        if (wide[k] < 0 || wide[k] > self->graph->n_nodes)
            return PyErr_Format(PyExc_ValueError, "in %s: there is no value %lld yet", name, (long long)wide[k]);
        in[k] = (int)wide[k];
    }
    gap_status st = gap_graph_add(self->graph, name, id, def, cfg, in, n_in, &out);
    if (st == GAP_OK) return PyLong_FromLong(out);
    gap_bind_raise(st);
    return NULL;
}

PyDoc_STRVAR(set_outputs_doc, "set_outputs($self, values, /)\n--\n\nSay which values the network gives.");

static PyObject *graph_set_outputs(PyObject *o, PyObject *values) {
    gap_graph_object *self = (gap_graph_object *)o;
    int64_t wide[4];
    int n, v[4];
    if (refuse_change(self) < 0 || gap_bind_ints("Graph", "outputs", values, wide, 4, &n) < 0) return NULL;
    for (int k = 0; k < n; k++) {
        if (wide[k] < 0 || wide[k] > self->graph->n_nodes)
            return PyErr_Format(PyExc_ValueError, "Graph: there is no value %lld", (long long)wide[k]);
        v[k] = (int)wide[k];
    }
    gap_status st = gap_graph_set_outputs(self->graph, v, n);
    if (st == GAP_OK) Py_RETURN_NONE;
    gap_bind_raise(st);
    return NULL;
}

/* Reads an index below `limit`. */
static int parse_index(PyObject *o, int limit, const char *what, int *out) {
    long k = PyLong_AsLong(o);
    if (k == -1 && PyErr_Occurred()) return -1;
    if (k < 0 || k >= limit) {
        PyErr_Format(PyExc_IndexError, "Graph: there is no %s %ld", what, k);
        return -1;
    }
    *out = (int)k;
    return 0;
}

PyDoc_STRVAR(shape_doc, "shape($self, value, /)\n--\n\nShape of one sample of a value.");

static PyObject *graph_shape(PyObject *o, PyObject *value) {
    gap_graph_object *self = (gap_graph_object *)o;
    int k;
    if (parse_index(value, self->graph->n_nodes + 1, "value", &k) < 0) return NULL;
    gap_desc d = gap_graph_desc(self->graph, k);
    return gap_bind_int_tuple(d.dim, d.ndim);
}

PyDoc_STRVAR(macs_doc, "macs($self, node, /)\n--\n\nMultiply-accumulates of one sample's forward through a node.");

static PyObject *graph_macs(PyObject *o, PyObject *node) {
    gap_graph_object *self = (gap_graph_object *)o;
    int k;
    if (parse_index(node, self->graph->n_nodes, "node", &k) < 0) return NULL;
    return PyLong_FromLongLong(gap_graph_macs(self->graph, k));
}

static PyMethodDef graph_methods[] = {
    {"add", (PyCFunction)(void (*)(void))graph_add, METH_VARARGS | METH_KEYWORDS, add_doc},
    {"set_outputs", graph_set_outputs, METH_O, set_outputs_doc},
    {"shape", graph_shape, METH_O, shape_doc},
    {"macs", graph_macs, METH_O, macs_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot graph_slots[] = {
    {Py_tp_new, graph_new},
    {Py_tp_dealloc, graph_dealloc},
    {Py_tp_traverse, graph_traverse},
    {Py_tp_methods, graph_methods},
    {Py_tp_doc, "Graph(input_shape)\n--\n\nA traced network: layers as data, for one input shape (C, H, W) or (F,)."},
    {0, NULL},
};

PyType_Spec gap_bind_graph_spec = {
    .name = "gapless._core.Graph", .basicsize = sizeof(gap_graph_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, .slots = graph_slots,
};

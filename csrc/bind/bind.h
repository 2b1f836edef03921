/* bind.h — what the files of bind/ share. A method has four steps: parse by table row, borrow buffers, release the GIL
 * around one core call, map the status. Every core call that may take the pool's lock runs without the GIL: the poll of
 * another call takes the GIL while it holds that lock.
 */
#ifndef GAP_BIND_BIND_H
#define GAP_BIND_BIND_H

#include <stdbool.h>

#include "bind/numpy.h"
#include "core/threads.h"
#include "graph/plan.h"

/* Per-module state; every member is a strong reference. */
typedef struct {
    PyTypeObject *graph_type, *store_type, *plan_type;
} gap_bind_state;

extern struct PyModuleDef gap_bind_module_def;
gap_bind_state *gap_bind_state_of_module(PyObject *module);
/* State of the module that defined `type` (a subclass is fine). NULL with an exception set: foreign type. */
gap_bind_state *gap_bind_state_of(PyTypeObject *type);

/* ---- errors.c: the only map from status to exception ---- */
/* Sets the exception for `st` with this thread's message. GAP_ERR_INTERRUPTED keeps the pending one. */
void gap_bind_raise(gap_status st);

/* ---- call.c: the GIL and the interrupt poll around one core call ----
 *     gap_bind_call call;
 *     gap_bind_begin(&call);          GIL released, poll set
 *     st = one_core_call(...);
 *     if (gap_bind_end(&call, st) < 0) goto done;      GIL held, exception set */
typedef struct {
    PyThreadState *thread;
    int64_t polled_ns;
    bool may_poll;                    /* only the main thread runs signal handlers */
    gap_interrupted_fn *old_fn;
    void *old_cookie;
} gap_bind_call;
void gap_bind_begin(gap_bind_call *call);
int gap_bind_end(gap_bind_call *call, gap_status st);

/* ---- args.c: a config (a dict, or None for all defaults) <-> gap_value rows ---- */
/* Fills out[0..n_params) from `config` over the defaults and checks ranges. -1 with an exception set. `owner` starts messages. */
int gap_bind_config_parse(const char *owner, const gap_param *params, int n_params, PyObject *config, gap_value *out);
/* As above; lists longer than GAP_FLOATS_MAX (class weights) are put into `keep`, a Python list that must outlive the values. */
int gap_bind_config_parse_keep(const char *owner, const gap_param *params, int n_params, PyObject *config, PyObject *keep,
                               gap_value *out);
/* New dict of all params. */
PyObject *gap_bind_config_dict(const gap_param *params, int n_params, const gap_value *v);
/* New reference: one value as Python spells it (None, number, bool, tuple, str). */
PyObject *gap_bind_value_object(const gap_param *p, const gap_value *v);
/* New list of {name, kind, …}: the rows as describe() gives them. */
PyObject *gap_bind_params_list(const gap_param *params, int n_params);
/* Borrows *text from a str, or sets TypeError "owner: name must be a str, got …". */
int gap_bind_text(const char *owner, const char *name, PyObject *o, const char **text);
/* Reads a sequence of ints into out[0..*n), at most `max`. */
int gap_bind_ints(const char *owner, const char *name, PyObject *o, int64_t *out, int max, int *n);
/* New tuple of ints. */
PyObject *gap_bind_int_tuple(const int64_t *v, int n);
/* Nearest of names[0..n) to `word` by edit distance, or NULL when none is near. */
const char *gap_bind_nearest(const char *word, const char *const *names, int n);

/* ---- describe.c ---- */
PyObject *gap_bind_describe(PyObject *module, PyObject *unused);
PyObject *gap_bind_show_config(PyObject *module, PyObject *unused);
PyObject *gap_bind_check_config(PyObject *module, PyObject *args);

/* ---- bench.c ---- */
PyObject *gap_bind_bench_fma(PyObject *module, PyObject *args);
PyObject *gap_bind_bench_triad(PyObject *module, PyObject *args);

/* ---- random.c ---- */
PyObject *gap_bind_philox(PyObject *module, PyObject *args);
PyObject *gap_bind_permutation(PyObject *module, PyObject *args);
PyObject *gap_bind_init_fill(PyObject *module, PyObject *args, PyObject *kwargs);

int gap_bind_init_kind(const char *text, gap_init_kind *out); /* "zero" "one" "uniform" "normal" */

/* ---- graph.c, store.c, plan.c ---- */
typedef struct {
    PyObject_HEAD
    gap_graph *graph;
    bool in_use;       /* a plan lowered it: it may not change any more */
} gap_graph_object;

typedef struct {
    PyObject_HEAD
    gap_store *store;
    int readers;       /* calls in other threads that read it now, */
    bool writing;      /* or one that writes it; guarded by the GIL */
} gap_store_object;

/* Take the store for one call, or set RuntimeError: two threads would race. */
int gap_bind_store_lock(gap_store_object *s, bool write);
void gap_bind_store_unlock(gap_store_object *s, bool write);

extern PyType_Spec gap_bind_graph_spec, gap_bind_store_spec, gap_bind_plan_spec;

/* layer name -> row, or ValueError with the nearest name */
const gap_layer_def *gap_bind_layer_find(const char *name);

/* ---- arrays.c: NumPy arrays as the core's operands ---- */
/* New C-contiguous, aligned array of exactly this type (copied when it was not contiguous), or TypeError naming `what`. */
PyArrayObject *gap_bind_array(PyObject *o, int typenum, const char *what);
/* Checks `a` (n, dims...) of a batch; gives n. ShapeError naming `what`. */
int gap_bind_batch_check(const PyArrayObject *a, const int64_t *dim, int ndim, int64_t capacity, const char *what, int64_t *n);
/* Normalisation from Python's mean and std (None, a number, or one per channel; of pixels in [0, 1] for uint8): a and b of
 * one fma per pixel, computed in double and rounded once. Both None: n = 0, the identity. */
int gap_bind_input_attr(const char *owner, PyObject *mean, PyObject *std, int64_t channels, gap_dtype dtype, gap_input_attr *out);
/* Targets of a batch from y: classes (n), soft targets (n, K), or (values, offsets). Owns what it points into. */
typedef struct {
    gap_targets targets;
    PyObject *values, *offsets; /* arrays */
} gap_bind_targets;
int gap_bind_targets_parse(PyObject *y, int64_t n, gap_bind_targets *out);
void gap_bind_targets_clear(gap_bind_targets *t);

/* ---- bind/pipeline.c (augmentations) ---- */
int gap_bind_pipeline_add(PyObject *module); /* adds the Pipeline type; -1 with an exception set */

#endif

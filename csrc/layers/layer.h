/* layer.h — a layer's table row: what it is called, what it takes, which weights it owns, which ops it becomes.
 *
 * Each layers/<name>.c opens with a doc comment and ends with `const gap_layer_def gap_layer_<name>`. Shapes are not in the
 * row: `lower` emits ops, and an op's `infer` is the one place that knows output sizes and words shape errors.
 */
#ifndef GAP_LAYERS_LAYER_H
#define GAP_LAYERS_LAYER_H

#include "core/param.h"
#include "ops/ops.h"

#define GAP_LAYER_MAX_WEIGHTS 4

typedef enum { GAP_WEIGHT_PARAM, GAP_WEIGHT_BUFFER } gap_weight_kind;
typedef enum {
    GAP_INIT_ZERO, GAP_INIT_ONE,
    GAP_INIT_UNIFORM, /* U(-arg, arg) */
    GAP_INIT_NORMAL   /* N(0, arg^2) */
} gap_init_kind;

typedef struct {
    const char *suffix;      /* "weight", "bias", "running_mean", … as torch names it */
    gap_weight_kind kind;
    bool norm_or_bias;       /* weight decay skips it where decay_norm_and_bias=False */
    int ndim;
    int64_t dim[GAP_MAX_DIM];
    gap_init_kind init;      /* torch's default for this layer */
    double init_arg;
} gap_weight_decl;

typedef struct gap_layer_def gap_layer_def;

/* A layer in a graph. */
typedef struct {
    const gap_layer_def *def;
    gap_origin who;
    const gap_value *cfg;                /* as def->params */
    int weight[GAP_LAYER_MAX_WEIGHTS];   /* store entries, in the order of `weights`; -1: absent */
    bool frozen;                         /* none of its weights learns: BatchNorm then uses evaluation statistics */
} gap_layer;

struct gap_layer_def {
    const char *name;                    /* Python's spelling: "Conv2d" */
    const char *doc;
    const gap_param *params;
    int n_params;
    int min_in, max_in;
    /* Declares the weights for a config: fills out[0..*n). Also checks what ranges cannot (groups divide channels). NULL: none. */
    gap_status (*weights)(const gap_value *cfg, gap_weight_decl *out, int *n);
    /* Emits ops into list (list->training says which kind) and gives the value that is the layer's output. */
    gap_status (*lower)(const gap_layer *self, gap_oplist *list, const int *in, int n_in, int *out);
};

extern const gap_layer_def *const gap_layer_table[]; /* generated, sorted by name */
extern const int gap_layer_count;
const gap_layer_def *gap_layer_find(const char *name); /* NULL: none of that name */

#endif

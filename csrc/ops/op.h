/* op.h — an op: one node of the list that a network is lowered to; and the list itself.
 *
 * An op file (ops/<name>.c) gives one gap_op_def and one emit function (declared in ops/ops.h). It checks shapes in
 * `infer`, decides everything that depends on shape in `prepare`, and then runs without failing or allocating:
 * it cuts work into chunks fixed by shape, calls gap_parallel, and each chunk calls kernels.
 *
 * Life of a step:  derive (when weights moved) -> forward in list order -> loss -> backward in reverse order
 *                  -> check -> commit (running statistics) + optimizer, the only phase that writes weights.
 */
#ifndef GAP_OPS_OP_H
#define GAP_OPS_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/rng.h"
#include "core/status.h"
#include "core/tensor.h"
#include "kernels/kernels.h"

#define GAP_OP_MAX_IN 16
#define GAP_OP_MAX_WEIGHTS 6
#define GAP_OP_ATTR_BYTES 512
#define GAP_REDUCE_CHUNKS 8                   /* contracts: at most 8 ranges of images … */
#define GAP_REDUCE_BYTES ((size_t)4 << 20)    /* … whose partial results stay within 4 MB */

typedef enum { GAP_PRECISION_FAST, GAP_PRECISION_PRECISE } gap_precision;

typedef struct gap_op gap_op;
typedef struct gap_op_ctx gap_op_ctx;

/* What a plan tells its ops once. */
typedef struct {
    int64_t capacity;      /* largest batch */
    bool training;
    gap_precision precision;
    const gap_kernels *kernels;
    const bool *trainable; /* of the store's entries */
} gap_op_env;

typedef enum { GAP_NEED_IN0 = 1, GAP_NEED_IN1 = 2, GAP_NEED_IN2 = 4, GAP_NEED_IN3 = 8, GAP_NEED_ALL_IN = 0xFFFF, GAP_NEED_OUT = 1 << 16 } gap_op_need;

typedef struct {
    const char *name;                 /* "conv", "act", … */
    unsigned backward_needs;          /* gap_op_need bits: forward values that backward reads; the plan keeps them */
    bool slices;                      /* out[0] and its gradient may be runs of blocks of larger tensors (gap_desc.skip) */
    bool inplace_ok;                  /* forward may write its output over input 0 when nobody else needs that */
    unsigned gradient_inplace;        /* GAP_NEED_IN bits: inputs whose gradient backward may make where the output's stands */
    /* Checks in[] and fills out[0..op->n_out). Also called by tracing: the one place for shape errors. */
    gap_status (*infer)(gap_op *op, const gap_desc *in, gap_desc *out);
    /* Once per plan: chooses, and sets op->{workspace,saved,derived}_bytes. NULL: needs nothing. */
    gap_status (*prepare)(gap_op *op, const gap_op_env *env);
    /* Rebuilds ctx->derived and ctx->derived_back, whichever is not NULL, from ctx->weight: when the store's version moved, or
     * before each use. NULL: nothing derived. */
    gap_status (*derive)(const gap_op *op, const gap_op_ctx *ctx);
    gap_status (*forward)(const gap_op *op, const gap_op_ctx *ctx);
    /* Writes ctx->din[i] (NULL: not wanted; overwrites, or adds where ctx->din_add[i]) and ctx->dweight[k]
     * (NULL: frozen; overwrites, or adds where ctx->dweight_add). NULL: passes no gradient. */
    gap_status (*backward)(const gap_op *op, const gap_op_ctx *ctx);
    /* Update phase: writes buffers such as running statistics from ctx->saved. NULL: none. */
    gap_status (*commit)(const gap_op *op, const gap_op_ctx *ctx);
    /* One line on what was chosen, for plan.describe(): "direct 8x32, 4 chunks". NULL: nothing to say. */
    void (*describe)(const gap_op *op, char *text, size_t bytes);
} gap_op_def;

struct gap_op {
    const gap_op_def *def;
    unsigned backward_needs, gradient_inplace; /* the def's, and what fusion added */
    unsigned no_gradient;             /* GAP_NEED_IN bits: inputs whose gradient is another reader's task, as fusion shared it out */
    const char *layer;                /* dotted layer name, for messages; lives as long as the graph */
    int layer_id;                     /* fixed number of the layer: the op coordinate of its draws */
    int n_in, n_out;
    int in[GAP_OP_MAX_IN], out[2];    /* value numbers */
    gap_desc in_desc[GAP_OP_MAX_IN], out_desc[2];
    int n_weights;
    int weight[GAP_OP_MAX_WEIGHTS];   /* entries of the store; -1: absent (no bias) */
    size_t workspace_bytes;           /* scratch for one call, shared with other ops */
    size_t saved_bytes;               /* private, from forward to backward and commit */
    size_t derived_bytes;             /* private: packed weights. Kept between steps, unless there is a part for backward alone: */
    size_t derived_back_bytes;        /* then forward and backward get each its own, made just before */
    _Alignas(16) unsigned char attr[GAP_OP_ATTR_BYTES]; /* the op's own struct: GAP_ATTR(op, gap_conv_attr) */
};
#define GAP_ATTR(op, type) ((type *)(void *)(op)->attr)
#define GAP_ATTR_CONST(op, type) ((const type *)(const void *)(op)->attr)

/* What one call sees. Sample s of value v lies at base + s * gap_desc_step() elements. */
struct gap_op_ctx {
    int64_t n;                        /* samples in this batch, 1 <= n <= capacity */
    int64_t capacity;
    bool training;
    const void *in[GAP_OP_MAX_IN];    /* in backward: only those that backward_needs names */
    void *out[2];                     /* forward: to write; backward: the values, out[0] alone, where GAP_NEED_OUT */
    void *dout;                       /* gradient of out[0]; nobody reads it after this op: it may be written over, and din[i]
                                       * may be the same memory */
    const void *dout2;                /* gradient of out[1], NULL where nobody made one */
    void *din[GAP_OP_MAX_IN];
    bool din_add[GAP_OP_MAX_IN];
    float *weight[GAP_OP_MAX_WEIGHTS];   /* masters; read only, except buffers in commit */
    float *dweight[GAP_OP_MAX_WEIGHTS];  /* in the store's (torch's) order */
    bool dweight_add;                 /* a layer used twice: add to what is there */
    void *workspace, *saved, *derived, *derived_back;
    const gap_kernels *kernels;
    uint64_t seed;                    /* of the run; draws: key (seed, GAP_STREAM_DROPOUT), counter (epoch, id, layer_id, draw) */
    int64_t epoch;
    const int64_t *ids;               /* (n) manifest indices of the samples */
};

/* The list. Values are numbered from 0; value 0 is the network's input. */
typedef struct {
    bool training;                    /* lowered for training (Dropout, batch statistics) or for evaluation */
    int n_ops, cap_ops;
    gap_op *op;
    int n_values, cap_values;
    gap_desc *value;
    gap_desc *gradient;               /* of each value's gradient: as the value, but for the tables of BatchNorm (norm.h) */
} gap_oplist;

void gap_oplist_init(gap_oplist *l, bool training);
void gap_oplist_free(gap_oplist *l);
GAP_MUST_USE gap_status gap_oplist_value(gap_oplist *l, const gap_desc *desc, int *out); /* a new value without a producer */
/* Appends an op: checks, infers, makes its output values and gives their numbers in out[0..n_out). attr is copied.
 * On failure the list is as it was. */
GAP_MUST_USE gap_status gap_oplist_emit(gap_oplist *l, const gap_op_def *def, const char *layer, int layer_id, const int *in,
                                        int n_in, int n_out, const void *attr, size_t attr_bytes, const int *weights,
                                        int n_weights, int *out);

/* Ranges of images for a reduction: the largest number <= GAP_REDUCE_CHUNKS, and <= capacity, with
 * chunks * partial_bytes <= GAP_REDUCE_BYTES; 1 at least. */
int gap_reduce_chunks(int64_t capacity, size_t partial_bytes);
/* Chunk k of `chunks` covers samples [*begin, *end) of a batch of n in a plan of that capacity. Bounds follow the capacity. */
void gap_reduce_range(int64_t capacity, int chunks, int k, int64_t n, int64_t *begin, int64_t *end);

#endif

#include "graph/fuse_norm.h"

#include <string.h>

#include "core/memory.h"
#include "kernels/act.h"
#include "ops/norm.h"

/* ---- what patterns ask ---- */

/* Readers of value v: how many, and the op of the last of them. An output counts as a reader without an op. */
static int readers(const gap_fusion *f, int v, int *op) {
    int n = 0;
    for (int k = 0; k < f->n_outputs; k++) n += f->output[k] == v;
    for (int k = 0; k < f->list->n_ops; k++)
        for (int j = 0; j < f->list->op[k].n_in; j++)
            if (f->list->op[k].in[j] == v) n++, *op = k;
    return n;
}

int gap_fusion_only_reader(const gap_fusion *f, int v) {
    int op = -1;
    return readers(f, v, &op) == 1 ? op : -1;
}

int gap_fusion_producer(const gap_fusion *f, int v) {
    for (int k = 0; k < f->list->n_ops; k++)
        for (int j = 0; j < f->list->op[k].n_out; j++)
            if (f->list->op[k].out[j] == v) return k;
    return -1;
}

static bool is(const gap_fusion *f, int op, const gap_op_def *def) { return op >= 0 && f->list->op[op].def == def; }

/* sigmoid and hardsigmoid would make 0.5 of the channels that pad the last block. */
static bool keeps_padding(gap_act act, const gap_desc *d) {
    return (act != GAP_ACT_SIGMOID && act != GAP_ACT_HARDSIGMOID) || gap_pad_channels(d) == 0;
}

/* ---- how the list is changed ---- */

static void drop(gap_fusion *f, int op) {
    gap_oplist *l = f->list;
    memmove(l->op + op, l->op + op + 1, (size_t)(l->n_ops - op - 1) * sizeof *l->op);
    l->n_ops--;
}

static void set_in(gap_fusion *f, gap_op *op, int j, int value) {
    op->in[j] = value, op->in_desc[j] = f->list->value[value];
}

static void set_out(gap_fusion *f, gap_op *op, int j, int value) {
    op->out[j] = value, op->out_desc[j] = f->list->value[value];
}

/* ---- the rules ---- */

static gap_affine_attr *affine_of(gap_fusion *f, int op) { return GAP_ATTR(&f->list->op[op], gap_affine_attr); }

/* An affine that does nothing else, made for op `reader` alone. */
static bool bare_affine(gap_fusion *f, int value, int reader, int *affine) {
    *affine = gap_fusion_producer(f, value);
    return is(f, *affine, &gap_op_affine) && gap_fusion_only_reader(f, value) == reader && f->list->op[*affine].n_in == 2 &&
           affine_of(f, *affine)->act == GAP_ACT_NONE;
}

gap_status gap_fuse_join(gap_fusion *f) {
    for (int k = 0; k < f->list->n_ops; k++) {
        int main_op, other_op;
        gap_op *add = &f->list->op[k];
        if (add->def != &gap_op_add || add->in[0] == add->in[1] || add->in_desc[0].layout != GAP_BLOCKED) continue;
        int a = add->in[1], b = add->in[0]; /* the branch stands second as a rule, or first: whichever is an affine */
        if (!bare_affine(f, a, k, &main_op)) a = add->in[0], b = add->in[1];
        if (!bare_affine(f, a, k, &main_op)) continue;
        const int x = f->list->op[main_op].in[GAP_AFFINE_X];
        if (x == b) continue; /* one value in two places: its two gradients would be written over each other */
        gap_op joined = f->list->op[main_op];
        joined.layer = add->layer, joined.layer_id = add->layer_id, joined.n_in = 3;
        joined.backward_needs = GAP_NEED_IN0 | GAP_NEED_IN1;
        set_in(f, &joined, GAP_AFFINE_RESIDUAL, b);
        const bool both = bare_affine(f, b, k, &other_op) && f->list->op[other_op].in[GAP_AFFINE_X] != x;
        if (both) {
            joined.n_in = 4, joined.backward_needs |= GAP_NEED_IN2 | GAP_NEED_IN3;
            set_in(f, &joined, GAP_AFFINE_RESIDUAL, f->list->op[other_op].in[GAP_AFFINE_X]);
            set_in(f, &joined, GAP_AFFINE_RESIDUAL_TABLE, f->list->op[other_op].in[GAP_AFFINE_TABLE]);
        }
        set_out(f, &joined, 0, add->out[0]);
        *add = joined;
        if (both && other_op > main_op) drop(f, other_op);
        drop(f, main_op);
        if (both && other_op < main_op) drop(f, other_op);
        k -= both ? 2 : 1;
    }
    return GAP_OK;
}

gap_status gap_fuse_act(gap_fusion *f) {
    for (int k = 0; k < f->list->n_ops; k++) {
        gap_op *op = &f->list->op[k];
        gap_act act;
        float arg;
        if (op->def != &gap_op_affine || affine_of(f, k)->act != GAP_ACT_NONE) continue;
        const int next = gap_fusion_only_reader(f, op->out[0]);
        if (next < 0 || !gap_op_is_act(&f->list->op[next], &act, &arg) || !keeps_padding(act, &op->out_desc[0])) continue;
        const bool joined = op->n_in > 2;
        if (joined && !gap_act_from_output(act)) continue; /* backward has the output alone to tell the mask from */
        affine_of(f, k)->act = act, affine_of(f, k)->act_arg = arg;
        if (joined) op->backward_needs |= GAP_NEED_OUT;
        set_out(f, op, 0, f->list->op[next].out[0]);
        drop(f, next);
    }
    return GAP_OK;
}

/* A convolution of ours (not OpenBLAS's), which takes prologues and epilogues. */
static bool fusible_conv(const gap_fusion *f, int op) { return is(f, op, &gap_op_conv) && f->env->kernels->blas == NULL; }

/* The affine that uses x with this table, as its input or its residual; and that nobody else reads x but `moments`. */
static int affine_user(const gap_fusion *f, int x, int table, int moments, bool *as_residual) {
    int user = -1, n = 0, ignored;
    for (int k = 0; k < f->list->n_ops; k++) {
        const gap_op *op = &f->list->op[k];
        if (op->def != &gap_op_affine || k == moments) continue;
        if (op->in[GAP_AFFINE_X] == x && op->in[GAP_AFFINE_TABLE] == table) user = k, n++, *as_residual = false;
        if (op->n_in == 4 && op->in[GAP_AFFINE_RESIDUAL] == x && op->in[GAP_AFFINE_RESIDUAL_TABLE] == table) user = k, n++, *as_residual = true;
    }
    return n == 1 && readers(f, x, &ignored) == 2 && readers(f, table, &ignored) == 1 ? user : -1;
}

gap_status gap_fuse_bn_sums(gap_fusion *f) {
    for (int k = 0; k < f->list->n_ops; k++) {
        const gap_op *moments = &f->list->op[k];
        if (moments->def != &gap_op_moments) continue;
        const int x = moments->in[0], sums = moments->out[0], maker = gap_fusion_producer(f, x), norm = gap_fusion_only_reader(f, sums);
        if (!fusible_conv(f, maker) || !is(f, norm, &gap_op_norm)) continue;
        gap_op *conv = &f->list->op[maker];
        bool as_residual = false;
        if (conv->n_out != 1 || !f->env->trainable[conv->weight[0]]) continue; /* a frozen one needs no gradient to be read */
        const int user = affine_user(f, x, f->list->op[norm].out[0], k, &as_residual);
        if (user < 0) continue;
        GAP_ATTR(conv, gap_conv_attr)->fuse.sums = true;
        conv->weight[GAP_CONV_NORM + GAP_NORM_RUNNING_MEAN] = moments->weight[0];
        conv->n_weights = GAP_CONV_NORM + GAP_NORM_WEIGHTS;
        conv->backward_needs |= GAP_NEED_OUT;
        conv->n_out = 2;
        set_out(f, conv, 1, sums);
        if (as_residual) affine_of(f, user)->residual_lazy = true;
        else affine_of(f, user)->lazy = true;
        gap_op *affine = &f->list->op[user];
        const gap_affine_attr *a = affine_of(f, user);
        if (a->lazy && affine->n_in > 2 && (affine->n_in == 3 || a->residual_lazy)) affine->gradient_inplace |= GAP_NEED_IN2;
        drop(f, k--);
    }
    return GAP_OK;
}

gap_status gap_fuse_bn_apply(gap_fusion *f) {
    for (int k = 0; k < f->list->n_ops; k++) {
        const gap_op *affine = &f->list->op[k];
        const gap_affine_attr a = *affine_of(f, k);
        if (affine->def != &gap_op_affine || affine->n_in != 2 || !a.lazy) continue;
        const int next = gap_fusion_only_reader(f, affine->out[0]);
        if (!fusible_conv(f, next)) continue;
        gap_op *conv = &f->list->op[next];
        gap_conv_fuse *fuse = &GAP_ATTR(conv, gap_conv_attr)->fuse;
        fuse->apply = true, fuse->act = a.act, fuse->act_arg = a.act_arg;
        set_in(f, conv, 0, affine->in[GAP_AFFINE_X]);
        set_in(f, conv, 1, affine->in[GAP_AFFINE_TABLE]);
        conv->n_in = 2;
        conv->backward_needs |= GAP_NEED_IN0 | GAP_NEED_IN1;
        drop(f, k--);
    }
    return GAP_OK;
}

/* In training the gated value must be one that learns, and its other readers must stand before the convolution: then that
 * writes its gradient first. */
static bool may_gate(gap_fusion *f, int x, int conv) {
    if (!f->list->training) return true;
    for (int k = conv + 1; k < f->list->n_ops; k++)
        for (int j = 0; j < f->list->op[k].n_in; j++)
            if (f->list->op[k].in[j] == x) return false;
    const int maker = gap_fusion_producer(f, x);
    return is(f, maker, &gap_op_affine) && affine_of(f, maker)->lazy;
}

gap_status gap_fuse_gate(gap_fusion *f) {
    for (int k = 0; k < f->list->n_ops; k++) {
        const gap_op *mul = &f->list->op[k];
        if (!gap_op_is_gate(mul)) continue;
        const int x = mul->in[0], gate = mul->in[1], next = gap_fusion_only_reader(f, mul->out[0]);
        if (!fusible_conv(f, next)) continue;
        gap_op *conv = &f->list->op[next];
        gap_conv_attr *a = GAP_ATTR(conv, gap_conv_attr);
        if (a->kernel[0] != 1 || a->kernel[1] != 1 || a->groups != 1 || a->fuse.apply || !may_gate(f, x, next)) continue;
        a->fuse.gate = conv->n_in++;
        set_in(f, conv, 0, x);
        set_in(f, conv, a->fuse.gate, gate);
        conv->backward_needs |= GAP_NEED_IN0 | (unsigned)GAP_NEED_IN0 << a->fuse.gate;
        drop(f, k--);
    }
    return GAP_OK;
}

/* Where backward brings a gradient, walking as it will. */
static void find_reached(const gap_fusion *f, bool *reached) {
    for (int k = 0; k < f->n_outputs; k++) reached[f->output[k]] = true;
    for (int k = f->list->n_ops - 1; k >= 0; k--) {
        const gap_op *op = &f->list->op[k];
        for (int j = 0; op->def->backward != NULL && reached[op->out[0]] && j < op->n_in; j++) reached[op->in[j]] = true;
    }
}

/* The convolution that is the first to read the affine's output, so that it writes its gradient last; or -1. */
static int last_writer(const gap_fusion *f, const gap_op *affine, const bool *reached) {
    const int z = affine->out[0];
    int reads = 0, k = 0;
    for (int j = 0; j < f->n_outputs; j++)
        if (f->output[j] == z) return -1;
    for (; k < f->list->n_ops && reads == 0; k++)
        for (int j = 0; j < f->list->op[k].n_in; j++) reads += f->list->op[k].in[j] == z;
    const int conv = k - 1;
    if (reads != 1 || !fusible_conv(f, conv) || f->list->op[conv].in[0] != z || !reached[f->list->op[conv].out[0]]) return -1;
    const gap_conv_fuse *fuse = &GAP_ATTR_CONST(&f->list->op[conv], gap_conv_attr)->fuse;
    return fuse->apply || fuse->gate > 0 ? -1 : conv;
}

/* The affine leaves its mask and its sums to the convolution. */
static void hand_over(gap_fusion *f, gap_op *affine, gap_op *conv) {
    const unsigned values = GAP_NEED_IN0 | GAP_NEED_IN2, tables = GAP_NEED_IN1 | GAP_NEED_IN3; /* of the affine */
    const int given = affine->n_in == 3 ? 2 : affine->n_in; /* a shortcut without a table is in the output */
    gap_affine_attr *a = GAP_ATTR(affine, gap_affine_attr);
    gap_conv_fuse *fuse = &GAP_ATTR(conv, gap_conv_attr)->fuse;
    fuse->join = conv->n_in, fuse->act = a->act, fuse->act_arg = a->act_arg;
    fuse->join_out = affine->n_in > 2 && a->act != GAP_ACT_NONE;
    for (int j = 0; j < given; j++) set_in(f, conv, conv->n_in++, affine->in[j]);
    conv->no_gradient |= (values & ((1u << given) - 1)) << fuse->join;
    conv->backward_needs |= GAP_NEED_IN0 | ((1u << given) - 1) << fuse->join;
    a->masked = true;
    affine->no_gradient |= tables;
    affine->backward_needs = 0;
}

gap_status gap_fuse_join_back(gap_fusion *f) {
    gap_status st = GAP_OK;
    bool *reached = NULL; /* (n_values) */
    if (!f->list->training) return GAP_OK;
    GAP_TRY(GAP_NEW_ARRAY(reached, f->list->n_values));
    find_reached(f, reached);
    for (int k = 0; k < f->list->n_ops; k++) {
        gap_op *op = &f->list->op[k];
        if (op->def != &gap_op_affine) continue;
        const gap_affine_attr *a = affine_of(f, k);
        const bool lazy = a->lazy && (op->n_in < 4 || a->residual_lazy); /* then nothing is left but to hand g on */
        if (!lazy || (op->n_in > 2 && a->act != GAP_ACT_NONE && !gap_act_from_output(a->act))) continue;
        const int conv = last_writer(f, op, reached);
        if (conv >= 0) hand_over(f, op, &f->list->op[conv]);
    }
done:
    gap_free(reached);
    return st;
}

/* What stands behind a convolution with fixed statistics: a shortcut that is there before it, and an activation. */
static void take_behind(gap_fusion *f, int k) {
    gap_op *conv = &f->list->op[k];
    gap_conv_fuse *fuse = &GAP_ATTR(conv, gap_conv_attr)->fuse;
    int next = gap_fusion_only_reader(f, conv->out[0]);
    if (is(f, next, &gap_op_add) && f->list->op[next].in[0] != f->list->op[next].in[1]) {
        const gap_op *add = &f->list->op[next];
        const int other = add->in[add->in[0] == conv->out[0]];
        if (other != 0 && gap_fusion_producer(f, other) < k) {
            fuse->residual = conv->n_in++;
            set_in(f, conv, fuse->residual, other);
            set_out(f, conv, 0, add->out[0]);
            drop(f, next);
            next = gap_fusion_only_reader(f, conv->out[0]);
        }
    }
    gap_act act;
    float arg;
    if (next < 0 || !gap_op_is_act(&f->list->op[next], &act, &arg) || !keeps_padding(act, &conv->out_desc[0])) return;
    fuse->out_act = act, fuse->out_act_arg = arg;
    set_out(f, conv, 0, f->list->op[next].out[0]);
    drop(f, next);
}

gap_status gap_fuse_bn_fixed(gap_fusion *f) {
    if (f->list->training) return GAP_OK;
    for (int k = f->list->n_ops - 1; k >= 0; k--) { /* the later branch of a join takes the earlier one as its shortcut */
        gap_op *conv = &f->list->op[k];
        if (!fusible_conv(f, k)) continue;
        const int next = gap_fusion_only_reader(f, conv->out[0]);
        if (!is(f, next, &gap_op_affine_fixed)) continue;
        const gap_op *norm = &f->list->op[next];
        gap_conv_fuse *fuse = &GAP_ATTR(conv, gap_conv_attr)->fuse;
        fuse->fixed = true, fuse->eps = GAP_ATTR_CONST(norm, gap_norm_attr)->eps;
        for (int j = 0; j < GAP_NORM_WEIGHTS; j++) conv->weight[GAP_CONV_NORM + j] = norm->weight[j];
        conv->n_weights = GAP_CONV_NORM + GAP_NORM_WEIGHTS;
        set_out(f, conv, 0, norm->out[0]);
        drop(f, next);
        take_behind(f, k);
    }
    return GAP_OK;
}

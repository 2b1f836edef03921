#include "graph/fuse.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "graph/fuse_norm.h"
#include "ops/ops.h"

/* dead: drops ops whose outputs nobody reads. Ops that move running statistics stay, and so does what they read. */
static gap_status drop_dead(gap_fusion *f) {
    gap_oplist *list = f->list;
    bool *needed = NULL; /* (n_values) */
    gap_status st = GAP_NEW_ARRAY(needed, list->n_values);
    if (st != GAP_OK) return st;
    for (int k = 0; k < f->n_outputs; k++) needed[f->output[k]] = true;
    int kept = list->n_ops; /* ops[kept..) are the ones that stay, packed to the end while walking backwards */
    for (int k = list->n_ops - 1; k >= 0; k--) {
        gap_op *op = &list->op[k];
        bool stays = list->training && op->def->commit != NULL;
        for (int j = 0; j < op->n_out; j++) stays |= needed[op->out[j]];
        if (!stays) continue;
        for (int j = 0; j < op->n_in; j++) needed[op->in[j]] = true;
        if (--kept != k) list->op[kept] = *op;
    }
    memmove(list->op, list->op + kept, (size_t)(list->n_ops - kept) * sizeof *list->op);
    list->n_ops -= kept;
    gap_free(needed);
    return GAP_OK;
}

/* pool_act: max(relu(x)) is relu(max(x)), to the bit. So are the gradients: where another pixel wins, because several are
 * cut off at one value, that value passes none. Other activations round, and what they make equal would let the wrong one
 * win. Behind the rules that give an activation to its convolution or norm, which costs nothing at all. */
static gap_status pool_first(gap_fusion *f) {
    gap_oplist *list = f->list;
    for (int k = 0; k < list->n_ops; k++) {
        gap_act kind;
        float arg;
        if (!gap_op_is_act(&list->op[k], &kind, &arg) || (kind != GAP_ACT_RELU && kind != GAP_ACT_RELU6)) continue;
        const int p = gap_fusion_only_reader(f, list->op[k].out[0]);
        if (p < 0 || !gap_op_is_max_pool(&list->op[p])) continue;
        gap_op act = list->op[k], pool = list->op[p];
        const int x = act.in[0], between = act.out[0], y = pool.out[0];
        list->value[between] = list->value[y], list->gradient[between] = list->gradient[y];
        pool.in[0] = x, pool.in_desc[0] = list->value[x];
        pool.out[0] = act.in[0] = between, pool.out_desc[0] = act.in_desc[0] = list->value[between];
        act.out[0] = y, act.out_desc[0] = list->value[y];
        memmove(list->op + k, list->op + k + 1, (size_t)(p - 1 - k) * sizeof *list->op);
        list->op[p - 1] = pool, list->op[p] = act;
        k--; /* what took its place */
    }
    return GAP_OK;
}

/* pixels: a blocked image of three channels is mostly padding. */
static gap_status keep_pixels(gap_fusion *f) {
    gap_oplist *list = f->list;
    if (list->n_ops == 0 || list->op[0].def != &gap_op_input || f->env->kernels->blas != NULL) return GAP_OK;
    gap_op *input = &list->op[0];
    const int image = input->out[0];
    gap_desc pixels = input->out_desc[0];
    if (pixels.layout != GAP_BLOCKED || pixels.dim[0] > GAP_PIXEL_CHANNELS) return GAP_OK;
    for (int k = 0; k < f->n_outputs; k++)
        if (f->output[k] == image) return GAP_OK;
    for (int k = 1; k < list->n_ops; k++)
        for (int j = 0; j < list->op[k].n_in; j++)
            if (list->op[k].in[j] == image && (list->op[k].def != &gap_op_conv || j > 0 || !gap_conv_reads_pixels(&list->op[k]))) return GAP_OK;
    pixels.layout = GAP_NHWC, pixels.cb = 0;
    list->value[image] = list->gradient[image] = input->out_desc[0] = pixels;
    for (int k = 1; k < list->n_ops; k++)
        if (list->op[k].in[0] == image) list->op[k].in_desc[0] = pixels;
    return GAP_OK;
}

/* bytes: behind the rule above, whose readers are first convolutions. */
static gap_status read_bytes(gap_fusion *f) {
    gap_oplist *list = f->list;
    const gap_op *input = list->n_ops > 0 ? &list->op[0] : NULL;
    if (input == NULL || input->def != &gap_op_input || input->in_desc[0].dtype != GAP_U8 || input->out_desc[0].layout != GAP_NHWC) return GAP_OK;
    const gap_input_attr attr = *GAP_ATTR_CONST(input, gap_input_attr);
    const int bytes = input->in[0], pixels = input->out[0];
    for (int k = 1; k < list->n_ops; k++) {
        gap_op *conv = &list->op[k];
        if (conv->in[0] != pixels) continue;
        gap_conv_fuse *fuse = &GAP_ATTR(conv, gap_conv_attr)->fuse;
        fuse->bytes = true;
        for (int64_t c = 0; c < conv->in_desc[0].dim[0]; c++) gap_input_of_byte(&attr, c, &fuse->byte_scale[c], &fuse->byte_shift[c]);
        conv->in[0] = bytes, conv->in_desc[0] = list->value[bytes];
    }
    memmove(list->op, list->op + 1, (size_t)(list->n_ops - 1) * sizeof *list->op);
    list->n_ops--;
    return GAP_OK;
}

/* slices: a run of channel blocks of each sample; who reads it alone finds it there. */
static gap_status make_slices(gap_fusion *f) {
    gap_oplist *list = f->list;
    for (int k = 0; k < list->n_ops && f->env->kernels->blas == NULL; k++) {
        gap_op *concat = &list->op[k];
        for (int j = 0; gap_op_is_concat(concat) && j < concat->n_in; j++) {
            const int v = concat->in[j], maker = gap_fusion_producer(f, v);
            if (maker < 0 || !list->op[maker].def->slices || list->op[maker].n_out != 1 || gap_fusion_only_reader(f, v) != k) continue;
            if (!gap_concat_make_slice(concat, j)) continue;
            list->value[v].skip = list->gradient[v].skip = list->op[maker].out_desc[0].skip = concat->in_desc[j].skip;
        }
    }
    return GAP_OK;
}

static const struct {
    const char *name;
    gap_status (*rewrite)(gap_fusion *f); /* NULL: followed elsewhere */
} table[GAP_RULE_COUNT] = {
    [GAP_RULE_DEAD] = {"dead", drop_dead},
    [GAP_RULE_JOIN] = {"join", gap_fuse_join},
    [GAP_RULE_ACT] = {"act", gap_fuse_act},
    [GAP_RULE_BN_SUMS] = {"bn_sums", gap_fuse_bn_sums},
    [GAP_RULE_BN_APPLY] = {"bn_apply", gap_fuse_bn_apply},
    [GAP_RULE_GATE] = {"gate", gap_fuse_gate},
    [GAP_RULE_JOIN_BACK] = {"join_back", gap_fuse_join_back},
    [GAP_RULE_BN_FIXED] = {"bn_fixed", gap_fuse_bn_fixed},
    [GAP_RULE_POOL_ACT] = {"pool_act", pool_first},
    [GAP_RULE_PIXELS] = {"pixels", keep_pixels},
    [GAP_RULE_BYTES] = {"bytes", read_bytes},
    [GAP_RULE_SLICES] = {"slices", make_slices},
    [GAP_RULE_INPLACE] = {"inplace", NULL},
    [GAP_RULE_SHARE] = {"share", NULL},
};

static unsigned bit_of(const char *name, size_t n) {
    if (n == 3 && strncmp(name, "all", n) == 0) return ~0u;
    for (int k = 0; k < GAP_RULE_COUNT; k++)
        if (strlen(table[k].name) == n && strncmp(table[k].name, name, n) == 0) return 1u << k;
    return 0;
}

static gap_status no_such_rule(const char *name, size_t n) {
    char have[192] = "";
    for (int k = 0; k < GAP_RULE_COUNT; k++) strcat(strcat(have, " -"), table[k].name);
    return gap_fail(GAP_ERR_VALUE, "GAPLESS_FUSE: '%.*s' is none of:%s -all", (int)n, name, have);
}

gap_status gap_fuse_rules(unsigned *rules) {
    const char *text = getenv("GAPLESS_FUSE");
    *rules = ~0u;
    for (text = text != NULL ? text : ""; *text;) {
        size_t n = strcspn(text, ", ");
        unsigned bit = text[0] == '-' ? bit_of(text + 1, n - 1) : 0;
        if (n > 0 && bit == 0) return no_such_rule(text, n);
        *rules &= ~bit;
        text += n + (text[n] != '\0');
    }
    return GAP_OK;
}

gap_status gap_fuse(gap_oplist *list, int *output, int n_outputs, const gap_op_env *env, unsigned rules) {
    gap_fusion f = {list, output, n_outputs, env};
    gap_status st = GAP_OK;
    for (int k = 0; st == GAP_OK && k < GAP_RULE_COUNT; k++)
        if ((rules >> k & 1) && table[k].rewrite != NULL) st = table[k].rewrite(&f);
    return st;
}

#include "graph/fuse.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

typedef struct {
    const char *name;
    gap_status (*apply)(gap_oplist *list, int *output, int n_outputs);
} rule;

/* dead: drops ops whose outputs nobody reads. Ops that move running statistics stay, and so does what they read. */
static gap_status drop_dead(gap_oplist *list, int *output, int n_outputs) {
    bool *needed = NULL; /* (n_values) */
    gap_status st = GAP_NEW_ARRAY(needed, list->n_values);
    if (st != GAP_OK) return st;
    for (int k = 0; k < n_outputs; k++) needed[output[k]] = true;
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

static const rule rules[] = {
    {"dead", drop_dead},
};

static unsigned bit_of(const char *name, size_t n) {
    if (n == 3 && strncmp(name, "all", n) == 0) return ~0u;
    for (int k = 0; k < GAP_COUNTOF(rules); k++)
        if (strlen(rules[k].name) == n && strncmp(rules[k].name, name, n) == 0) return 1u << k;
    return 0;
}

/* GAPLESS_FUSE -> a bit per rule that is left out. */
static gap_status left_out(unsigned *mask) {
    const char *text = getenv("GAPLESS_FUSE");
    *mask = 0;
    for (text = text != NULL ? text : ""; *text;) {
        size_t n = strcspn(text, ", ");
        unsigned bit = text[0] == '-' ? bit_of(text + 1, n - 1) : 0;
        if (n > 0 && bit == 0) return gap_fail(GAP_ERR_VALUE, "GAPLESS_FUSE: '%.*s' is none of: -dead, -all", (int)n, text);
        *mask |= bit;
        text += n + (text[n] != '\0');
    }
    return GAP_OK;
}

gap_status gap_fuse(gap_oplist *list, int *output, int n_outputs) {
    unsigned mask;
    gap_status st = left_out(&mask);
    for (int k = 0; st == GAP_OK && k < GAP_COUNTOF(rules); k++)
        if (!(mask >> k & 1)) st = rules[k].apply(list, output, n_outputs);
    return st;
}

/* store.h — the one store of weights: flat fp32 planes in torch's order, owned by the net.
 *
 * Entries are laid out one after the other, each starting at a multiple of 16 floats. Planes have the same layout:
 * MASTER (weights and buffers), EMA, and the optimizer's slots. Plans borrow the store; everything packed is derived
 * and rebuilt when `version` moves.
 */
#ifndef GAP_GRAPH_STORE_H
#define GAP_GRAPH_STORE_H

#include "core/buffer.h"
#include "layers/layer.h"

typedef enum { GAP_PLANE_MASTER, GAP_PLANE_EMA, GAP_PLANE_SLOT0, GAP_PLANE_COUNT = GAP_PLANE_SLOT0 + 4 } gap_plane;

typedef struct {
    char *name;              /* "layer1.0.conv1.weight" */
    int layer;               /* index of the layer that declared it */
    gap_weight_decl decl;    /* decl.suffix points into the row */
    size_t offset, count;    /* in floats */
    bool trainable;          /* params only; false: frozen */
    int group;               /* hyper-parameter group, 0 by default */
    int64_t updates;         /* updates this weight has had */
} gap_entry;

typedef struct gap_store {
    int n_layers, cap_layers;
    char **layer_name;
    int n_entries, cap_entries;
    gap_entry *entry;
    size_t floats;
    gap_buf *plane[GAP_PLANE_COUNT];  /* NULL: not made yet */
    uint64_t version;                 /* moves at every write to MASTER */
} gap_store;

GAP_MUST_USE gap_status gap_store_new(gap_store **out);
void gap_store_free(gap_store *s);
/* Adds a layer's weights in order; a layer of that name must not be there yet. Not after gap_store_seal. */
GAP_MUST_USE gap_status gap_store_add(gap_store *s, const char *layer, const gap_layer_def *def, const gap_value *cfg);
/* Allocates MASTER; no adding after it. */
GAP_MUST_USE gap_status gap_store_seal(gap_store *s);
GAP_MUST_USE gap_status gap_store_plane(gap_store *s, gap_plane p, float **out); /* makes a zeroed plane at first use */
int gap_store_find(const gap_store *s, const char *name);  /* entry, or -1 */
int gap_store_find_layer(const gap_store *s, const char *layer); /* first entry of the layer, or -1 */
float *gap_store_data(const gap_store *s, gap_plane p, int entry); /* NULL when the plane was not made */
/* Replaces an entry's init rule (models that ask for Kaiming). */
GAP_MUST_USE gap_status gap_store_set_init(gap_store *s, int entry, gap_init_kind kind, double arg);
/* Fills MASTER by the entries' init rules: draws at (seed, GAP_STREAM_INIT, epoch 0, sample 0, op = FNV-1a of the entry's
 * name, element / 4); the same numbers on every machine. Clears the other planes and update counts; moves the version. */
GAP_MUST_USE gap_status gap_store_init(gap_store *s, uint64_t seed);

#endif

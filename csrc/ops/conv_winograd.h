/* conv_winograd.h — 3x3 convolutions at stride 1 by Winograd's tiles (kernels/winograd.h): forward, gradient of the input,
 * gradient of the weights.
 *
 * A gap_wino is one pass, computed from shape and precision; capacity only decides how work is cut. Results of a pass depend on
 * shape and m alone: an image's output not on its batch, nothing on the number of threads. The weights' gradient: partial sums
 * of ranges of images (gap_reduce_chunks over 9 * channels * channels floats), each brought back to 3x3 and then added in order;
 * within a range chains of about WINO_SEGMENT tiles (whole images, or tile rows of one) in the transformed domain, added in
 * order.
 *
 * A plane that the tiles do not divide has tiles of fewer outputs in its last column, its last row and the corner of both. Those take
 * part in the products of their own points only (kernels/winograd.h): 484 products in place of 576 for 14 x 14 outputs, 121 in place
 * of 144 for 7 x 7. The arrays of a position hold four parts of the tiles that go together, one after another: last column, whole
 * tiles, last row, corner, each of all images; so those that take part in any one position lie together.
 *
 * Errors against float64, largest over largest and root mean square over root mean square (tests/c/bench_winograd.c, uniform
 * data, 16 images), forward and the gradient of the weights; the gradient of the input is as forward:
 *   channels @ map   direct                          F(2x2)                          F(4x4)
 *    64 @ 32         3.7e-7 2.2e-7   2.2e-7 2.3e-7   3.2e-7 2.7e-7   3.2e-7 2.7e-7   1.3e-6 8.1e-7   9.2e-7 8.1e-7
 *   128 @ 16         2.6e-7 2.2e-7   1.9e-7 2.1e-7   3.4e-7 3.6e-7   2.7e-7 2.6e-7   1.7e-6 1.1e-6   6.1e-7 6.3e-7
 *   256 @  8         2.9e-7 2.2e-7   2.0e-7 2.1e-7   4.1e-7 3.7e-7   3.0e-7 2.9e-7   1.8e-6 1.2e-6   7.9e-7 8.5e-7
 *   512 @  4         2.8e-7 2.1e-7   2.6e-7 1.6e-7   4.0e-7 3.8e-7   4.0e-7 2.6e-7   1.7e-6 1.3e-6   7.5e-7 5.9e-7
 *   256 @ 14         2.8e-7 2.2e-7   3.0e-7 2.0e-7   4.9e-7 3.6e-7   2.9e-7 2.6e-7   1.5e-6 1.0e-6   8.3e-7 7.1e-7
 *   512 @  7         3.2e-7 2.3e-7   2.0e-7 1.7e-7   3.5e-7 3.6e-7   2.9e-7 2.4e-7   1.6e-6 1.0e-6   7.6e-7 7.8e-7
 * So `precise` takes F(2x2), which errs little more than the direct kernels, and `fast` takes F(4x4), or F(2x2) where that needs no
 * more products.
 */
#ifndef GAP_OPS_CONV_WINOGRAD_H
#define GAP_OPS_CONV_WINOGRAD_H

#include "kernels/winograd.h"
#include "ops/ops.h"
#include "ops/source.h"

#define WINO_SEGMENT 64 /* tiles of a chain of the weights' gradient */

typedef enum { GAP_WINO_NONE = 0, GAP_WINO_2 = 2, GAP_WINO_4 = 4 } gap_wino_tile;

typedef struct {
    int m, n_pos;                                 /* outputs of a tile's side; positions of a transformed tile */
    bool backward;                                /* the gradient of the input */
    int64_t capacity;
    int64_t in_c, in_h, in_w, in_blocks, out_c, out_h, out_w, out_blocks;
    int64_t pad[2];                               /* of this pass: may be negative backward */
    int64_t tiles_h, tiles_w;                     /* of the output plane */
    int64_t piece_rows, pieces;                   /* gap_piece_rows of the output plane */
    /* how the work is cut */
    int64_t images, unit_pieces, bands, parts;    /* of a unit: images, pieces of a plane; units across a plane, across output blocks */
    int64_t col_tiles;                            /* tile columns that go together */
    int64_t tiles;                                /* most tiles that go together */
    int64_t group;                                /* output blocks that go together */
    int64_t plane_row;                            /* floats of a row of the padded plane */
    int64_t v_pos, p_pos, u_pos;                  /* floats between positions */
    size_t plane_bytes, v_bytes, p_bytes;       /* of a slot */
} gap_wino;

typedef enum { WINO_COLUMN, WINO_WHOLE, WINO_ROW, WINO_CORNER, WINO_PARTS } gap_wino_part;

/* Tiles that go together: the same of some images. */
typedef struct {
    int m;
    int64_t tiles;                                /* of all images */
    struct {
        int64_t row, col, rows, cols, tiles;      /* of an image; tiles may be 0 */
        int64_t first;                            /* tile in the arrays */
        int points[2];                            /* of a tile, down and across */
    } part[WINO_PARTS];
} gap_wino_grid;

/* Tile rows [r0, r1) and tile columns [c0, c1) of the output plane. */
void gap_wino_grid_of(gap_wino_grid *g, const gap_wino *w, int64_t images, int64_t r0, int64_t r1, int64_t c0, int64_t c1);
/* How many tiles take part in a position, from *first on. */
int64_t gap_wino_grid_at(const gap_wino_grid *g, int pos, int64_t *first);
/* All tiles of image i through kernel `input` or `spread`, from its padded plane to one block of v. */
void gap_wino_grid_transform(const gap_wino_grid *g, void (*transform)(const gap_wino_tiles *), const float *plane, int64_t plane_row, int64_t i,
                             float *v, int64_t v_pos);

/* Is it worthwhile, and with which tiles: by shape and precision alone. */
bool gap_wino_fits(const gap_op *op, gap_precision precision, gap_wino_tile *which);
void gap_wino_plan(gap_wino *w, const gap_op *op, bool backward, int m, int64_t capacity);

/* What derive makes of the weights (OIHW) for this pass; bias: of forward, or NULL. */
size_t gap_wino_derived_bytes(const gap_wino *w);
gap_status gap_wino_derive(const gap_wino *w, const float *weight, const float *bias, void *derived, const gap_op_ctx *ctx);

/* out = (or +=) the pass of in, in ctx->workspace. */
size_t gap_wino_workspace_bytes(const gap_wino *w, int slots);
gap_status gap_wino_run(const gap_wino *w, const gap_op_ctx *ctx, const void *derived, const gap_source *in, const gap_sink *out,
                        bool has_bias, int slots);

/* dw (OIHW) = (or +=) the gradient of the weights, from forward's input and the gradient of its output. */
size_t gap_wino_grad_bytes(const gap_wino *forward, int slots);
gap_status gap_wino_grad(const gap_wino *forward, const gap_op_ctx *ctx, const gap_source *x, const gap_source *dy, float *dw, bool add,
                         int slots);

#endif

/* winograd.h — the Winograd family: 3x3 convolutions at stride 1 by tiles of m x m outputs, m = 4 or 2. Portable contract:
 *
 * A tile of (m+2) x (m+2) inputs meets the 3x3 weights in N = (m+2)^2 products for m*m outputs, in place of 9*m*m:
 *     y = A' [ sum over channels of (G g G') * (B' x B) ] A            forward, and the input's gradient
 *     g = G' [ sum over tiles of (B' x B) * (A y A') ] G               the gradient of the weights
 * Points of m = 4: 0, +-a, +-b, infinity with a = sqrt(1/2), b = sqrt(2). They cost as much as the usual 0, +-1, +-2 and err a
 * fourth as much: 1.3e-6 of the largest output at 64 channels in place of 6.1e-6; 0, +-1, 1/2, -2 came to 2.5e-6, 0, +-3/4, +-3/2 to 2.0e-6.
 * Points of m = 2: 0, +-1, infinity. Errors by layer stand in ops/conv_winograd.h.
 *
 * Order of every transform: along columns (over rows) first, then along rows; in one dimension, with fma(x, y, z) = x*y + z and
 * fnma(x, y, z) = z - x*y rounded once:
 *   B' (m = 4)  e = fnma(2, x2, x4), t = fnma(2, x1, x3), f = fnma(1/2, x2, x4), s = fnma(1/2, x1, x3)
 *               fnma(5/2, x2, x0 + x4), fma(a, t, e), fnma(a, t, e), fma(b, s, f), fnma(b, s, f), fnma(5/2, x3, x1 + x5)
 *   B' (m = 2)  x0 - x2, x1 + x2, x2 - x1, x1 - x3
 *   G  (m = 4)  e = -2/3 * fma(1/2, g2, g0), f = 1/6 * fma(2, g2, g0)
 *               g0, fma(-2/3*a, g1, e), fnma(-2/3*a, g1, e), fma(b/6, g1, f), fnma(b/6, g1, f), g2
 *   G  (m = 2)  e = 1/2 * (g0 + g2);  g0, fma(1/2, g1, e), fnma(1/2, g1, e), g2
 *   A' (m = 4)  s = p1 + p2, d = p1 - p2, t = p3 + p4, u = p3 - p4
 *               (p0 + s) + t, a * fma(2, u, d), fma(2, t, 1/2 * s), fma(2b, u, fma(a/2, d, p5))
 *   A' (m = 2)  p0 + (p1 + p2), (p1 - p2) - p3
 *   A  (m = 4)  e = fma(1/2, y2, y0), o = fma(1/2, y3, y1), f = fma(2, y2, y0), q = fma(2, y3, y1)
 *               y0, fma(a, o, e), fnma(a, o, e), fma(b, q, f), fnma(b, q, f), y3
 *   A  (m = 2)  y0, y0 + y1, y0 - y1, 0 - y1
 *   G' (m = 4)  s, d, t, u as in A';  fma(1/6, t, fma(-2/3, s, p0)), fma(b/6, u, -2/3*a * d), fma(1/3, t, fma(-1/3, s, p5))
 *   G' (m = 2)  s = p1 + p2, d = p1 - p2;  fma(1/2, s, p0), 1/2 * d, fma(1/2, s, p3)
 *
 * A tile at the plane's edge has e < m outputs in a direction and needs e + 2 points there, no more. They are some of the m + 2, so
 * weights and their gradient stay as they are: all but infinity for e = m - 1; 0, +-a, infinity for e = 2 of m = 4, 0, +-a for e = 1.
 * The others' positions are neither read nor written. For e = m - 1 the transforms above hold, their last input 0; for m = 4, e <= 2:
 *   B'  fnma(2, x2, x0), -3/2 * fma(a, x1, x2), -3/2 * fnma(a, x1, x2), -, -, fnma(1/2, x1, x3)
 *   A'  s, d as above;  p0 + s, fma(a, d, p5)
 *   A   y0, fma(a, y1, y0), fnma(a, y1, y0), -, -, y1
 *
 * Constants are rounded to float once. Sums over channels are chains of GAP_WINO_CHAIN terms, each from 0, added in order;
 * sums over tiles are the caller's chains, likewise.
 *
 * Lanes are channels; a vector is 16 floats; strides are in floats; pointers need 4-byte alignment. Position (i, j) of a transformed
 * tile is array i*(m+2) + j, `*_pos` floats after the one before. Tiles of a grid are numbered by rows. No function allocates,
 * fails or starts threads.
 */
#ifndef GAP_KERNELS_WINOGRAD_H
#define GAP_KERNELS_WINOGRAD_H

#include <stdbool.h>
#include <stdint.h>

#define GAP_WINO_CHAIN 128 /* input channels of a chain */

/* Has a tile of `points` points in a direction the k-th of m + 2? */
static inline bool gap_wino_has(int m, int points, int k) { return k < 3 || (k <= m ? points > 4 : points % 2 == 0); }

/* v[pos][tile] = B' x B; tile (r, c) of rows x cols begins at pixel (r*m, c*m) of x. Also A x A', of its outputs (kernel `spread`).
 * A tile has points[0] - 2 rows of points[1] - 2 outputs; of inputs 2 more each. */
typedef struct {
    int m, points[2];
    const float *x;
    int64_t x_row, rows, cols;
    float *v;
    int64_t v_pos;
} gap_wino_tiles;

/* u[pos][k] = G w G' for `channels` kernels of 3x3: w (channels, 9, 16). */
typedef struct {
    int m;
    const float *w;
    int64_t channels;
    float *u;
    int64_t u_pos;
} gap_wino_weights;

/* One chain at one position: p[b][t] = or += sum over k < channels of v[k/16][t][k%16] * u[b][k]. */
typedef struct {
    const float *v;              /* (blocks, tiles, 16) */
    int64_t v_block;
    const float *u;              /* (oc_blocks, channels, 16) */
    int64_t u_oc;
    const float *next;           /* the u of the call after this one, to be fetched meanwhile; or NULL */
    float *p;                    /* (oc_blocks, tiles, 16) */
    int64_t p_oc, tiles;
    int channels, oc_blocks;
    bool keep;                   /* adds to what p holds */
} gap_wino_product;

/* y = A' p A + bias, or y + that; tiles as in gap_wino_tiles. */
typedef struct {
    int m, points[2];
    const float *p;
    int64_t p_pos, rows, cols;
    float *y;
    int64_t y_row;
    const float *bias;           /* (16); NULL: 0 */
    bool add;
} gap_wino_output;

/* One chain at one position: g[i][b][k] = or += sum over tiles t in order of v[i][t][k] * z[b][t], k < channels of all blocks i. */
typedef struct {
    const float *v;              /* (in blocks, tiles, 16) */
    int64_t v_block;
    const float *z;              /* (oc_blocks, tiles, 16) */
    int64_t z_oc;
    float *g;                    /* (in blocks, oc_blocks, 16, 16) */
    int64_t g_block, g_oc, tiles;
    int channels, oc_blocks;
    bool keep;
} gap_wino_gram;

/* w[t][k] = G' g G, t < 9, for k < channels <= 16. */
typedef struct {
    int m;
    const float *g;
    int64_t g_pos;
    int channels;
    float *w;                    /* (9, 16, 16) */
} gap_wino_taps;

typedef struct {
    void (*input)(const gap_wino_tiles *t);
    void (*spread)(const gap_wino_tiles *t);
    void (*weights)(const gap_wino_weights *w);
    void (*product)(const gap_wino_product *p);
    void (*output)(const gap_wino_output *o);
    void (*gram)(const gap_wino_gram *g);
    void (*taps)(const gap_wino_taps *t);
} gap_winograd_kernels;

#endif

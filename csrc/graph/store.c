#include "graph/store.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "core/rng.h"
#include "core/shape.h"
#include "core/threads.h"

#define ENTRY_ALIGN 16 /* floats: an entry starts on a cache line in every plane */

gap_status gap_store_new(gap_store **out) {
    gap_status st = GAP_OK;
    gap_store *s = NULL;
    GAP_TRY(GAP_NEW(s));
    *out = s;
done:
    return st;
}

void gap_store_free(gap_store *s) {
    if (s == NULL) return;
    for (int k = 0; k < s->n_layers; k++) gap_free(s->layer_name[k]);
    for (int k = 0; k < s->n_entries; k++) gap_free(s->entry[k].name);
    for (int p = 0; p < GAP_PLANE_COUNT; p++) gap_buf_unref(&s->plane[p]);
    gap_free(s->layer_name);
    gap_free(s->entry);
    gap_free(s);
}

static gap_status reserve(void *array, int *cap, int need, size_t size) {
    if (need <= *cap) return GAP_OK;
    int grown = *cap < 16 ? 16 : *cap * 2;
    if (grown < need) grown = need;
    gap_status st = gap_grow(array, (size_t)*cap, (size_t)grown, size);
    if (st == GAP_OK) *cap = grown;
    return st;
}

static gap_status count_of(const gap_weight_decl *d, size_t *out) {
    int64_t n = 1;
    for (int k = 0; k < d->ndim; k++) {
        gap_status st = gap_size_mul(&n, n, d->dim[k]);
        if (st != GAP_OK) return st;
    }
    *out = (size_t)n;
    return GAP_OK;
}

/* Appends one entry; the caller has made room, so only the name is allocated. */
static gap_status append(gap_store *s, const char *layer, const gap_weight_decl *decl) {
    gap_entry e = {.layer = s->n_layers, .decl = *decl, .offset = s->floats};
    gap_status st = count_of(decl, &e.count);
    if (st != GAP_OK) return st;
    if (e.count > (SIZE_MAX / 16 - s->floats))
        return gap_fail(GAP_ERR_MEMORY, "%s.%s: more weights than can be addressed", layer, decl->suffix);
    size_t bytes = strlen(layer) + strlen(decl->suffix) + 2;
    st = gap_alloc(&e.name, bytes, 1);
    if (st != GAP_OK) return st;
    strcat(strcat(strcpy(e.name, layer), layer[0] ? "." : ""), decl->suffix);
    e.trainable = decl->kind == GAP_WEIGHT_PARAM;
    s->entry[s->n_entries++] = e;
    s->floats += (e.count + ENTRY_ALIGN - 1) / ENTRY_ALIGN * ENTRY_ALIGN;
    return GAP_OK;
}

/* Takes the last entries away until `n` are left: an add that failed leaves nothing. */
static void cut_to(gap_store *s, int n, size_t floats) {
    while (s->n_entries > n) gap_free(s->entry[--s->n_entries].name);
    s->floats = floats;
}

gap_status gap_store_add(gap_store *s, const char *layer, const gap_layer_def *def, const gap_value *cfg) {
    gap_status st = GAP_OK;
    gap_weight_decl decl[GAP_LAYER_MAX_WEIGHTS];
    int n = 0, n_before = s->n_entries;
    size_t floats_before = s->floats;
    char *name = NULL;
    if (s->plane[GAP_PLANE_MASTER] != NULL)
        return gap_fail(GAP_ERR_VALUE, "store: layer %s comes too late, the store is sealed", layer);
    for (int k = 0; k < s->n_layers; k++)
        if (strcmp(s->layer_name[k], layer) == 0) return gap_fail(GAP_ERR_VALUE, "store: there is a layer %s already", layer);
    GAP_TRY(gap_config_check(def->name, def->params, def->n_params, cfg));
    if (def->weights != NULL) GAP_TRY(def->weights(cfg, decl, &n));
    GAP_TRY(reserve(&s->layer_name, &s->cap_layers, s->n_layers + 1, sizeof *s->layer_name));
    GAP_TRY(reserve(&s->entry, &s->cap_entries, s->n_entries + n, sizeof *s->entry));
    GAP_TRY(gap_strdup(&name, layer));
    for (int k = 0; k < n; k++) GAP_TRY(append(s, layer, &decl[k]));
    s->layer_name[s->n_layers++] = name, name = NULL;
done:
    gap_free(name);
    if (st == GAP_OK) return GAP_OK;
    cut_to(s, n_before, floats_before);
    return gap_fail_in(st, "%s", layer);
}

gap_status gap_store_seal(gap_store *s) {
    float *master;
    if (s->plane[GAP_PLANE_MASTER] != NULL) return GAP_OK;
    gap_status st = gap_store_plane(s, GAP_PLANE_MASTER, &master);
    if (st == GAP_OK) s->version++;
    return st;
}

gap_status gap_store_plane(gap_store *s, gap_plane p, float **out) {
    if ((int)p < 0 || p >= GAP_PLANE_COUNT) return gap_fail(GAP_ERR_VALUE, "store: no plane %d", (int)p);
    if (p != GAP_PLANE_MASTER && s->plane[GAP_PLANE_MASTER] == NULL)
        return gap_fail(GAP_ERR_VALUE, "store: must be sealed before other planes are made");
    if (s->plane[p] == NULL) {
        gap_status st = gap_buf_new(&s->plane[p], s->floats * sizeof(float));
        if (st != GAP_OK) return st;
    }
    *out = gap_buf_data(s->plane[p]);
    return GAP_OK;
}

int gap_store_find(const gap_store *s, const char *name) {
    for (int k = 0; k < s->n_entries; k++)
        if (strcmp(s->entry[k].name, name) == 0) return k;
    return -1;
}

int gap_store_find_layer(const gap_store *s, const char *layer) {
    for (int k = 0; k < s->n_entries; k++)
        if (strcmp(s->layer_name[s->entry[k].layer], layer) == 0) return k;
    return -1;
}

float *gap_store_data(const gap_store *s, gap_plane p, int entry) {
    if ((int)p < 0 || p >= GAP_PLANE_COUNT || s->plane[p] == NULL || entry < 0 || entry >= s->n_entries) return NULL;
    float *base = gap_buf_data(s->plane[p]);
    return base + s->entry[entry].offset;
}

gap_status gap_store_set_init(gap_store *s, int entry, gap_init_kind kind, double arg) {
    if (entry < 0 || entry >= s->n_entries) return gap_fail(GAP_ERR_VALUE, "store: no entry %d", entry);
    if (kind < GAP_INIT_ZERO || kind > GAP_INIT_NORMAL) return gap_fail(GAP_ERR_VALUE, "store: no init rule %d", (int)kind);
    if (!isfinite(arg) || arg < 0 || arg > (double)FLT_MAX)
        return gap_fail(GAP_ERR_VALUE, "store: init argument of %s must be >= 0, got %g", s->entry[entry].name, arg);
    s->entry[entry].decl.init = kind;
    s->entry[entry].decl.init_arg = arg;
    return GAP_OK;
}

/* ---- initial values: only + - * / and sqrt in double, so that no machine's libm has a say ---- */

static uint32_t fnv1a(const char *text) {
    uint32_t h = 2166136261u;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 16777619u;
    return h;
}

/* ln(x), x > 0 and normal: x = m * 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m - 1) / (m + 1)) by its series. */
static double log_portable(double x) {
    const double ln2 = 0.693147180559945309417;
    int e;
    double m = frexp(x, &e);
    if (m < 0.707106781186547524) m *= 2, e--;
    double t = (m - 1) / (m + 1), t2 = t * t, sum = 0;
    for (int k = 25; k >= 1; k -= 2) sum = sum * t2 + 1.0 / k;
    return 2 * t * sum + (double)e * ln2;
}

static double ratio8(const double a[8], const double b[7], double r) {
    double p = a[7], q = b[6];
    for (int k = 6; k >= 0; k--) p = p * r + a[k];
    for (int k = 5; k >= 0; k--) q = q * r + b[k];
    return p / (q * r + 1);
}

/* Quantile of N(0, 1) at p in (0, 1), to 1e-15: algorithm AS 241 (Wichura 1988), routine PPND16. */
static double normal_quantile(double p) {
    static const double a[8] = {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
                                4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3};
    static const double b[7] = {4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
                                3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3};
    static const double c[8] = {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
                                1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4};
    static const double d[7] = {2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
                                1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9};
    static const double e[8] = {6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
                                2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7};
    static const double f[7] = {5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
                                1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15};
    double q = p - 0.5;
    if (q >= -0.425 && q <= 0.425) return q * ratio8(a, b, 0.180625 - q * q);
    double r = sqrt(-log_portable(q < 0 ? p : 1 - p));
    double x = r <= 5 ? ratio8(c, d, r - 1.6) : ratio8(e, f, r - 5);
    return q < 0 ? -x : x;
}

static float draw(const gap_weight_decl *decl, uint32_t word) {
    if (decl->init == GAP_INIT_UNIFORM) return (float)((2.0 * (double)gap_u32_to_unit(word) - 1.0) * decl->init_arg);
    return (float)(normal_quantile(((double)word + 0.5) * (1.0 / 4294967296.0)) * decl->init_arg);
}

typedef struct { gap_store *s; uint64_t seed; } init_job;

static void init_entry(void *arg, int64_t chunk, int thread) {
    (void)thread;
    init_job *job = arg;
    const gap_entry *e = &job->s->entry[chunk];
    float *w = gap_store_data(job->s, GAP_PLANE_MASTER, (int)chunk); /* as e->decl.dim */
    if (e->decl.init == GAP_INIT_ZERO || e->decl.init == GAP_INIT_ONE) {
        for (size_t k = 0; k < e->count; k++) w[k] = e->decl.init == GAP_INIT_ONE ? 1.0f : 0.0f;
        return;
    }
    gap_rng place = {.seed = job->seed, .stream = GAP_STREAM_INIT, .op = fnv1a(e->name)};
    for (size_t k = 0; k < e->count; k += 4) {
        uint32_t word[4];
        gap_rng_block(&place, (uint32_t)(k / 4), word);
        for (size_t j = 0; j < 4 && k + j < e->count; j++) w[k + j] = draw(&e->decl, word[j]);
    }
}

gap_status gap_store_init(gap_store *s, uint64_t seed) {
    init_job job = {s, seed};
    gap_status st = gap_store_seal(s);
    if (st != GAP_OK) return st;
    s->version++; /* first: an interruption leaves weights that nothing derived agrees with */
    st = gap_parallel(s->n_entries, init_entry, &job);
    if (st != GAP_OK) return st;
    for (int p = GAP_PLANE_EMA; p < GAP_PLANE_COUNT; p++) gap_buf_unref(&s->plane[p]);
    for (int k = 0; k < s->n_entries; k++) s->entry[k].updates = 0;
    return GAP_OK;
}

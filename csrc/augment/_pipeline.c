#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "augment/image.h"
#include "augment/pipeline.h"
#include "core/threads.h"

enum { IDLE_MAX = 64 };

/* What one chunk works with: two pictures to go back and forth between, and scratch. */
typedef struct {
    gap_image picture[2];
    gap_scratch scratch;
} worker;

struct gap_pipeline {
    int n;
    gap_pipeline_op op[GAP_PIPELINE_MAX_OPS];
    const gap_kernels *kernels;
    _Atomic(worker *) idle[IDLE_MAX]; /* workers of finished chunks, for the next to take */
};

/* ---- making one ---- */

static gap_status check_op(const gap_pipeline_op *ops, int k, int n) {
    const gap_augment_def *def = ops[k].def;
    gap_status st = gap_config_check(def->name, def->params, def->n_params, ops[k].cfg);
    if (st == GAP_OK && def->check != NULL) st = def->check(ops[k].cfg);
    if (st != GAP_OK) return st;
    if (def->last && k != n - 1) return gap_fail(GAP_ERR_VALUE, "%s must be the pipeline's last op, but is number %d of %d", def->name, k + 1, n);
    for (int j = 0; j < k; j++)
        if (ops[j].id == ops[k].id)
            return gap_fail(GAP_ERR_VALUE, "pipeline: ids must differ, but %s and %s both have %lu", ops[j].def->name, def->name,
                            (unsigned long)ops[k].id);
    return GAP_OK;
}

gap_status gap_pipeline_new(gap_pipeline **out, const gap_pipeline_op *ops, int n) {
    gap_status st = GAP_OK;
    gap_pipeline *p = NULL;
    if (n > GAP_PIPELINE_MAX_OPS) return gap_fail(GAP_ERR_VALUE, "pipeline: at most %d ops, got %d", GAP_PIPELINE_MAX_OPS, n);
    GAP_TRY(GAP_NEW(p));
    for (int k = 0; k < n; k++) GAP_TRY(check_op(ops, k, n));
    GAP_TRY(gap_kernels_find(&p->kernels, NULL));
    p->n = n;
    for (int k = 0; k < n; k++) p->op[k] = ops[k];
    *out = p, p = NULL;
done:
    gap_pipeline_free(p);
    return st;
}

static void worker_free(worker *w) {
    if (w == NULL) return;
    gap_image_free(&w->picture[0]);
    gap_image_free(&w->picture[1]);
    gap_free(w->scratch.mem);
    gap_free(w);
}

void gap_pipeline_free(gap_pipeline *p) {
    if (p == NULL) return;
    for (int k = 0; k < IDLE_MAX; k++) worker_free(atomic_load(&p->idle[k]));
    gap_free(p);
}

int gap_pipeline_count(const gap_pipeline *p) { return p->n; }
const gap_pipeline_op *gap_pipeline_op_at(const gap_pipeline *p, int k) { return &p->op[k]; }

bool gap_pipeline_random(const gap_pipeline *p) {
    for (int k = 0; k < p->n; k++)
        if (p->op[k].def->random) return true;
    return false;
}

static gap_status worker_take(gap_pipeline *p, worker **out) {
    for (int k = 0; k < IDLE_MAX; k++) {
        worker *w = atomic_load_explicit(&p->idle[k], memory_order_relaxed) ? atomic_exchange(&p->idle[k], NULL) : NULL;
        if (w != NULL) return *out = w, GAP_OK;
    }
    gap_status st = GAP_NEW(*out);
    if (st == GAP_OK) (*out)->scratch.kernels = p->kernels;
    return st;
}

static void worker_give(gap_pipeline *p, worker *w) {
    for (int k = 0; k < IDLE_MAX; k++) {
        worker *none = NULL;
        if (atomic_compare_exchange_strong(&p->idle[k], &none, w)) return;
    }
    worker_free(w);
}

/* ---- sizes and draws ---- */

/* The size that op k makes of (*h, *w), written over it. */
static gap_status op_shape(const gap_pipeline_op *op, int64_t *h, int64_t *w, int64_t c, bool *fixed) {
    int64_t oh = *h, ow = *w;
    bool op_fixed = false;
    if (op->def->shape == NULL) return GAP_OK;
    gap_status st = op->def->shape(op->cfg, *h, *w, c, &oh, &ow, &op_fixed);
    *h = oh, *w = ow, *fixed |= op_fixed;
    return st;
}

gap_status gap_pipeline_shape(const gap_pipeline *p, int64_t h, int64_t w, int64_t c, int64_t *oh, int64_t *ow, bool *fixed) {
    gap_status st = GAP_OK;
    *fixed = false;
    if (c != 1 && c != 3) return gap_fail(GAP_ERR_SHAPE, "pipeline: a picture must have 1 or 3 channels, got %lld", (long long)c);
    GAP_TRY(gap_image_check("pipeline", h, w));
    for (int k = 0; k < p->n; k++) GAP_TRY(op_shape(&p->op[k], &h, &w, c, fixed));
    *oh = h, *ow = w;
done:
    return st;
}

static gap_status op_sample(const gap_pipeline_op *op, uint64_t seed, int64_t epoch, int64_t id, int64_t h, int64_t w,
                            gap_aug_params *out) {
    *out = (gap_aug_params){0};
    if (op->def->sample == NULL) return GAP_OK;
    gap_rng place = {.seed = seed, .stream = GAP_STREAM_AUGMENT, .epoch = (uint32_t)epoch, .sample = (uint32_t)id, .op = op->id};
    gap_draws draws;
    gap_draws_begin(&draws, &place);
    return op->def->sample(op->cfg, &draws, h, w, out);
}

static gap_status check_place(int64_t epoch, int64_t id) {
    if (epoch < 0 || epoch > UINT32_MAX) return gap_fail(GAP_ERR_VALUE, "pipeline: epoch must be in [0, 2^32), got %lld", (long long)epoch);
    if (id < 0 || id > UINT32_MAX) return gap_fail(GAP_ERR_VALUE, "pipeline: a sample's id must be in [0, 2^32), got %lld", (long long)id);
    return GAP_OK;
}

gap_status gap_pipeline_sample(const gap_pipeline *p, uint64_t seed, int64_t epoch, int64_t id, int64_t h, int64_t w, int64_t c,
                               gap_aug_params *out) {
    gap_status st = GAP_OK;
    int64_t oh, ow;
    bool fixed;
    GAP_TRY(check_place(epoch, id));
    GAP_TRY(gap_pipeline_shape(p, h, w, c, &oh, &ow, &fixed));
    for (int k = 0; k < p->n; k++) {
        GAP_TRY(op_sample(&p->op[k], seed, epoch, id, h, w, &out[k]));
        GAP_TRY(op_shape(&p->op[k], &h, &w, c, &fixed));
    }
done:
    return st == GAP_OK ? st : gap_fail_in(st, "sample %lld", (long long)id);
}

gap_status gap_pipeline_batch_shape(const gap_pipeline *p, const gap_pipeline_batch *b, int64_t *oh, int64_t *ow) {
    gap_status st = GAP_OK;
    int64_t k = 0;
    for (; k < b->n; k++) {
        int64_t h, w;
        bool fixed;
        const gap_image *im = &b->images[k];
        GAP_TRY(check_place(b->epoch, b->ids[k]));
        GAP_TRY(gap_pipeline_shape(p, im->h, im->w, im->c, &h, &w, &fixed));
        if (k == 0) *oh = h, *ow = w;
        if (im->c != b->images[0].c)
            st = gap_fail(GAP_ERR_SHAPE, "pipeline: the picture has %lld channels, the batch's first (sample %lld) %lld", (long long)im->c,
                          (long long)b->ids[0], (long long)b->images[0].c);
        else if (h != *oh || w != *ow)
            st = gap_fail(GAP_ERR_SHAPE, "pipeline: the picture (%lld, %lld) becomes (%lld, %lld), the batch's first (sample %lld) "
                          "(%lld, %lld); a batch needs one size: end with an op that fixes it, such as CenterCrop or RandomResizedCrop",
                          (long long)im->h, (long long)im->w, (long long)h, (long long)w, (long long)b->ids[0], (long long)*oh,
                          (long long)*ow);
        if (st != GAP_OK) goto done;
    }
done:
    return st == GAP_OK ? st : gap_fail_in(st, "sample %lld", (long long)b->ids[k]);
}

/* ---- running ---- */

/* The failure of the smallest index, carried from a worker's thread to the caller's. */
typedef struct {
    atomic_flag lock;
    int64_t index;                        /* n: none */
    gap_status st;
    char message[512];
} failure;

static void failure_note(failure *f, int64_t index, gap_status st) {
    while (atomic_flag_test_and_set(&f->lock)) {}
    if (index < f->index) {
        f->index = index, f->st = st;
        snprintf(f->message, sizeof f->message, "%s", gap_error_message());
    }
    atomic_flag_clear(&f->lock);
}

typedef struct {
    gap_pipeline *p;
    const gap_pipeline_batch *b;
    uint8_t *out;                         /* (n, oh, ow, c) */
    int64_t oh, ow;
    failure failed;
} run_job;

/* Through all ops; the last one writes into `target` where it can. *result: where the picture is in the end. */
static gap_status run_ops(gap_pipeline *p, const gap_pipeline_batch *b, int64_t index, worker *w, gap_image *target, const gap_image **result) {
    gap_status st = GAP_OK;
    const gap_image *now = &b->images[index];
    int n = p->n > 0 && p->op[p->n - 1].def->last ? p->n - 1 : p->n; /* the network does the last one */
    for (int k = 0; k < n; k++) {
        const gap_pipeline_op *op = &p->op[k];
        gap_aug_params drawn;
        gap_image *to = k == n - 1 ? target : now == &w->picture[0] ? &w->picture[1] : &w->picture[0];
        bool same = false;
        GAP_TRY(op_sample(op, b->seed, b->epoch, b->ids[index], now->h, now->w, &drawn));
        GAP_TRY(op->def->apply(op->cfg, &drawn, now, to, &w->scratch, &same));
        if (!same) now = to;
    }
    *result = now;
done:
    return st;
}

static void run_chunk(void *arg, int64_t index, int thread) {
    (void)thread;
    run_job *job = arg;
    gap_status st = GAP_OK;
    worker *w = NULL;
    const gap_image *result = NULL;
    int64_t c = job->b->images[index].c;
    size_t bytes = (size_t)(job->oh * job->ow * c);
    gap_image target = {.data = job->out + (size_t)index * bytes, .capacity = bytes}; /* borrowed: of exactly the size to come */
    GAP_TRY(worker_take(job->p, &w));
    GAP_TRY(run_ops(job->p, job->b, index, w, &target, &result));
    if (result->data != target.data) memcpy(target.data, result->data, bytes);
done:
    if (w != NULL) worker_give(job->p, w);
    if (st != GAP_OK) failure_note(&job->failed, index, gap_fail_in(st, "sample %lld", (long long)job->b->ids[index]));
}

gap_status gap_pipeline_run(gap_pipeline *p, const gap_pipeline_batch *b, uint8_t *out) {
    gap_status st = GAP_OK;
    run_job job = {.p = p, .b = b, .out = out, .failed = {.lock = ATOMIC_FLAG_INIT, .index = b->n}};
    if (b->n == 0) return GAP_OK;
    GAP_TRY(gap_pipeline_batch_shape(p, b, &job.oh, &job.ow));
    GAP_TRY(gap_parallel(b->n, run_chunk, &job));
    if (job.failed.index < b->n) st = gap_fail(job.failed.st, "%s", job.failed.message);
done:
    return st;
}

/* ---- to floats ---- */

void gap_pipeline_affine(const gap_pipeline *p, int64_t c, float *a, float *b) {
    const gap_pipeline_op *op = p->n > 0 && p->op[p->n - 1].def->last ? &p->op[p->n - 1] : NULL;
    for (int64_t k = 0; k < c; k++) {
        double mean = 0, std = 1;
        if (op != NULL) {
            mean = op->cfg[0].f[op->cfg[0].n == 1 ? 0 : k];
            std = op->cfg[1].f[op->cfg[1].n == 1 ? 0 : k];
        }
        a[k] = (float)(1 / (255 * std));
        b[k] = (float)(-mean / std);
    }
}

typedef struct {
    int64_t pixels, c;
    const uint8_t *x;                     /* (n, pixels, c) */
    float *y;                             /* (n, c, pixels) */
    float a[3], b[3], table[3][256];      /* a byte has 256 values: each is normalised once */
} float_job;

static void table_chunk(void *arg, int64_t index, int thread) {
    (void)index, (void)thread;
    float_job *job = arg;
    for (int64_t ch = 0; ch < job->c; ch++)
        for (int v = 0; v < 256; v++) job->table[ch][v] = fmaf((float)v, job->a[ch], job->b[ch]);
}

static void float_chunk(void *arg, int64_t index, int thread) {
    (void)thread;
    const float_job *job = arg;
    int64_t n = job->pixels, c = job->c;
    const uint8_t *x = job->x + index * n * c;
    float *y = job->y + index * n * c;
    for (int64_t ch = 0; ch < c; ch++)
        for (int64_t i = 0; i < n; i++) y[ch * n + i] = job->table[ch][x[i * c + ch]];
}

gap_status gap_pipeline_to_float(const gap_pipeline *p, int64_t n, int64_t h, int64_t w, int64_t c, const uint8_t *x, float *y) {
    float_job job = {.pixels = h * w, .c = c, .x = x, .y = y};
    if (c != 1 && c != 3) return gap_fail(GAP_ERR_SHAPE, "pipeline: a picture must have 1 or 3 channels, got %lld", (long long)c);
    gap_pipeline_affine(p, c, job.a, job.b);
    gap_status st = gap_parallel(1, table_chunk, &job); /* inside a parallel call: with denormals flushed, as the network is */
    return st == GAP_OK ? gap_parallel(n, float_chunk, &job) : st;
}

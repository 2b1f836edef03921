#include "core/threads.h"
#include "ops/cut.h"
#include "ops/ops.h"

typedef struct {
    const gap_op *op;
    const gap_op_ctx *ctx;
    gap_cut cut;
} job;

static gap_status infer(gap_op *op, const gap_desc *in, gap_desc *out) {
    char a[96], b[96];
    (void)op;
    if (!gap_desc_equal(&in[0], &in[1]))
        return gap_fail(GAP_ERR_SHAPE, "add: shapes must be equal, got %s and %s", gap_desc_text(&in[0], a), gap_desc_text(&in[1], b));
    out[0] = in[0];
    return GAP_OK;
}

static void forward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    int64_t begin = gap_cut_begin(j->cut, chunk), n = gap_cut_end(j->cut, chunk) - begin;
    const float *a = j->ctx->in[0], *b = j->ctx->in[1]; /* (N, stored) */
    j->ctx->kernels->eltwise->add((size_t)n, a + begin, b + begin, (float *)j->ctx->out[0] + begin);
}

/* One input after the other within a chunk: x + x gives its gradient twice to the same place. */
static void backward_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const gap_op_ctx *c = j->ctx;
    int64_t begin = gap_cut_begin(j->cut, chunk), n = gap_cut_end(j->cut, chunk) - begin;
    for (int k = 0; k < 2; k++)
        if (c->din[k] != NULL)
            c->kernels->eltwise->copy((size_t)n, (const float *)c->dout + begin, (float *)c->din[k] + begin,
                                    c->din_add[k] || (k == 1 && c->din[0] == c->din[1]));
}

static gap_status forward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = {op, ctx, gap_cut_of(ctx->n * gap_desc_stored(&op->out_desc[0]), 1)};
    return gap_parallel(gap_cut_chunks(j.cut), forward_chunk, &j);
}

static gap_status backward(const gap_op *op, const gap_op_ctx *ctx) {
    job j = {op, ctx, gap_cut_of(ctx->n * gap_desc_stored(&op->out_desc[0]), 1)};
    return gap_parallel(gap_cut_chunks(j.cut), backward_chunk, &j);
}

const gap_op_def gap_op_add = {.name = "add", .inplace_ok = true, .infer = infer, .forward = forward, .backward = backward};

gap_status gap_emit_add(gap_oplist *list, gap_origin who, int a, int b, int *out) {
    int in[2] = {a, b};
    return gap_oplist_emit(list, &gap_op_add, who.name, who.id, in, 2, 1, NULL, 0, NULL, 0, out);
}

/* Pictures: index maps and resampling against their definitions, every kernel set against ref, the ops' promised sizes,
 * the pipeline's independence of order, threads and batch, and failed allocations. */
#include "harness.h"

#include "augment/image.h"
#include "augment/pipeline.h"
#include "core/threads.h"

static gap_image picture(int64_t h, int64_t w, int64_t c, uint32_t seed) {
    gap_image im = {0};
    CHECK_OK(gap_image_reserve(&im, h, w, c));
    for (int64_t i = 0; i < h * w * c; i++) im.data[i] = (uint8_t)(harness_u32(&seed) >> 9);
    return im;
}

static bool same_picture(const gap_image *a, const gap_image *b) {
    return a->h == b->h && a->w == b->w && a->c == b->c && memcmp(a->data, b->data, (size_t)(a->h * a->w * a->c)) == 0;
}

static gap_pipeline_op op(const char *name, uint32_t id) {
    gap_pipeline_op o = {.def = gap_augment_find(name), .id = id};
    CHECK(o.def != NULL);
    gap_config_defaults(o.def->params, o.def->n_params, o.cfg);
    return o;
}

/* One or two whole numbers, as GAP_INT, GAP_PAIR and GAP_INTS alike. */
static gap_value numbers(int n, double a, double b) { return (gap_value){.n = n, .i = (int64_t)a, .i2 = (int64_t)b, .f = {a, b}}; }

static gap_pipeline_op sized(const char *name, uint32_t id, int n, double h, double w) {
    gap_pipeline_op o = op(name, id);
    o.cfg[0] = numbers(n, h, w);
    return o;
}

static gap_pipeline_op normalize(uint32_t id) {
    gap_pipeline_op o = op("Normalize", id);
    o.cfg[0] = (gap_value){.n = 1, .f = {0.5}};
    o.cfg[1] = (gap_value){.n = 1, .f = {0.25}};
    return o;
}

/* ---- padding ---- */

static void test_augment_axis_modes(void) {
    static const int reflect[] = {0, 1, 2, 1}, symmetric[] = {0, 1, 2, 2, 1, 0};
    int32_t map[13];
    for (int n = 1; n <= 3; n++) {
        gap_axis_window(map, 13, -6, n, GAP_PAD_CONSTANT);
        for (int k = 0; k < 13; k++) CHECK(map[k] == (k - 6 >= 0 && k - 6 < n ? k - 6 : -1));
        gap_axis_window(map, 13, -6, n, GAP_PAD_EDGE);
        for (int k = 0; k < 13; k++) CHECK(map[k] == (k < 6 ? 0 : k - 6 < n ? k - 6 : n - 1));
    }
    gap_axis_window(map, 13, -6, 3, GAP_PAD_REFLECT);
    for (int k = 0; k < 13; k++) CHECK(map[k] == reflect[((k - 6) % 4 + 4) % 4]);
    gap_axis_window(map, 13, -6, 3, GAP_PAD_SYMMETRIC);
    for (int k = 0; k < 13; k++) CHECK(map[k] == symmetric[((k - 6) % 6 + 6) % 6]);
    gap_axis_window(map, 13, -6, 1, GAP_PAD_REFLECT);
    for (int k = 0; k < 13; k++) CHECK(map[k] == 0);
}

/* ---- elementary functions ---- */

static void test_augment_exact_functions(void) {
    for (int k = -400; k <= 400; k++) {
        double x = k / 37.0;
        CHECK_NEAR(gap_exact_exp(x) / exp(x), 1, 4e-16);
        CHECK_NEAR(gap_exact_log(exp(x)), x, 1e-15);
        CHECK_NEAR(gap_exact_sinpi(x), sin(x * 3.14159265358979323846), 4e-15);
    }
    CHECK(gap_exact_log(1) == 0 && gap_exact_exp(0) == 1 && gap_exact_sinpi(0) == 0);
}

/* ---- resampling ---- */

static void resample(const char *set, const gap_image *in, gap_image *out, int64_t oh, int64_t ow, gap_filter filter) {
    gap_scratch s = {0};
    CHECK_OK(gap_kernels_find(&s.kernels, set));
    CHECK_OK(gap_image_resample(in, out, 0, 0, in->h, in->w, oh, ow, filter, true, &s));
    gap_free(s.mem);
}

/* A copy whose memory ends with the last pixel, so that a sanitizer sees a byte read or written beyond it. */
static gap_image exact(const gap_image *im) {
    gap_image copy = *im;
    copy.capacity = (size_t)(im->h * im->w * im->c);
    copy.data = malloc(copy.capacity);
    CHECK(copy.data != NULL);
    memcpy(copy.data, im->data, copy.capacity);
    return copy;
}

static void test_augment_no_pixel_beyond_the_picture(void) {
    for (gap_kernel_set_id id = 0; id < GAP_SET_COUNT; id++) {
        const gap_kernels *k;
        if (!gap_kernels_available(id)) continue;
        CHECK_OK(gap_kernels_find(&k, gap_kernel_set_name(id)));
        for (int64_t n = 1; n < 40; n++)
            for (int64_t c = 1; c <= 3; c += 2) {
                gap_scratch s = {.kernels = k};
                gap_image in = picture(n, 43 - n, c, (uint32_t)n), from = exact(&in), room = picture(41 - n, n, c, 1), to = exact(&room), want = {0};
                CHECK_OK(gap_image_resample(&from, &to, 0, 0, n, 43 - n, 41 - n, n, GAP_FILTER_BICUBIC, true, &s));
                resample("ref", &in, &want, 41 - n, n, GAP_FILTER_BICUBIC);
                CHECK(same_picture(&to, &want));
                for (int64_t y = 0; y < n; y++) k->image->mirror_row(from.data + y * (43 - n) * c, in.data + y * (43 - n) * c, 43 - n, c);
                CHECK(from.data[0] == in.data[(43 - n - 1) * c]);
                gap_image_free(&in);
                gap_image_free(&room);
                gap_image_free(&want);
                free(from.data);
                free(to.data);
                gap_free(s.mem);
            }
    }
}

static void test_augment_every_set_has_the_same_bits(void) {
    static const int64_t sizes[][4] = {{1, 1, 1, 1}, {1, 1, 5, 70}, {3, 50, 40, 2}, {37, 41, 16, 16}, {17, 300, 33, 31}, {90, 5, 4, 200}, {64, 64, 64, 9}};
    for (int i = 0; i < GAP_COUNTOF(sizes); i++)
        for (int64_t c = 1; c <= 3; c += 2)
            for (gap_filter f = GAP_FILTER_NEAREST; f <= GAP_FILTER_LANCZOS; f++) {
                gap_image in = picture(sizes[i][0], sizes[i][1], c, 7), want = {0};
                resample("ref", &in, &want, sizes[i][2], sizes[i][3], f);
                for (gap_kernel_set_id id = 0; id < GAP_SET_COUNT; id++) {
                    gap_image got = {0};
                    if (!gap_kernels_available(id)) continue;
                    resample(gap_kernel_set_name(id), &in, &got, sizes[i][2], sizes[i][3], f);
                    CHECK(same_picture(&got, &want));
                    gap_image_free(&got);
                }
                gap_image_free(&in);
                gap_image_free(&want);
            }
}

static void test_augment_mirror_every_set_and_width(void) {
    for (gap_kernel_set_id id = 0; id < GAP_SET_COUNT; id++) {
        const gap_kernels *k;
        if (!gap_kernels_available(id)) continue;
        CHECK_OK(gap_kernels_find(&k, gap_kernel_set_name(id)));
        for (int64_t w = 1; w < 70; w++)
            for (int64_t c = 1; c <= 3; c += 2) {
                gap_image in = picture(1, w, c, (uint32_t)w), out = {0};
                CHECK_OK(gap_image_reserve(&out, 1, w, c));
                k->image->mirror_row(out.data, in.data, w, c);
                for (int64_t x = 0; x < w * c; x++) CHECK(out.data[x] == in.data[(w - 1 - x / c) * c + x % c]);
                gap_image_free(&in);
                gap_image_free(&out);
            }
    }
}

static void test_augment_constant_picture_stays_constant(void) {
    for (gap_filter f = GAP_FILTER_NEAREST; f <= GAP_FILTER_LANCZOS; f++)
        for (int level = 0; level < 256; level += 51) {
            gap_image in = picture(23, 31, 3, 1), out = {0};
            memset(in.data, level, 23 * 31 * 3);
            resample("ref", &in, &out, 40, 7, f);
            for (int i = 0; i < 40 * 7 * 3; i++) CHECK(out.data[i] == level);
            gap_image_free(&in);
            gap_image_free(&out);
        }
}

/* ---- ops ---- */

/* What `shape` promises is what `apply` gives, for every op and hard sizes. */
static void test_augment_shape_is_what_apply_gives(void) {
    static const int64_t sizes[][2] = {{1, 1}, {1, 300}, {300, 1}, {2, 3}, {31, 33}, {100, 75}};
    gap_pipeline_op ops[] = {sized("Resize", 0, 1, 20, 0),       sized("Resize", 0, 2, 9, 31), sized("CenterCrop", 0, 2, 20, 41),
                             sized("Pad", 0, 1, 3, 0),           sized("RandomCrop", 0, 2, 24, 17), sized("RandomResizedCrop", 0, 2, 12, 25),
                             op("RandomHorizontalFlip", 0)};
    ops[4].cfg[2].i = 1; /* pad_if_needed */
    for (int k = 0; k < GAP_COUNTOF(ops); k++)
        for (int i = 0; i < GAP_COUNTOF(sizes); i++) {
            const gap_augment_def *def = ops[k].def;
            gap_image in = picture(sizes[i][0], sizes[i][1], 3, 5), out = {0};
            gap_scratch s = {0};
            gap_aug_params drawn = {0};
            gap_draws d;
            gap_rng place = {.seed = 3, .sample = (uint32_t)i};
            bool same = false, fixed = false;
            int64_t oh = in.h, ow = in.w;
            CHECK_OK(gap_kernels_find(&s.kernels, NULL));
            if (def->shape != NULL) CHECK_OK(def->shape(ops[k].cfg, in.h, in.w, 3, &oh, &ow, &fixed));
            gap_draws_begin(&d, &place);
            if (def->sample != NULL) CHECK_OK(def->sample(ops[k].cfg, &d, in.h, in.w, &drawn));
            CHECK_OK(def->apply(ops[k].cfg, &drawn, &in, &out, &s, &same));
            const gap_image *got = same ? &in : &out;
            CHECK(got->h == oh && got->w == ow && got->c == 3);
            gap_image_free(&in);
            gap_image_free(&out);
            gap_free(s.mem);
        }
}

static void test_augment_impossible_sizes_are_errors(void) {
    gap_pipeline_op ops[1] = {sized("Resize", 0, 1, 60000, 0)};
    gap_pipeline *p = NULL;
    int64_t h, w;
    bool fixed;
    CHECK_OK(gap_pipeline_new(&p, ops, 1));
    CHECK_FAILS(gap_pipeline_shape(p, 60000, 60000, 3, &h, &w, &fixed), GAP_ERR_SHAPE);
    CHECK_FAILS(gap_pipeline_shape(p, 1, 60000, 3, &h, &w, &fixed), GAP_ERR_SHAPE);
    CHECK_FAILS(gap_pipeline_shape(p, 0, 5, 3, &h, &w, &fixed), GAP_ERR_SHAPE);
    CHECK_FAILS(gap_pipeline_shape(p, 5, 5, 2, &h, &w, &fixed), GAP_ERR_SHAPE);
    gap_pipeline_free(p);
}

/* ---- pipelines ---- */

enum { BATCH = 9 };

static void fill_batch(gap_image *images, int64_t *ids) {
    for (int k = 0; k < BATCH; k++) images[k] = picture(20 + 5 * k, 61 - 4 * k, 3, (uint32_t)k), ids[k] = 100 - k;
}

static void free_batch(gap_image *images) {
    for (int k = 0; k < BATCH; k++) gap_image_free(&images[k]);
}

static int training_ops(gap_pipeline_op *ops) {
    ops[0] = sized("RandomResizedCrop", 4, 2, 16, 16);
    ops[1] = sized("RandomCrop", 9, 2, 16, 16);
    ops[1].cfg[1] = numbers(1, 2, 0);
    ops[2] = op("RandomHorizontalFlip", 1);
    ops[3] = normalize(7);
    return 4;
}

static void test_augment_threads_and_batch_change_nothing(void) {
    gap_pipeline_op ops[4];
    gap_pipeline *p = NULL;
    gap_image images[BATCH];
    int64_t ids[BATCH];
    static uint8_t whole[BATCH][16 * 16 * 3], again[BATCH][16 * 16 * 3], one[16 * 16 * 3];
    fill_batch(images, ids);
    CHECK_OK(gap_pipeline_new(&p, ops, training_ops(ops)));
    gap_pipeline_batch b = {.n = BATCH, .images = images, .ids = ids, .seed = 11, .epoch = 2};
    int before = gap_threads_get();
    CHECK_OK(gap_threads_set(1));
    CHECK_OK(gap_pipeline_run(p, &b, whole[0]));
    for (int threads = 2; threads <= 7; threads++) {
        CHECK_OK(gap_threads_set(threads));
        CHECK_OK(gap_pipeline_run(p, &b, again[0]));
        CHECK(memcmp(whole, again, sizeof whole) == 0);
    }
    for (int k = BATCH - 1; k >= 0; k--) {
        gap_pipeline_batch alone = {.n = 1, .images = &images[k], .ids = &ids[k], .seed = 11, .epoch = 2};
        CHECK_OK(gap_pipeline_run(p, &alone, one));
        CHECK(memcmp(one, whole[k], sizeof one) == 0);
    }
    CHECK_OK(gap_threads_set(before));
    gap_pipeline_free(p);
    free_batch(images);
}

static void test_augment_removing_an_op_changes_no_other_draw(void) {
    gap_pipeline_op ops[4];
    gap_pipeline *all = NULL, *fewer = NULL;
    gap_aug_params a[4], b[3];
    int n = training_ops(ops);
    CHECK_OK(gap_pipeline_new(&all, ops, n));
    CHECK_OK(gap_pipeline_new(&fewer, ops + 1, n - 1));
    for (int id = 0; id < 50; id++) {
        CHECK_OK(gap_pipeline_sample(all, 1, 3, id, 40, 40, 3, a));
        CHECK_OK(gap_pipeline_sample(fewer, 1, 3, id, 16, 16, 3, b));
        CHECK(a[1].v[0] == b[0].v[0] && a[1].v[1] == b[0].v[1] && a[2].v[0] == b[1].v[0]);
    }
    gap_pipeline_free(all);
    gap_pipeline_free(fewer);
}

static void test_augment_steady_state_allocates_nothing(void) {
    gap_pipeline_op ops[4];
    gap_pipeline *p = NULL;
    gap_image images[BATCH];
    int64_t ids[BATCH];
    static uint8_t out[BATCH][16 * 16 * 3];
    fill_batch(images, ids);
    CHECK_OK(gap_pipeline_new(&p, ops, training_ops(ops)));
    gap_pipeline_batch b = {.n = BATCH, .images = images, .ids = ids};
    int before = gap_threads_get();
    CHECK_OK(gap_threads_set(1));
    CHECK_OK(gap_pipeline_run(p, &b, out[0]));
    int64_t count = gap_memory_count();
    CHECK_OK(gap_pipeline_run(p, &b, out[0]));
    CHECK(gap_memory_count() == count);
    CHECK_OK(gap_threads_set(before));
    gap_pipeline_free(p);
    free_batch(images);
}

static void test_augment_bad_pipelines(void) {
    gap_pipeline_op ops[2] = {normalize(0), op("RandomHorizontalFlip", 1)};
    gap_pipeline *p = NULL;
    CHECK_FAILS(gap_pipeline_new(&p, ops, 2), GAP_ERR_VALUE);
    CHECK(strstr(gap_error_message(), "last") != NULL);
    gap_pipeline_op twins[2] = {op("RandomHorizontalFlip", 1), op("RandomHorizontalFlip", 1)};
    CHECK_FAILS(gap_pipeline_new(&p, twins, 2), GAP_ERR_VALUE);
    gap_pipeline_op lacking[1] = {op("CenterCrop", 0)}; /* size is required */
    CHECK_FAILS(gap_pipeline_new(&p, lacking, 1), GAP_ERR_VALUE);
    CHECK(p == NULL);
}

static void test_augment_errors_name_the_sample(void) {
    gap_pipeline_op ops[1] = {sized("RandomCrop", 0, 2, 30, 30)};
    gap_pipeline *p = NULL;
    gap_image images[BATCH];
    int64_t ids[BATCH];
    static uint8_t out[BATCH * 30 * 30 * 3];
    fill_batch(images, ids);
    CHECK_OK(gap_pipeline_new(&p, ops, 1));
    gap_pipeline_batch b = {.n = BATCH, .images = images, .ids = ids};
    CHECK_FAILS(gap_pipeline_run(p, &b, out), GAP_ERR_SHAPE); /* the first picture is (20, 61) */
    CHECK(strstr(gap_error_message(), "sample 100") != NULL);
    ids[0] = -1;
    CHECK_FAILS(gap_pipeline_run(p, &b, out), GAP_ERR_VALUE);
    gap_pipeline_free(p);
    free_batch(images);
}

/* Fails the 1st, 2nd, 3rd … allocation of a whole run until it passes; RUN sees what leaked. */
static void test_augment_allocation_failures(void) {
    gap_image images[BATCH];
    int64_t ids[BATCH];
    static uint8_t out[BATCH][16 * 16 * 3];
    fill_batch(images, ids);
    int before = gap_threads_get(), k = 1;
    for (;; k++) {
        CHECK_OK(gap_threads_set(1 + k % 3));
        gap_pipeline_op ops[4];
        gap_pipeline *p = NULL;
        gap_pipeline_batch b = {.n = BATCH, .images = images, .ids = ids};
        int n = training_ops(ops);
        gap_memory_fail_after(k);
        gap_status st = gap_pipeline_new(&p, ops, n);
        if (st == GAP_OK) st = gap_pipeline_run(p, &b, out[0]);
        gap_memory_fail_after(0);
        gap_pipeline_free(p);
        if (st == GAP_OK) break;
        CHECK(st == GAP_ERR_MEMORY);
        if (k > 200) break;
    }
    CHECK(k > 4 && k <= 200);
    CHECK_OK(gap_threads_set(before));
    free_batch(images);
}

static void test_augment_to_float_is_one_fma(void) {
    gap_pipeline_op ops[1] = {normalize(0)};
    gap_pipeline *p = NULL;
    uint8_t x[2 * 3 * 5 * 3];
    float y[2 * 3 * 5 * 3], a[3], b[3];
    for (int i = 0; i < GAP_COUNTOF(x); i++) x[i] = (uint8_t)(i * 37);
    CHECK_OK(gap_pipeline_new(&p, ops, 1));
    CHECK_OK(gap_pipeline_to_float(p, 2, 3, 5, 3, x, y));
    gap_pipeline_affine(p, 3, a, b);
    CHECK(a[0] == (float)(1 / (255 * 0.25)) && b[2] == -2.0f);
    for (int n = 0; n < 2; n++)
        for (int c = 0; c < 3; c++)
            for (int i = 0; i < 15; i++) CHECK(y[(n * 3 + c) * 15 + i] == fmaf((float)x[(n * 15 + i) * 3 + c], a[c], b[c]));
    gap_pipeline_free(p);
}

int main(void) {
    RUN(test_augment_axis_modes);
    RUN(test_augment_exact_functions);
    RUN(test_augment_no_pixel_beyond_the_picture);
    RUN(test_augment_every_set_has_the_same_bits);
    RUN(test_augment_mirror_every_set_and_width);
    RUN(test_augment_constant_picture_stays_constant);
    RUN(test_augment_shape_is_what_apply_gives);
    RUN(test_augment_impossible_sizes_are_errors);
    RUN(test_augment_threads_and_batch_change_nothing);
    RUN(test_augment_removing_an_op_changes_no_other_draw);
    RUN(test_augment_steady_state_allocates_nothing);
    RUN(test_augment_bad_pipelines);
    RUN(test_augment_errors_name_the_sample);
    RUN(test_augment_allocation_failures);
    RUN(test_augment_to_float_is_one_fma);
    return harness_end();
}

#include "core/buffer.h"
#include "core/param.h"
#include "core/rng.h"
#include "core/shape.h"
#include "core/tensor.h"
#include "harness.h"

static void test_status_place_goes_before_the_message(void) {
    CHECK(gap_fail(GAP_ERR_VALUE, "conv: stride must be >= 1, got %d", 0) == GAP_ERR_VALUE);
    CHECK(gap_fail_in(GAP_ERR_VALUE, "layer%d", 3) == GAP_ERR_VALUE);
    CHECK(strcmp(gap_error_message(), "in layer3: conv: stride must be >= 1, got 0") == 0);
}

static void test_status_long_chains_are_cut_not_overrun(void) {
    char text[600];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    gap_fail(GAP_ERR_VALUE, "%s", text);
    for (int k = 0; k < 20; k++) gap_fail_in(GAP_ERR_VALUE, "%s", text);
    CHECK(strlen(gap_error_message()) < 1024);
}

static void test_memory_is_zeroed_aligned_counted(void) {
    float *x = NULL;
    int64_t live = gap_memory_live();
    CHECK_OK(GAP_NEW_ARRAY(x, 1000));
    CHECK((uintptr_t)x % 64 == 0);
    for (int k = 0; k < 1000; k++) CHECK(x[k] == 0);
    CHECK(gap_memory_live() == live + 1);
    x[3] = 4;
    CHECK_OK(gap_grow(&x, 1000, 2000, sizeof *x));
    CHECK(x[3] == 4 && x[1999] == 0);
    gap_free(x);
    CHECK(gap_memory_live() == live);
}

static void test_memory_refuses_overflow_and_fails_on_request(void) {
    void *p = &p;
    CHECK_FAILS(gap_alloc(&p, SIZE_MAX / 2, 4), GAP_ERR_MEMORY);
    CHECK(p == NULL);
    gap_memory_fail_after(2);
    void *a = NULL, *b = NULL;
    CHECK_OK(gap_alloc(&a, 1, 1));
    CHECK_FAILS(gap_alloc(&b, 1, 1), GAP_ERR_MEMORY);
    CHECK_OK(gap_alloc(&b, 1, 1));
    gap_memory_fail_after(0);
    gap_free(a);
    gap_free(b);
}

static void test_rng_is_philox4x32_10(void) {
    /* Random123's known answers (kat_vectors): counter and key all zero, and all ones. */
    uint32_t out[4];
    gap_rng r = {0};
    gap_rng_block(&r, 0, out);
    CHECK(out[0] == 0x6627e8d5u && out[1] == 0xe169c58du && out[2] == 0xbc57ac4cu && out[3] == 0x9b00dbd8u);
    gap_rng ones = {.seed = UINT64_MAX, .stream = 0, .epoch = UINT32_MAX, .sample = UINT32_MAX, .op = UINT32_MAX};
    gap_rng_block(&ones, UINT32_MAX, out);
    CHECK(out[0] == 0x408f276du && out[1] == 0x41c83b0eu && out[2] == 0xa20bc7c6u && out[3] == 0x6d5451fdu);
}

static void test_rng_draws_are_in_range_and_fair(void) {
    gap_rng place = {.seed = 7, .stream = GAP_STREAM_USER};
    gap_draws d;
    gap_draws_begin(&d, &place);
    double sum = 0;
    int count[3] = {0};
    for (int k = 0; k < 30000; k++) {
        double u = gap_draws_uniform(&d);
        CHECK(u >= 0 && u < 1);
        sum += u;
        int64_t b = gap_draws_below(&d, 3);
        CHECK(b >= 0 && b < 3);
        count[b]++;
    }
    CHECK_NEAR(sum / 30000, 0.5, 0.01);
    for (int k = 0; k < 3; k++) CHECK_NEAR(count[k] / 10000.0, 1, 0.03);
}

static void test_shape_windows_match_torch(void) {
    int64_t n = 0;
    CHECK_OK(gap_window_size(&n, "conv", 32, 3, 1, 1, 1, 1, false));
    CHECK(n == 32);
    CHECK_OK(gap_window_size(&n, "conv", 7, 3, 2, 0, 0, 1, false));
    CHECK(n == 3);
    CHECK_OK(gap_window_size(&n, "pool", 6, 3, 2, 0, 0, 1, true));
    CHECK(n == 3);
    CHECK_OK(gap_window_size(&n, "pool", 4, 2, 3, 1, 1, 1, true)); /* a third window would begin in the padding */
    CHECK(n == 2);
    CHECK_FAILS(gap_window_size(&n, "conv", 2, 5, 1, 1, 1, 1, false), GAP_ERR_SHAPE);
    CHECK_FAILS(gap_window_size(&n, "conv", INT64_MAX, 3, 1, 1, 1, 1, false), GAP_ERR_SHAPE);
    CHECK_FAILS(gap_size_mul(&n, INT64_MAX, 2), GAP_ERR_SHAPE);
}

static void test_sizes_beyond_any_memory_are_refused(void) {
    const int64_t most[3] = {16, 1 << 16, 1 << 20}, more[3] = {17, 1 << 16, 1 << 20}, wraps[3] = {(int64_t)1 << 32, (int64_t)1 << 32, 1};
    CHECK_OK(gap_size_check("conv", most, 3));
    CHECK_FAILS(gap_size_check("conv", more, 3), GAP_ERR_SHAPE);
    CHECK_FAILS(gap_size_check("conv", wraps, 3), GAP_ERR_SHAPE); /* 2^64 is 0 */
}

static int dropped;
static void drop(void *cookie) { *(int *)cookie += 1; }

static void test_buffer_drops_once_at_the_last_unref(void) {
    gap_buf *a = NULL;
    char mem[4];
    dropped = 0;
    CHECK_OK(gap_buf_wrap(&a, mem, sizeof mem, drop, &dropped));
    gap_buf *b = gap_buf_ref(a);
    gap_buf_unref(&a);
    CHECK(a == NULL && dropped == 0 && gap_buf_data(b) == mem);
    gap_buf_unref(&b);
    gap_buf_unref(&b);
    CHECK(dropped == 1);
}

static void test_desc_pads_channels_to_the_block(void) {
    gap_desc d = gap_desc_image(17, 4, 5);
    CHECK(gap_desc_count(&d) == 17 * 20 && gap_desc_stored(&d) == 32 * 20 && gap_desc_blocks(&d) == 2);
    char text[96];
    CHECK(strcmp(gap_desc_text(&d, text), "(17, 4, 5)") == 0);
}

static void test_param_defaults_and_ranges(void) {
    const gap_param rows[] = {{"stride", GAP_PAIR, .dflt = 1, .lo = 1, .hi = 1024, .doc = "pixels"},
                              {"p", GAP_FLOAT, .dflt = 0.5, .lo = 0, .hi = 1, .hi_open = true, .doc = "share"},
                              {"n", GAP_INT, .required = true, .lo = 1, .hi = INFINITY, .doc = "count"}};
    gap_value v[3];
    gap_config_defaults(rows, 3, v);
    CHECK(v[0].i == 1 && v[0].i2 == 1 && v[1].f[0] == 0.5);
    CHECK_FAILS(gap_config_check("Conv2d", rows, 3, v), GAP_ERR_VALUE);
    CHECK(strstr(gap_error_message(), "Conv2d: n must be given") != NULL);
    v[2].none = false, v[2].i = 3;
    CHECK_OK(gap_config_check("Conv2d", rows, 3, v));
    v[1].f[0] = 1;
    CHECK_FAILS(gap_config_check("Dropout", rows, 3, v), GAP_ERR_VALUE);
    CHECK(strstr(gap_error_message(), "p must be in [0, 1), got 1") != NULL);
}

int main(void) {
    RUN(test_status_place_goes_before_the_message);
    RUN(test_status_long_chains_are_cut_not_overrun);
    RUN(test_memory_is_zeroed_aligned_counted);
    RUN(test_memory_refuses_overflow_and_fails_on_request);
    RUN(test_rng_is_philox4x32_10);
    RUN(test_rng_draws_are_in_range_and_fair);
    RUN(test_shape_windows_match_torch);
    RUN(test_sizes_beyond_any_memory_are_refused);
    RUN(test_buffer_drops_once_at_the_last_unref);
    RUN(test_desc_pads_channels_to_the_block);
    RUN(test_param_defaults_and_ranges);
    return harness_end();
}

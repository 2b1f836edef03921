/* harness.h — the C tests' few words. Each test_<file>.c is a program of its own:
 *
 *     static void test_rng_same_place_same_numbers(void) { CHECK(a == b); CHECK_OK(gap_f(&x)); }
 *     int main(void) { RUN(test_rng_same_place_same_numbers); return harness_end(); }
 */
#ifndef GAP_TESTS_HARNESS_H
#define GAP_TESTS_HARNESS_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/status.h"

static int harness_passed, harness_failed, harness_broken;

#define CHECK(cond)                                                             \
    do {                                                                        \
        if (!(cond)) {                                                          \
            printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);           \
            harness_broken++;                                                   \
        }                                                                       \
    } while (0)

#define CHECK_OK(call)                                                                                        \
    do {                                                                                                      \
        gap_status harness_st = (call);                                                                       \
        if (harness_st != GAP_OK) {                                                                           \
            printf("%s:%d: %s: status %d: %s\n", __FILE__, __LINE__, #call, harness_st, gap_error_message()); \
            harness_broken++;                                                                                 \
        }                                                                                                     \
    } while (0)

#define CHECK_FAILS(call, code)                                                                               \
    do {                                                                                                      \
        gap_status harness_st = (call);                                                                       \
        if (harness_st != (code)) {                                                                           \
            printf("%s:%d: %s: status %d, expected %d\n", __FILE__, __LINE__, #call, harness_st, (code));     \
            harness_broken++;                                                                                 \
        }                                                                                                     \
    } while (0)

/* |a - b| <= tol * max(1, |b|) */
#define CHECK_NEAR(a, b, tol)                                                                                        \
    do {                                                                                                             \
        double harness_a = (a), harness_b = (b), harness_m = fabs(harness_b) > 1 ? fabs(harness_b) : 1;              \
        if (!(fabs(harness_a - harness_b) <= (tol)*harness_m)) {                                                     \
            printf("%s:%d: %s = %.9g, expected %.9g\n", __FILE__, __LINE__, #a, harness_a, harness_b);               \
            harness_broken++;                                                                                        \
        }                                                                                                            \
    } while (0)

/* Runs one test; what it allocated must be freed when it ends. */
#define RUN(test)                                                                                     \
    do {                                                                                              \
        int harness_before = harness_broken;                                                          \
        int64_t harness_live = gap_memory_live();                                                     \
        test();                                                                                       \
        if (gap_memory_live() != harness_live) {                                                      \
            printf("%s: %lld blocks leaked\n", #test, (long long)(gap_memory_live() - harness_live)); \
            harness_broken++;                                                                         \
        }                                                                                             \
        if (harness_broken == harness_before) harness_passed++;                                       \
        else harness_failed++, printf("FAILED %s\n", #test);                                          \
    } while (0)

static inline int harness_end(void) {
    printf("%d passed, %d failed\n", harness_passed, harness_failed);
    return harness_failed != 0;
}

/* A plain generator for test data: the same on every machine. */
static inline uint32_t harness_u32(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}
static inline float harness_uniform(uint32_t *state) { return (float)harness_u32(state) / 8388608.0f - 1.0f; } /* [-1, 1) */
static inline void harness_fill(float *x, size_t n, uint32_t seed) {
    for (size_t k = 0; k < n; k++) x[k] = harness_uniform(&seed);
}

#endif

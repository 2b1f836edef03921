#include "graph/arena.h"
#include "harness.h"

static int overlaps(const gap_lifetime *a, const gap_lifetime *b) {
    int together = a->first <= b->last && b->first <= a->last;
    return together && a->bytes > 0 && b->bytes > 0 && a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

static void test_arena_never_overlaps_what_is_alive_together(void) {
    uint32_t seed = 7;
    for (int round = 0; round < 200; round++) {
        gap_lifetime b[60];
        size_t total, alive_most, sum = 0, most = 0;
        int n = 1 + (int)(harness_u32(&seed) % 60);
        for (int k = 0; k < n; k++) {
            int first = (int)(harness_u32(&seed) % 40);
            b[k] = (gap_lifetime){.bytes = harness_u32(&seed) % 5000, .first = first, .last = first + (int)(harness_u32(&seed) % 20)};
        }
        CHECK_OK(gap_arena_place(b, n, &total, &alive_most));
        for (int k = 0; k < n; k++) {
            sum += b[k].bytes;
            CHECK(b[k].offset % GAP_ALIGN == 0 && b[k].offset + b[k].bytes <= total);
            for (int j = 0; j < k; j++) CHECK(!overlaps(&b[j], &b[k]));
        }
        for (int t = 0; t < 60; t++) { /* no arena is smaller than what is alive at once */
            size_t alive = 0;
            for (int k = 0; k < n; k++) alive += b[k].first <= t && t <= b[k].last ? b[k].bytes : 0;
            if (alive > most) most = alive;
        }
        CHECK(alive_most == most && total >= most && total <= sum);
        CHECK(total <= most + most / 2); /* and ours is not much larger */
    }
}

static void test_arena_reuses_memory_in_a_chain(void) {
    gap_lifetime b[100];
    size_t total;
    for (int k = 0; k < 100; k++) b[k] = (gap_lifetime){.bytes = 1000, .first = k, .last = k + 1};
    CHECK_OK(gap_arena_place(b, 100, &total, NULL));
    CHECK(total == 2 * 1024);
}

static void test_arena_refuses_what_cannot_be_addressed(void) {
    gap_lifetime b[2] = {{.bytes = SIZE_MAX / 2 - 200}, {.bytes = SIZE_MAX / 2 - 200}};
    size_t total;
    CHECK_FAILS(gap_arena_place(b, 2, &total, NULL), GAP_ERR_MEMORY);
}

int main(void) {
    RUN(test_arena_never_overlaps_what_is_alive_together);
    RUN(test_arena_reuses_memory_in_a_chain);
    RUN(test_arena_refuses_what_cannot_be_addressed);
    return harness_end();
}

#define _GNU_SOURCE
#include <string.h>
#include <time.h>

#include "core/memory.h"
#include "graph/plan_state.h"

int64_t gap_plan_clock(const gap_plan *p) {
    struct timespec t;
    if (p->times == NULL) return 0;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void gap_plan_clocked(gap_plan *p, int row, gap_phase phase, int64_t began) {
    if (p->times == NULL) return;
    double seconds = (double)(gap_plan_clock(p) - began) * 1e-9;
    gap_plan_times *t = &p->times[row];
    if (phase == GAP_PHASE_DERIVE) t->derive += seconds;
    else if (phase == GAP_PHASE_BACKWARD || phase == GAP_PHASE_AGAIN) t->backward += seconds;
    else t->forward += seconds;
}

gap_status gap_plan_profile(gap_plan *p, gap_plan_times *out) {
    int n = gap_plan_rows(p) + GAP_PLAN_EXTRA_ROWS;
    memset(out, 0, (size_t)n * sizeof *out);
    if (p->times == NULL) return GAP_NEW_ARRAY(p->times, n);
    memcpy(out, p->times, (size_t)n * sizeof *out);
    memset(p->times, 0, (size_t)n * sizeof *out);
    return GAP_OK;
}

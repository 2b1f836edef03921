/* peak.h — measures this machine's limits, with the pool's threads and a kernel set: for benchmarks. */
#ifndef GAP_OPS_PEAK_H
#define GAP_OPS_PEAK_H

#include <stddef.h>

#include "core/status.h"
#include "kernels/kernels.h"

/* Fp32 operations per second (a multiply-add counts two) of all threads together, out of registers; the best of several
 * runs of a few milliseconds each. */
GAP_MUST_USE gap_status gap_peak_fma(const gap_kernels *k, double *flop_per_second);
/* Bytes per second of STREAM's triad over three arrays of bytes / 3 each, of all threads together: two reads and a write
 * per element, what the write fetches first not counted; the best of several sweeps. bytes >= 192. Allocates. */
GAP_MUST_USE gap_status gap_peak_triad(const gap_kernels *k, size_t bytes, double *bytes_per_second);

#endif

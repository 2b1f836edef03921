/* kernels.h — a kernel set: one row of function tables, chosen once and held by every plan.
 *
 * A family <op> is kernels/<op>.h (its functions' contracts and `gap_<op>_kernels`, a struct of function pointers),
 * kernels/<op>.inc (one body in the 16-lane vocabulary of isa_<isa>.h) and one short file <op>_<isa>.c per instruction
 * set that defines `const gap_<op>_kernels gap_<op>_<isa>`. gen/kernel_sets.h is written from these file names.
 * Every set gives the same bits; only `blas` may not.
 */
#ifndef GAP_KERNELS_KERNELS_H
#define GAP_KERNELS_KERNELS_H

#include "core/cpu.h"
#include "core/status.h"
#include "gen/kernel_sets.h" /* struct gap_kernels { gap_kernel_set_id id; const gap_<op>_kernels *<op>; …; const gap_blas_kernels *blas; } */

/* Gives the set of that name ("avx512", "avx2", "neon", "blas", "ref"), or for NULL GAPLESS_KERNELS, else the best one
 * here. GAP_ERR_VALUE names the sets that this machine has. The set lives for ever. */
GAP_MUST_USE gap_status gap_kernels_find(const gap_kernels **out, const char *name);
/* True when this machine and build have the set. */
bool gap_kernels_available(gap_kernel_set_id id);

#endif

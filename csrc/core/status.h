/* status.h — the one error idiom: a status out, the text in a thread-local.
 *
 *     gap_status st = GAP_OK;
 *     GAP_TRY(may_fail());        on failure: st is set and control goes to `done`
 * done:
 *     release(everything);        _free functions accept NULL and half-built objects
 *     return st;
 *
 * A message reads `what: parameter must be RANGE, got VALUE`; callers add the place while unwinding
 * with gap_fail_in ("in layer1.0.conv1: ..."). Kernels cannot fail: ops/ validates before any parallel region.
 */
#ifndef GAP_CORE_STATUS_H
#define GAP_CORE_STATUS_H

#include "core/compiler.h"

typedef enum {
    GAP_OK = 0,
    GAP_ERR_VALUE,       /* an argument out of its range: ValueError */
    GAP_ERR_TYPE,        /* an argument of the wrong kind: TypeError */
    GAP_ERR_SHAPE,       /* shapes that do not fit: gapless.ShapeError */
    GAP_ERR_MEMORY,      /* allocation failed: MemoryError */
    GAP_ERR_SYSTEM,      /* the operating system said no: OSError */
    GAP_ERR_NONFINITE,   /* NaN or infinity in a step: gapless.NonFiniteError */
    GAP_ERR_INTERRUPTED, /* the caller's `interrupted` said stop; a Python exception is pending */
    GAP_ERR_INTERNAL     /* a bug of ours: RuntimeError */
} gap_status;

/* Sets this thread's message and returns `code`. */
gap_status gap_fail(gap_status code, const char *fmt, ...) GAP_PRINTF(2, 3);
/* Puts "in PLACE: " before this thread's message and returns `code` unchanged. */
gap_status gap_fail_in(gap_status code, const char *fmt, ...) GAP_PRINTF(2, 3);
/* This thread's last message; borrowed, valid until the next failure in this thread. */
const char *gap_error_message(void);

#define GAP_TRY(call)                      \
    do {                                   \
        st = (call);                       \
        if (st != GAP_OK) goto done;       \
    } while (0)

#endif

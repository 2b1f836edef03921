/* param.h — typed parameters: what a table row declares, and the values that a config holds.
 *
 * A row's params[] is the one place for a parameter's name, default, range and meaning: Python's signatures,
 * range checks, docs and stubs are made from it. A config is an array of gap_value, one per row param, same order.
 */
#ifndef GAP_CORE_PARAM_H
#define GAP_CORE_PARAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

#define GAP_PARAM_MAX 16  /* params in a row */
#define GAP_FLOATS_MAX 16 /* numbers that a GAP_FLOATS or GAP_INTS value holds itself; longer ones: gap_value.list */

typedef enum {
    GAP_INT,    /* .i */
    GAP_FLOAT,  /* .f[0] */
    GAP_BOOL,   /* .i, 0 or 1 */
    GAP_PAIR,   /* .i, .i2: an int or a pair of ints in Python (height, width) */
    GAP_ENUM,   /* .i: index into choices; a string in Python */
    GAP_FLOATS, /* .f[0..n): a sequence of floats; one float is taken as n = 1 */
    GAP_INTS    /* .f[0..n), whole numbers */
} gap_param_kind;

typedef struct {
    const char *name;
    gap_param_kind kind;
    bool required;              /* no default: must be given */
    bool optional;              /* None is allowed; .none is then set. With dflt_none, it is the default */
    bool dflt_none;
    double dflt, dflt2;         /* default; dflt2: the second of a GAP_PAIR (0 means: same as dflt) */
    const double *dflt_list; int n_dflt_list; /* default of GAP_FLOATS / GAP_INTS */
    int max_n;                  /* GAP_FLOATS / GAP_INTS: longest list (class weights); 0: GAP_FLOATS_MAX */
    double lo, hi;              /* allowed range, both ends included unless lo_open / hi_open; lo == hi == 0: no limit */
    bool lo_open, hi_open;
    const char *const *choices; /* GAP_ENUM: NULL-terminated */
    const char *doc;            /* unit and meaning, one line */
} gap_param;

typedef struct {
    bool none;
    int64_t i, i2;
    int n;
    double f[GAP_FLOATS_MAX];
    const double *list; /* GAP_FLOATS / GAP_INTS: the n numbers where they are not in f, else NULL. Borrowed: must outlive
                         * every copy of the value, and so the plan that is made with it */
} gap_value;

/* The n numbers of a GAP_FLOATS or GAP_INTS value. */
static inline const double *gap_value_floats(const gap_value *v) { return v->list != NULL ? v->list : v->f; }

/* Fills v[0..n_params) with the defaults; a required param gets none = true. */
void gap_config_defaults(const gap_param *params, int n_params, gap_value *v);
/* Checks one value against its row (range, choices, finite, none). Message: `owner: name must be RANGE, got VALUE`. */
GAP_MUST_USE gap_status gap_param_check(const char *owner, const gap_param *p, const gap_value *v);
/* Checks all; a required one left out is an error too. */
GAP_MUST_USE gap_status gap_config_check(const char *owner, const gap_param *params, int n_params, const gap_value *v);

#endif

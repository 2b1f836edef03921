#include "core/param.h"

#include <math.h>
#include <stdio.h>

void gap_config_defaults(const gap_param *params, int n_params, gap_value *v) {
    for (int k = 0; k < n_params; k++) {
        const gap_param *p = &params[k];
        gap_value d = {0};
        d.none = p->required || p->dflt_none;
        d.i = (int64_t)p->dflt;
        d.i2 = p->kind == GAP_PAIR && p->dflt2 != 0 ? (int64_t)p->dflt2 : d.i;
        d.f[0] = p->dflt;
        d.n = 1;
        if (p->kind == GAP_FLOATS || p->kind == GAP_INTS) {
            d.n = p->n_dflt_list;
            for (int j = 0; j < d.n; j++) d.f[j] = p->dflt_list[j];
        }
        v[k] = d;
    }
}

static bool in_range(const gap_param *p, double x) {
    if (!isfinite(x)) return false;
    if (p->lo == 0 && p->hi == 0) return true;
    if (p->lo_open ? x <= p->lo : x < p->lo) return false;
    return p->hi_open ? x < p->hi : x <= p->hi;
}

static gap_status range_error(const char *owner, const gap_param *p, double x) {
    char range[96] = "finite";
    if (!(p->lo == 0 && p->hi == 0)) {
        if (isinf(p->hi)) snprintf(range, sizeof range, "%s %g", p->lo_open ? ">" : ">=", p->lo);
        else snprintf(range, sizeof range, "in %c%g, %g%c", p->lo_open ? '(' : '[', p->lo, p->hi, p->hi_open ? ')' : ']');
    }
    return gap_fail(GAP_ERR_VALUE, "%s: %s must be %s, got %g", owner, p->name, range, x);
}

gap_status gap_param_check(const char *owner, const gap_param *p, const gap_value *v) {
    if (v->none) {
        if (p->optional) return GAP_OK;
        return gap_fail(GAP_ERR_VALUE, "%s: %s must be given", owner, p->name);
    }
    switch (p->kind) {
    case GAP_ENUM: {
        int n = 0;
        while (p->choices[n] != NULL) n++;
        if (v->i < 0 || v->i >= n) return gap_fail(GAP_ERR_VALUE, "%s: %s: no choice %lld", owner, p->name, (long long)v->i);
        return GAP_OK;
    }
    case GAP_BOOL: return v->i == 0 || v->i == 1 ? GAP_OK : range_error(owner, p, (double)v->i);
    case GAP_INT: return in_range(p, (double)v->i) ? GAP_OK : range_error(owner, p, (double)v->i);
    case GAP_PAIR:
        if (!in_range(p, (double)v->i)) return range_error(owner, p, (double)v->i);
        return in_range(p, (double)v->i2) ? GAP_OK : range_error(owner, p, (double)v->i2);
    case GAP_FLOAT: return in_range(p, v->f[0]) ? GAP_OK : range_error(owner, p, v->f[0]);
    case GAP_INTS:
    case GAP_FLOATS: {
        int most = p->max_n > GAP_FLOATS_MAX && v->list != NULL ? p->max_n : GAP_FLOATS_MAX;
        const double *f = gap_value_floats(v);
        if (v->n < 0 || v->n > most)
            return gap_fail(GAP_ERR_VALUE, "%s: %s must hold at most %d numbers, got %d", owner, p->name,
                            p->max_n > 0 ? p->max_n : GAP_FLOATS_MAX, v->n);
        for (int j = 0; j < v->n; j++)
            if (!in_range(p, f[j])) return range_error(owner, p, f[j]);
        return GAP_OK;
    }
    }
    return gap_fail(GAP_ERR_INTERNAL, "%s: %s: unknown kind of parameter", owner, p->name);
}

gap_status gap_config_check(const char *owner, const gap_param *params, int n_params, const gap_value *v) {
    for (int k = 0; k < n_params; k++) {
        gap_status st = gap_param_check(owner, &params[k], &v[k]);
        if (st != GAP_OK) return st;
    }
    return GAP_OK;
}

#define _GNU_SOURCE
#include "bind/bind.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#define POLL_NS 50000000 /* the GIL is taken back at most this often */

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Python runs signal handlers in the process's first thread only; the others need not fight for the GIL. */
static bool is_main_thread(void) {
#if defined(__linux__)
    return syscall(SYS_gettid) == getpid();
#elif defined(__APPLE__)
    return pthread_main_np() != 0;
#else
    return true;
#endif
}

/* Called between chunks in the calling thread, without the GIL. Non-zero: a handler raised, abandon the call. */
static int interrupted(void *cookie) {
    gap_bind_call *call = cookie;
    int64_t now = now_ns();
    if (now - call->polled_ns < POLL_NS) return 0;
    call->polled_ns = now;
    PyEval_RestoreThread(call->thread);
    int raised = PyErr_Occurred() != NULL || PyErr_CheckSignals() < 0;
    call->thread = PyEval_SaveThread();
    return raised;
}

void gap_bind_begin(gap_bind_call *call) {
    call->may_poll = is_main_thread();
    call->polled_ns = now_ns();
    gap_interrupt_set(call->may_poll ? interrupted : NULL, call, &call->old_fn, &call->old_cookie);
    call->thread = PyEval_SaveThread();
}

int gap_bind_end(gap_bind_call *call, gap_status st) {
    PyEval_RestoreThread(call->thread);
    gap_interrupt_set(call->old_fn, call->old_cookie, NULL, NULL);
    if (st != GAP_OK) gap_bind_raise(st);
    return PyErr_Occurred() != NULL ? -1 : 0;
}

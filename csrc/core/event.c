#define _GNU_SOURCE /* syscall */
#include "core/event.h"

#include <limits.h>

/* GAP_NO_FUTEX: build the portable form on Linux too, to test it. */
#if defined(__linux__) && !defined(GAP_NO_FUTEX)

#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(gap_event) == 4, "a futex is four bytes");

void gap_event_wait(gap_event *e, uint32_t seen) { (void)syscall(SYS_futex, (void *)e, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0); }

void gap_event_ring(gap_event *e) {
    atomic_fetch_add(e, 1);
    (void)syscall(SYS_futex, (void *)e, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void gap_event_after_fork(void) {}

#else

#include <pthread.h>

/* One pair for all events: they ring only when somebody sleeps, and who is woken for another's event looks again. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;

void gap_event_wait(gap_event *e, uint32_t seen) {
    pthread_mutex_lock(&mutex);
    while (atomic_load(e) == seen) pthread_cond_wait(&moved, &mutex);
    pthread_mutex_unlock(&mutex);
}

void gap_event_ring(gap_event *e) {
    pthread_mutex_lock(&mutex);
    atomic_fetch_add(e, 1);
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&mutex);
}

void gap_event_after_fork(void) {
    pthread_mutex_init(&mutex, NULL);
    pthread_cond_init(&moved, NULL);
}

#endif

/* event.h — a number that a thread can sleep on until another moves it. A futex on Linux, a condition variable elsewhere.
 *
 * The one who waits:   seen = gap_event_now(e); say that you sleep; if (nothing to do yet) gap_event_wait(e, seen);
 * The one who wakes:   make the thing to do visible; if (somebody says that he sleeps) gap_event_ring(e);
 * With sequentially consistent accesses on both sides one of the two sees the other, so no wake-up is lost. A wait may end
 * without a reason: look again. Nothing here is undone by fork() but the waiters, who are gone in the child.
 */
#ifndef GAP_CORE_EVENT_H
#define GAP_CORE_EVENT_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint32_t gap_event; /* starts as 0 */

static inline uint32_t gap_event_now(gap_event *e) { return atomic_load(e); }
void gap_event_wait(gap_event *e, uint32_t seen); /* returns when *e is not `seen`, or earlier */
void gap_event_ring(gap_event *e);                /* moves *e and wakes all who wait on it */
void gap_event_after_fork(void);                  /* in the child, before any other use */

#endif

/* Two threads that pass a turn to and fro, on the system's form of an event and on the portable one. */
#include "core/event.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define GAP_NO_FUTEX
#define gap_event_wait portable_wait
#define gap_event_ring portable_ring
#define gap_event_after_fork portable_after_fork
void portable_wait(gap_event *e, uint32_t seen);
void portable_ring(gap_event *e);
void portable_after_fork(void);
#include "core/event.c"
#undef gap_event_wait
#undef gap_event_ring
#undef gap_event_after_fork

#define TURNS 5000

typedef struct {
    void (*wait)(gap_event *, uint32_t);
    void (*ring)(gap_event *);
    gap_event bell[2];
    atomic_bool asleep[2];
    atomic_int turn;
    int plain; /* moved by whoever has the turn: TSan sees whether the turns order it */
} table;

static void play(table *t, int me) {
    for (int k = 0; k < TURNS; k++) {
        atomic_store(&t->asleep[me], true);
        for (;;) {
            const uint32_t seen = gap_event_now(&t->bell[me]);
            if (atomic_load(&t->turn) == 2 * k + me) break;
            t->wait(&t->bell[me], seen);
        }
        atomic_store(&t->asleep[me], false);
        t->plain++;
        atomic_fetch_add(&t->turn, 1);
        if (atomic_load(&t->asleep[1 - me])) t->ring(&t->bell[1 - me]);
    }
}

static void *second_player(void *arg) { return play(arg, 1), NULL; }

static void two_players(table *t) {
    pthread_t other;
    CHECK(pthread_create(&other, NULL, second_player, t) == 0);
    play(t, 0);
    pthread_join(other, NULL);
    CHECK(t->plain == 2 * TURNS);
}

static void test_event_loses_no_wake_up(void) {
    table t = {.wait = gap_event_wait, .ring = gap_event_ring};
    two_players(&t);
}

static void test_event_portable_form_loses_no_wake_up(void) {
    table t = {.wait = portable_wait, .ring = portable_ring};
    two_players(&t);
}

static void test_event_wait_returns_when_it_moved_before(void) {
    gap_event e = 0;
    gap_event_ring(&e);
    gap_event_wait(&e, 0), portable_wait(&e, 0);
    CHECK(gap_event_now(&e) == 1);
    portable_ring(&e);
    gap_event_wait(&e, 1), portable_wait(&e, 1);
    CHECK(gap_event_now(&e) == 2);
}

#if !defined(__SANITIZE_THREAD__) /* TSan cannot follow new threads in a forked child */
static void test_event_works_in_a_forked_child(void) {
    const pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        gap_event_after_fork(), portable_after_fork();
        table t = {.wait = gap_event_wait, .ring = gap_event_ring}, u = {.wait = portable_wait, .ring = portable_ring};
        two_players(&t), two_players(&u);
        _exit(harness_broken != 0);
    }
    int status = 1;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}
#endif

int main(void) {
    RUN(test_event_loses_no_wake_up);
    RUN(test_event_portable_form_loses_no_wake_up);
    RUN(test_event_wait_returns_when_it_moved_before);
#if !defined(__SANITIZE_THREAD__)
    RUN(test_event_works_in_a_forked_child);
#endif
    return harness_end();
}

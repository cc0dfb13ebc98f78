/*
 * test_loop_task.c - the scheduler, with tasks that are C functions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "engine/loop/task.h"

typedef struct body {
    mb_task task; /* first */
    mb_wait wait;
    mb_timer *timer;
    int resumed;
    int rounds; /* how often to wait before ending */
    mb_code cancelled;
    bool polite; /* takes cancel requests */
} body;

static char order[64];

static bool resume(mb_task *task)
{
    body *b = (body *)task;
    b->resumed++;
    if (b->polite) {
        mb_code code = mb_task_take_cancel(task);
        if (code != MB_OK) {
            b->cancelled = code;
            mb_task_drop(task);
            return false;
        }
    }
    if (b->rounds-- == 0) {
        mb_task_drop(task);
        return false;
    }
    mb_wait_begin(&b->wait);
    mb_task_await(task, &b->wait);
    return true;
}

static bool resume_ordered(mb_task *task)
{
    strcat(order, task == NULL ? "?" : ((body *)task)->rounds == 1 ? "a" : "b");
    mb_task_drop(task);
    return false;
}

static void finish(void *owner)
{
    mb_wait_finish(&((body *)owner)->wait);
}

static mb_sched *sched;

static int setup(void **state)
{
    (void)state;
    sched = mb_sched_new();
    order[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mb_sched_free(sched);
    return 0;
}

static void test_runs_in_turn_order(void **state)
{
    (void)state;
    body a = {.rounds = 1};
    body b = {.rounds = 2};
    mb_task_start(sched, &a.task, resume_ordered);
    mb_task_start(sched, &b.task, resume_ordered);
    mb_sched_turn(sched);
    assert_string_equal(order, "ab");
}

static void test_wakes_after_a_timer(void **state)
{
    (void)state;
    body b = {.rounds = 1};
    b.timer = mb_timer_new(mb_sched_loop(sched), finish, &b);
    mb_timer_start(b.timer, 5);
    mb_task_start(sched, &b.task, resume);
    while (b.task.state != MB_TASK_DONE)
        mb_sched_turn(sched);
    assert_int_equal(b.resumed, 2);
    mb_timer_close(&b.timer);
}

static void note(void *owner)
{
    *(bool *)owner = true;
}

/* A timer that is due when the turn begins must end the turn, although nothing else is near. */
static void test_a_due_timer_ends_the_turn(void **state)
{
    (void)state;
    bool fired = false, far_fired = false;
    mb_loop *loop = mb_sched_loop(sched);
    mb_timer *due = mb_timer_new(loop, note, &fired);
    mb_timer *far = mb_timer_new(loop, note, &far_fired);
    mb_timer_start(due, 0);
    mb_timer_start(far, 5000);
    mb_loop_turn(loop, true);
    assert_true(fired);
    assert_false(far_fired);
    mb_timer_close(&due);
    mb_timer_close(&far);
}

static void test_finish_before_await_does_not_block(void **state)
{
    (void)state;
    body b = {.rounds = 0};
    mb_task_start(sched, &b.task, resume);
    b.wait.done = true;
    mb_sched_turn(sched);
    assert_int_equal(b.task.state, MB_TASK_DONE);
}

static int nudges;

static void nudge(mb_wait *wait)
{
    nudges++;
    mb_wait_finish(wait);
}

static void test_cancel_nudges_once_and_is_taken_once(void **state)
{
    (void)state;
    nudges = 0;
    body b = {.rounds = 3, .polite = true};
    b.wait.cancel = nudge;
    mb_task_start(sched, &b.task, resume);
    mb_sched_turn(sched);
    assert_int_equal(b.task.state, MB_TASK_WAITING);
    mb_task_cancel(&b.task, MB_INTERRUPTED);
    mb_task_cancel(&b.task, MB_TIMEOUT); /* only the first reason counts */
    assert_int_equal(nudges, 1);
    mb_sched_turn(sched);
    assert_int_equal(b.cancelled, MB_INTERRUPTED);
    assert_int_equal(b.task.state, MB_TASK_DONE);
}

static void test_cancel_before_the_wait_ends_the_wait(void **state)
{
    (void)state;
    nudges = 0;
    body b = {.rounds = 1};
    b.wait.cancel = nudge;
    mb_task_start(sched, &b.task, resume);
    mb_task_cancel(&b.task, MB_INTERRUPTED);
    mb_sched_turn(sched); /* the body does not look; its wait is cut short */
    assert_int_equal(nudges, 1);
    while (b.task.state != MB_TASK_DONE)
        mb_sched_turn(sched);
}

static void test_drop_forgets_a_waiting_task(void **state)
{
    (void)state;
    body b = {.rounds = 1};
    mb_task_start(sched, &b.task, resume);
    mb_sched_turn(sched);
    mb_task_drop(&b.task);
    mb_wait_finish(&b.wait); /* must not touch the task */
    assert_null(b.wait.task);
    assert_int_equal(b.resumed, 1);
}

static int work_ran, work_done;

static void work(void *arg)
{
    *(int *)arg = 1;
}

static void done(void *arg)
{
    (void)arg;
    work_done = 1;
}

static void test_blocking_work_comes_back_to_the_loop(void **state)
{
    (void)state;
    work_ran = work_done = 0;
    mb_work_run(mb_sched_loop(sched), work, done, &work_ran);
    while (!work_done)
        mb_loop_turn(mb_sched_loop(sched), true);
    assert_int_equal(work_ran, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_runs_in_turn_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wakes_after_a_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_due_timer_ends_the_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_finish_before_await_does_not_block, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel_nudges_once_and_is_taken_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel_before_the_wait_ends_the_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_forgets_a_waiting_task, setup, teardown),
        cmocka_unit_test_setup_teardown(test_blocking_work_comes_back_to_the_loop, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

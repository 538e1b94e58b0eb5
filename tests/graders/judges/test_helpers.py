"""Threads that lend a hand: every call is made once, in its place, and nobody waits for a busy helper."""

import contextvars
import os
import threading

import pytest

from graders.judges.helpers import Helpers

NAME = contextvars.ContextVar("NAME", default="")


def test_outcomes_stand_in_the_order_of_what_was_given():
    assert Helpers(4).map(lambda n: n * n, range(50), 5) == [n * n for n in range(50)]


def test_so_many_calls_are_under_way_together():
    together = threading.Barrier(4, timeout=20)
    Helpers(8).map(lambda _: together.wait(), range(4), 4)


def test_helpers_that_are_busy_are_not_waited_for():
    helpers, gate, holding = Helpers(1), threading.Event(), threading.Barrier(3, timeout=20)

    def hold(_):
        holding.wait()  # the caller and the only helper, with the test
        gate.wait(20)

    held = threading.Thread(target=helpers.map, args=(hold, range(2), 2))
    held.start()
    holding.wait()
    assert helpers.map(lambda n: n, range(10), 10) == list(range(10))
    gate.set()
    held.join(20)


def test_threads_are_kept_and_bounded():
    helpers, seen = Helpers(3), set()

    def note(_):
        seen.add(threading.current_thread())

    for _ in range(20):
        helpers.map(note, range(8), 8)
    assert len(seen - {threading.current_thread()}) <= 3


def test_what_a_call_raised_is_raised_once_all_have_ended():
    ended = []

    def call(n):
        ended.append(n)
        if n == 3:
            raise LookupError(n)

    with pytest.raises(LookupError, match="3"):
        Helpers(4).map(call, range(10), 4)
    assert sorted(ended) == list(range(10))


def test_helpers_work_in_the_context_of_who_called():
    NAME.set("job 7")
    together = threading.Barrier(3, timeout=20)
    assert Helpers(4).map(lambda _: (together.wait(), NAME.get())[1], range(3), 3) == ["job 7"] * 3


def test_a_forked_process_begins_with_helpers_of_its_own():
    helpers = Helpers(4)
    helpers.map(str, range(8), 8)
    os.register_at_fork(after_in_child=helpers.forget)
    if (child := os.fork()) == 0:
        together = threading.Barrier(4, timeout=20)
        try:
            helpers.map(lambda _: together.wait(), range(4), 4)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

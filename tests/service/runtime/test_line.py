"""The line of those who were refused: told times, kept promises, holes."""

from __future__ import annotations

import pytest

from service.runtime.line import Line


def test_each_is_told_a_later_time() -> None:
    line = Line(100)
    told = [line.join(0.0, 0.0, 0.5) for _ in range(20)]
    assert told == sorted(told)
    assert told[0] == 1
    assert told[-1] == pytest.approx(20 * 0.5 * 1.1, abs=1)


def test_first_waits_until_there_is_room() -> None:
    assert Line(100).join(50.0, 7.2, 0.1) == 8


def test_nobody_is_sent_away_for_more_than_a_minute() -> None:
    line = Line(100)
    assert [line.join(0.0, 1000.0, 1.0) for _ in range(3)] == [60, 60, 60]


def test_promise_is_due_from_its_time_until_it_is_claimed() -> None:
    line = Line(100)
    assert line.join(10.0, 0.0, 0.1) == 1
    assert not line.due(10.99)
    assert line.due(11.0)
    line.claim()
    assert not line.due(11.0)


def test_promise_that_nobody_keeps_expires() -> None:
    line = Line(100)
    line.join(10.0, 0.0, 0.1)
    assert line.due(11.4)
    assert not line.due(12.0)
    assert len(line) == 0


def test_promises_come_due_by_time_not_by_order() -> None:
    line = Line(100)
    assert line.join(10.5, 0.0, 0.8) == 1  # at 11.5
    assert line.join(10.6, 0.0, 0.1) == 1  # at 11.6
    assert line.join(10.2, 0.0, 0.0) == 2  # at 12.2
    assert line.due(11.55)
    line.claim()
    assert not line.due(11.55)
    assert len(line) == 2


def test_flood_takes_no_memory() -> None:
    line = Line(10)
    for _ in range(1000):
        line.join(0.0, 0.0, 0.001)
    assert len(line) == 10


def test_cleared_line_expects_nobody() -> None:
    line = Line(100)
    line.join(0.0, 30.0, 1.0)
    line.clear()
    assert len(line) == 0
    assert not line.due(31.5)
    assert line.join(0.0, 0.0, 0.1) == 1

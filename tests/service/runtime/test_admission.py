"""Admission with a clock of the test's own: what is promised, who is refused, and that what they are told holds."""

from __future__ import annotations

import contextlib
import heapq
import random

import pytest

from service.errors import Overloaded
from service.runtime.admission import WORK_PER_IMAGE, Admission, Ticket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def per_second(requests: float) -> float:
    """The rate, in work, of a service that answers so many requests of no pixels in a second."""
    return requests * WORK_PER_IMAGE


def admit(admission: Admission, timeout_s: float) -> Ticket:
    ticket = admission.admit(timeout_s)
    ticket.begin()
    ticket.weigh(0, 1)
    return ticket


def fill(admission: Admission, timeout_s: float) -> list[Ticket]:
    tickets = []
    try:
        while len(tickets) < 100_000:
            tickets.append(admit(admission, timeout_s))
    except Overloaded:
        return tickets
    raise AssertionError("the queue has no end")


def test_queue_is_as_long_as_the_limit_allows() -> None:
    assert len(fill(Admission(per_second(10), max_waiting=1000, clock=Clock()), 2.0)) == 14  # 0.7 × 2 s × 10/s
    assert len(fill(Admission(per_second(10), max_waiting=1000, clock=Clock()), 4.0)) == 28


def test_empty_queue_takes_anyone_however_slow_it_is_thought_to_be() -> None:
    admission = Admission(per_second(0.001), max_waiting=1000, clock=Clock())
    assert len(fill(admission, 1.0)) == 1


def test_refusal_says_when_and_how_many() -> None:
    admission = Admission(per_second(10), max_waiting=1000, clock=Clock())
    fill(admission, 2.0)
    with pytest.raises(
        Overloaded, match=r"within 2 s, it would take about 1\.5 s: 14 requests are before it"
    ) as caught:
        admission.admit(2.0)
    assert caught.value.retry_after_s == 1
    assert admission.refused == 2


def test_max_waiting_bounds_the_queue_whatever_the_time() -> None:
    admission = Admission(per_second(1e6), max_waiting=5, clock=Clock())
    assert len(fill(admission, 3600.0)) == 5


def test_refused_are_sent_back_one_after_the_other() -> None:
    admission = Admission(per_second(10), max_waiting=1000, clock=Clock())
    fill(admission, 2.0)
    told = []
    for _ in range(100):
        with pytest.raises(Overloaded) as caught:
            admission.admit(2.0)
        told.append(caught.value.retry_after_s)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(100 * 1.1 / 10, abs=1)  # a little slower than 10/s


def test_nobody_is_sent_away_for_more_than_a_minute() -> None:
    admission = Admission(per_second(0.1), max_waiting=1000, clock=Clock())
    fill(admission, 30.0)
    for _ in range(1000):
        with pytest.raises(Overloaded) as caught:
            admission.admit(30.0)
    assert caught.value.retry_after_s == 60


def test_rate_follows_what_is_measured() -> None:
    clock = Clock()
    admission = Admission(per_second(1000), max_waiting=1000, clock=clock)
    for _ in range(200):  # answers take 0.1 s, warm-up had said 1 ms
        ticket = admit(admission, 30.0)
        clock.now += 0.1
        ticket.leave(answered=True)
    assert admission.rate == pytest.approx(per_second(10), rel=0.05)


def test_idle_time_and_slow_senders_do_not_count_as_service() -> None:
    clock = Clock()
    admission = Admission(per_second(10), max_waiting=1000, clock=clock)
    for _ in range(50):
        ticket = admission.admit(30.0)
        clock.now += 5.0  # its body comes slowly
        ticket.begin()
        ticket.weigh(0, 1)
        clock.now += 0.1
        ticket.leave(answered=True)
        clock.now += 60.0  # nobody is there
    assert admission.rate == pytest.approx(per_second(10), rel=0.05)


def test_larger_images_are_more_work() -> None:
    admission = Admission(per_second(10), max_waiting=1000, clock=Clock())
    ticket = admission.admit(30.0)
    before = admission.wait_s()
    ticket.begin()
    ticket.weigh(1_000_000, 1)
    assert admission.wait_s() > before + 1_000_000 / per_second(10) * 0.99


def test_who_leaves_unanswered_gives_the_place_back_without_counting() -> None:
    clock = Clock()
    admission = Admission(per_second(10), max_waiting=1000, clock=clock)
    rate = admission.rate
    tickets = [admit(admission, 30.0) for _ in range(5)]
    for ticket in tickets:
        ticket.leave(answered=False)
    assert (admission.waiting, admission.backlog) == (0, 0)
    assert admission.rate == rate


def test_first_crowd_is_judged_by_what_it_brings() -> None:
    """A burst after the start: warm-up knew nothing of its size, and the first picture that is decoded tells."""
    admission = Admission(per_second(1000), max_waiting=1000, clock=Clock())
    tickets = [admission.admit(2.0) for _ in range(20)]
    tickets[0].weigh(99 * WORK_PER_IMAGE, 1)
    assert admission.wait_s() == pytest.approx(21 * 100 / 1000)
    with pytest.raises(Overloaded):
        admission.admit(2.0)


def test_first_crowd_is_judged_by_the_length_of_its_bodies() -> None:
    """256 photographs of 45 kB in one instant, before one of them is decoded: about 1.4 s of work is let in."""
    admission = Admission(1e6, max_waiting=1000, clock=Clock())
    admitted = 0
    for _ in range(256):
        with contextlib.suppress(Overloaded):
            admission.admit(2.0, 45_000)
            admitted += 1
    assert admitted == 7  # 0.7 × 2 s × 1e6 / (4 × 45 000)


def test_slow_senders_keep_nobody_out() -> None:
    clock = Clock()
    admission = Admission(per_second(10), max_waiting=1000, clock=clock)
    slow = [admission.admit(2.0) for _ in range(14)]
    with pytest.raises(Overloaded):
        admission.admit(2.0)
    clock.now += 0.3
    quick = fill(admission, 2.0)
    assert len(quick) == 14
    with pytest.raises(Overloaded, match="28 requests are before it"):
        slow[0].begin()  # its body has come, and there is no place any more
    for ticket in quick:
        ticket.leave(answered=False)
    slow[1].begin()
    slow[1].weigh(0, 1)
    assert admission.backlog == WORK_PER_IMAGE
    for ticket in slow:
        ticket.leave(answered=False)
    assert (admission.waiting, admission.backlog) == (0, 0)


def test_sender_as_quick_as_most_has_its_place() -> None:
    clock = Clock()
    admission = Admission(per_second(10), max_waiting=1000, clock=clock)
    ticket = admission.admit(2.0)
    clock.now += 0.2
    fill(admission, 2.0)
    ticket.begin()
    assert admission.backlog == 14 * WORK_PER_IMAGE


def test_places_that_get_free_are_kept_for_those_who_were_sent_away() -> None:
    clock = Clock()
    admission = Admission(per_second(10), max_waiting=1000, clock=clock)
    tickets = fill(admission, 2.0)  # the last one was told to come back in 1 s
    for _ in range(3):
        clock.now += 0.1
        tickets.pop().leave(answered=True)
    with pytest.raises(Overloaded, match="1 were refused before it"):
        admission.admit(2.0)
    clock.now = 101.01
    admit(admission, 2.0)
    with pytest.raises(Overloaded):
        admission.admit(2.0)


def test_short_queue_takes_newcomers_whoever_is_expected_back() -> None:
    clock = Clock()
    admission = Admission(per_second(10), max_waiting=1000, clock=clock)
    tickets = fill(admission, 2.0)
    for _ in range(8):
        tickets.pop().leave(answered=True)
    admit(admission, 2.0)


def test_empty_queue_forgets_who_was_sent_away() -> None:
    admission = Admission(per_second(10), max_waiting=1000, clock=Clock())
    for ticket in fill(admission, 2.0):
        ticket.leave(answered=False)
    assert len(fill(admission, 2.0)) == 14


def test_one_that_ran_into_its_limit_does_not_speak_for_the_others() -> None:
    """What it had done by then is not known; as nothing, the rate would be a four-hundredth of what it was."""
    clock = Clock()
    admission = Admission(per_second(10), max_waiting=1000, clock=clock)
    for _ in range(30):
        ticket = admit(admission, 2.0)
        clock.now += 0.1
        ticket.leave(answered=True)
    heavy = admission.admit(30.0)
    heavy.begin()
    heavy.weigh(10**9, 1)
    clock.now += 30.0
    heavy.leave(answered=False)
    assert admission.rate == pytest.approx(per_second(10))


def test_those_who_were_answered_beside_one_that_was_not_say_how_fast_it_was() -> None:
    clock = Clock()
    admission = Admission(per_second(10), max_waiting=1000, clock=clock)
    hopeless = admit(admission, 30.0)
    for _ in range(30):
        ticket = admit(admission, 30.0)
        clock.now += 1.0
        ticket.leave(answered=True)
    hopeless.leave(answered=False)
    assert admission.rate == pytest.approx(per_second(1), rel=0.3)


@pytest.mark.parametrize(("clients", "per_s"), [(256, 12), (256, 23), (64, 23)])
def test_crowd_that_honours_retry_after_keeps_the_service_busy_and_finds_a_place(clients: int, per_s: int) -> None:
    """Clients with 2 s of patience that send again as soon as they are answered, simulated for a minute, at ±10 % a run."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    clock = Clock()
    admission = Admission(per_second(per_s), max_waiting=4096, clock=clock)
    arrivals = [(100.0 + i * 1e-3, i, False) for i in range(clients)]
    heapq.heapify(arrivals)
    queue: list[tuple[float, int, Ticket]] = []
    begun_s, run_s = 100.0, 0.0
    answered, late, refused, returned_well, returned_in_vain, served = 0, 0, 0, 0, 0, set()
    while arrivals[0][0] < 160.0 or queue:
        if queue and begun_s + run_s <= arrivals[0][0]:
            clock.now = begun_s + run_s
            came, client, ticket = queue.pop(0)
            ticket.leave(answered=True)
            answered, late = answered + 1, late + (clock.now - came > 2.0)
            served.add(client)
            heapq.heappush(arrivals, (clock.now + rng.uniform(0, 0.002), client, False))
            begun_s, run_s = clock.now, rng.uniform(0.9, 1.1) / per_s
            if clock.now > 160.0:
                break
            continue
        clock.now, client, returned = heapq.heappop(arrivals)
        try:
            queue.append((clock.now, client, admit(admission, 2.0)))
            returned_well += returned
            if len(queue) == 1:
                begun_s, run_s = clock.now, rng.uniform(0.9, 1.1) / per_s
        except Overloaded as refusal:
            refused += 1
            returned_in_vain += returned
            heapq.heappush(arrivals, (clock.now + refusal.retry_after_s + rng.uniform(0, 0.01), client, True))
    assert answered >= 0.98 * per_s * 60
    assert late == 0
    assert len(served) >= 0.9 * clients
    assert returned_well >= 0.7 * (returned_well + returned_in_vain)
    assert refused <= 1.4 * answered

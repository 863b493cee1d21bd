"""Saves cost at most 1 % of a slide's time and a kill repeats at most 10 % of it, on a clock and disks of our own."""

from __future__ import annotations

import random

import pytest

from wsiseg.jobs.pace import COST, FIRST, RATE, SAFETY, STEP, Pace, Prices, worth_saving

SIZE = 300_000  # bytes of a save: a slide 100,000 pixels wide


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def play(
    seconds: float, row: float, cost: float, spread: float = 1.0, prices: Prices | None = None, seed: int = 0
) -> tuple[float, float]:
    """Plays one slide of rows; returns the saves' share of its time, and the largest share that a kill would repeat."""
    dice, clock = random.Random(seed), Clock()
    pace = Pace(prices or Prices(), clock)
    saved = largest = 0.0
    while clock.now < seconds:
        clock.now += row
        largest = max(largest, clock.now - saved)  # killed just before the row is finished
        if pace.due(SIZE):
            took = cost * dice.uniform(1 / spread, spread)
            pace.taken()
            saved = clock.now
            clock.now += took  # as if nothing else went on meanwhile
            pace.saved(took, SIZE)
    return pace.paid / clock.now, largest / clock.now


# the slowest of them takes what a save counts as before anything was measured, and up to twice that
@pytest.mark.parametrize("cost", [0.0001, 0.01, 0.05, FIRST])
@pytest.mark.parametrize("seconds", [5.0, 30.0, 300.0, 3600.0, 40_000.0])
@pytest.mark.parametrize("seed", range(5))
def test_saves_cost_at_most_one_percent(seconds: float, cost: float, seed: int) -> None:
    share, _ = play(seconds, seconds / 300, cost, spread=2.0, seed=seed)
    assert share <= COST


@pytest.mark.parametrize("cost", [0.0001, 0.01, 0.05, 0.2, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_kill_repeats_at_most_a_tenth_of_a_slide_that_is_long_enough(cost: float, seed: int) -> None:
    # the stated length, and with some room for a price that is above the usual one by chance
    seconds = max(2 * SAFETY / COST / STEP * cost, SAFETY * (FIRST + SIZE / RATE) / COST / STEP)
    for longer in (1.0, 3.0, 20.0):
        _, repeated = play(longer * seconds, longer * seconds / 300, cost, spread=1.2, seed=seed)
        assert repeated <= 0.1


def test_a_process_that_knows_its_disk_saves_short_slides_too() -> None:
    prices = Prices()
    first_share, first = play(30.0, 0.1, 0.005, prices=prices)
    share, repeated = play(30.0, 0.1, 0.005, prices=prices)
    assert first > 0.1  # the first slide of a process rather repeats than pays
    assert repeated <= 0.1
    assert max(share, first_share) <= COST


@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_a_disk_that_is_slower_than_thought_is_asked_once(seconds: float) -> None:
    clock = Clock()
    pace = Pace(Prices(), clock)
    saves = []
    while clock.now < 100 * seconds - 1:
        clock.now += 0.5
        if pace.due(SIZE):
            saves.append(clock.now)
            pace.taken()
            pace.saved(seconds, SIZE)
    assert len(saves) == 1


def test_a_slow_save_is_an_exception_until_it_is_usual() -> None:
    prices = Prices()
    for seconds in (0.01, 0.01, 0.6):
        prices.note(seconds, SIZE)
    assert prices.price(SIZE) == SAFETY * 0.01
    prices.note(0.6, SIZE)
    assert prices.price(SIZE) == SAFETY * 0.6
    assert prices.price(SIZE + 10 * int(RATE)) == pytest.approx(SAFETY * 10.6)


def test_what_earlier_processes_spent_counts_for_what_is_worth_it_but_not_for_what_is_affordable() -> None:
    assert not worth_saving(elapsed=10, since=10, paid=0, price=0.01, before=1000)
    assert worth_saving(elapsed=60, since=60, paid=0, price=0.01, before=1000)
    assert not worth_saving(elapsed=60, since=60, paid=0, price=0.61, before=1000)
    assert not worth_saving(elapsed=60, since=60, paid=0.6, price=0.01)


def test_a_noisy_mask_does_not_outrun_its_first_save() -> None:
    """What is unsaved grows by a third of a megabyte a second, and its price must grow more slowly than what may be paid."""
    due = [t for t in range(1, 61) if worth_saving(t, t, 0.0, Prices().price(330_000 * t))]
    assert due[0] < 20

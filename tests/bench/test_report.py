"""The figures that follow from measurements: ideal, efficiency, what binds, advice; and the JSON they travel in."""

from __future__ import annotations

import dataclasses
import json

import pytest

from wsiseg.bench.clock import Cost, median, on_threads
from wsiseg.bench.report import CLOCK, CPU, DEVICE, Report, Stage
from wsiseg.errors import UsageError


def report(
    decode: float = 2.0,
    infer: float = 6.0,
    wall: float = 5.0,
    cpu: float = 9.0,
    device: bool = False,
    **more: object,
) -> Report:
    """A slide of 100 Mpx on two cores; `infer` is CPU seconds, or seconds of the device."""
    stages = (
        Stage("decode", "", 2, decode / 2, decode),
        Stage("shrink", "", 2, 0.1, 0.2),
        Stage(
            "inference",
            "",
            2,
            infer if device else infer / 2,
            0.1 if device else infer,
            DEVICE if device else CPU,
        ),
        Stage("blend", "", 1, 0.1, 0.1),
        Stage("write", "", 1, 0.05, 0.001, CLOCK),
    )
    values: dict[str, object] = {
        "slide": "a.tif", "pixels": 100_000_000, "tiles": 50.0, "empty": 0.0, "model": "m", "session": "s", "settings": {"tile": 512},
        "cores": 2, "stages": stages, "wall": wall, "cpu": cpu, "slides": 3.0, "waits": {}, "peak": 1, "planned": 2, "budget": 3,
    }  # fmt: skip
    return Report(**(values | more))  # type: ignore[arg-type]


def test_on_a_cpu_the_ideal_is_the_cpu_work_over_the_cores() -> None:
    found = report()
    assert found.ideal == (2 + 6) / 2
    assert found.efficiency == 4 / 5
    assert found.cpu_efficiency == 8 / 9
    assert found.idle == pytest.approx(1 - 9 / 2 / 5)
    assert found.binding == "inference"
    assert found.speed(found.wall) == 20
    assert found.slides_per_hour == 720


def test_on_a_device_the_ideal_is_the_slower_of_device_and_cpu() -> None:
    fast = report(decode=2.0, infer=0.5, wall=1.5, device=True)
    assert fast.ideal == (2.0 + 0.1) / 2
    assert fast.binding == "decode"
    slow = report(decode=2.0, infer=4.0, wall=5.0, device=True)
    assert slow.ideal == 4.0
    assert slow.binding == "inference"
    assert slow.idle == pytest.approx(0.2)


def test_a_stage_is_as_fast_as_what_bounds_it() -> None:
    assert Stage("a", "", 4, 9.0, 2.0, CPU).seconds == 0.5
    assert Stage("a", "", 4, 9.0, 2.0, DEVICE).seconds == 9.0


def test_advice_names_the_stage_and_the_option() -> None:
    assert "Reading is the limit" in report(decode=9.0, infer=1.0).advice()
    assert "network is the limit" in report(wall=4.2, cpu=8.4).advice()
    assert "--sweep" in report(wall=9.0).advice()
    assert "--batch" in report(decode=0.2, infer=4.0, wall=8.0, device=True).advice()
    assert "Other programs took 40%" in report(quiet=0.6).advice()


def test_a_report_comes_back_from_its_json() -> None:
    found = report(machine={"processor": "x"})
    text = found.to_json()
    assert Report.from_json(text, "a.json") == found
    assert json.loads(text)["figures"]["binding"] == "inference"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "stages": 3}'])
def test_other_json_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"old\.json: not a report"):
        Report.from_json(text, "old.json")


def test_costs_scale_to_an_amount_and_their_medians_are_taken() -> None:
    assert Cost(2.0, 4.0, 10.0).per(5.0) == Cost(1.0, 2.0, 5.0)
    costs = [Cost(1.0, 1.0, 10.0), Cost(2.0, 2.0, 10.0), Cost(90.0, 90.0, 10.0), Cost(0.0, 0.0, 0.0)]
    assert median(costs, 5.0) == Cost(1.0, 1.0, 5.0)
    assert median([], 5.0) == Cost(0.0, 0.0, 0.0)


def test_threads_share_the_work_and_end_with_it() -> None:
    left = list(range(10))

    def worker():  # type: ignore[no-untyped-def]
        def step() -> float | None:
            try:
                left.pop()
            except IndexError:
                return None
            return 2.0

        return step

    assert on_threads(3, 60.0, worker).amount == 20.0


def test_a_step_that_fails_fails_the_measurement() -> None:
    def worker():  # type: ignore[no-untyped-def]
        def step() -> float:
            raise KeyError("broken")

        return step

    with pytest.raises(KeyError, match="broken"):
        on_threads(2, 60.0, worker)


def test_figures_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        report().wall = 1.0  # type: ignore[misc]

"""The cache key changes with every part, and a plan of another machine is refused by the part's name."""

from __future__ import annotations

import dataclasses

import pytest

from wsiseg.engines.key import (
    BuildOptions,
    Machine,
    check_machine,
    check_sizes,
    engine_key,
    key_parts,
    timing_cache_name,
)
from wsiseg.errors import EngineError

HERE = Machine("10.16.1", "NVIDIA A100-SXM4-80GB", "8.0", "CUDA 13")
OPTIONS = BuildOptions("fp16", 512, 8)


def test_every_part_changes_the_key() -> None:
    keys = {engine_key("a", HERE, OPTIONS), engine_key("b", HERE, OPTIONS)}
    for field in dataclasses.fields(Machine):
        keys.add(engine_key("a", dataclasses.replace(HERE, **{field.name: "other"}), OPTIONS))
    for field in dataclasses.fields(BuildOptions):
        value = getattr(OPTIONS, field.name)
        other = (
            (not value) if isinstance(value, bool) else (value + 1 if isinstance(value, int) else value + "x")
        )
        keys.add(engine_key("a", HERE, dataclasses.replace(OPTIONS, **{field.name: other})))
    assert len(keys) == 2 + len(dataclasses.fields(Machine)) + len(dataclasses.fields(BuildOptions))


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("runtime_version", "11.4.0", "TensorRT version 11.4.0, this machine has 10.16.1"),
        ("gpu", "NVIDIA H200", "GPU NVIDIA H200, this machine has NVIDIA A100"),
        ("compute_capability", "9.0", "compute capability 9.0, this machine has 8.0"),
        ("driver", "CUDA 12", "driver generation CUDA 12, this machine has CUDA 13"),
    ],
)
def test_another_machine_s_plan(part: str, value: str, words: str) -> None:
    stated = key_parts("a", HERE, OPTIONS)
    check_machine(stated, HERE, "x.engine", "wsiseg build-engine x.pt")
    with pytest.raises(EngineError, match=words) as caught:
        check_machine({**stated, part: value}, HERE, "x.engine", "wsiseg build-engine x.pt")
    assert "`wsiseg build-engine x.pt`" in str(caught.value)
    with pytest.raises(EngineError, match="unknown"):
        check_machine({}, HERE, "x.engine", "f")


def test_another_tile_or_batch() -> None:
    check_sizes(512, 8, 512, 8, "x.engine", "f")
    check_sizes(0, 0, 256, 64, "x.engine", "f")
    with pytest.raises(
        EngineError, match="built for tile 512, asked for 256; run with --tile 512, or `f --tile 256`"
    ):
        check_sizes(512, 8, 256, 8, "x.engine", "f")
    with pytest.raises(EngineError, match="batches up to 8, asked for 9"):
        check_sizes(512, 8, 512, 9, "x.engine", "f")


def test_timing_caches_are_kept_apart() -> None:
    assert timing_cache_name(HERE) == timing_cache_name(HERE)
    assert timing_cache_name(HERE) != timing_cache_name(dataclasses.replace(HERE, gpu="other"))
    assert timing_cache_name(HERE) != timing_cache_name(dataclasses.replace(HERE, runtime_version="11.4.0"))

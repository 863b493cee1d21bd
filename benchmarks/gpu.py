"""Everything about GPUs in one command of under 8 minutes: correctness, tiles/s, Mpx/s, busy share, memory, bottleneck.

    python -m benchmarks.gpu                              # on a GPU machine
    python -m benchmarks.gpu --tensorrt8 PREFIX           # with TensorRT 8.6 from its pack, unpacked at PREFIX
    python -m benchmarks.gpu --dry-run                    # anywhere: every step that needs no GPU, rehearsals of the rest

It leaves gpu.json and gpu.md in benchmarks/results (gpu-dry-run.* of a rehearsal, in --output only). A step that cannot
be done says what it needs; a step that fails says why; the others go on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import gpu_steps, harness
from wsiseg.engines import cuda_driver

LIMIT = 450  # seconds; a step is not begun later than this
PACKAGES = ("numpy", "numba", "numba-cuda", "torch", "tensorrt", "openvino", "onnx")


def run(context: gpu_steps.Context, chosen: list[str]) -> dict[str, Any]:
    """The outcome of each step: {"state": done, missing, failed or late, "seconds", and "result" or "reason"}."""
    started, outcomes = time.perf_counter(), {}
    for name in chosen:
        since = time.perf_counter()
        if since - started > LIMIT:
            outcomes[name] = {"state": "late", "seconds": 0.0, "reason": f"{LIMIT} s were over"}
            continue
        try:
            outcome: dict[str, Any] = {"state": "done", "result": gpu_steps.STEPS[name](context)}
        except gpu_steps.Missing as error:
            outcome = {"state": "missing", "reason": str(error)}
        except Exception as error:  # one step's failure is a finding, and the others are wanted all the same
            outcome = {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
        outcome["seconds"] = round(time.perf_counter() - since, 1)
        outcomes[name] = outcome
        print(f"{name}: {outcome['state']} in {outcome['seconds']} s {outcome.get('reason', '')}", flush=True)
    return outcomes


def markdown(facts: dict[str, str], outcomes: dict[str, Any], title: str) -> str:
    """The outcomes for people: a table of steps, then a table of speeds."""
    lines = [
        f"# {title}",
        "",
        ", ".join(f"{k} {v}" for k, v in facts.items()),
        "",
        "| step | state | seconds | what |",
        "| --- | --- | ---: | --- |",
    ]
    for name, outcome in outcomes.items():
        lines.append(
            f"| {name} | {outcome['state']} | {outcome['seconds']} | {outcome.get('reason') or summary(outcome['result'])} |"
        )
    for name in ("torch", "tensorrt"):
        rows = outcomes.get(name, {}).get("result", {}).get("speed", ())
        if rows:
            lines += [
                "",
                f"## {name}: tiles per second",
                "",
                "| batch | CUDA graph | tiles/s |",
                "| ---: | --- | ---: |",
            ]
            lines += [
                f"| {r['batch']} | {'yes' if r['graphs'] else 'no'} | {r['tiles per second']:.1f} |"
                for r in rows
            ]
    return "\n".join(lines) + "\n"


def summary(result: dict[str, Any]) -> str:
    """The figures of a step that are not tables, on one line."""
    flat = []
    for key, value in result.items():
        if isinstance(value, dict):
            inner = {
                k: v
                for k, v in value.items()
                if isinstance(v, int | float | str) and k not in ("source", "limit")
            }
            flat.append(
                f"{key}: "
                + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in inner.items())
                if inner
                else key
            )
        elif isinstance(value, int | float | str) and value != "":
            flat.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    return "; ".join(flat).replace("|", "/")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry-run", action="store_true", help="small sizes, no GPU needed")
    parser.add_argument(
        "--steps", default=",".join(gpu_steps.STEPS), help="some of: " + ", ".join(gpu_steps.STEPS)
    )
    parser.add_argument(
        "--tensorrt8", type=Path, metavar="PREFIX", help="where the pack of TensorRT 8.6 was unpacked"
    )
    parser.add_argument(
        "--inputs",
        type=Path,
        metavar="DIR",
        help="the folder that --keep wrote on a machine with onnx",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the graphs here, to carry them to a GPU machine"
    )
    parser.add_argument("--output", type=Path, default=harness.RESULTS)
    args = parser.parse_args()
    driver = cuda_driver.probe()
    if not driver.gpus and not args.dry_run:
        print(f"no GPU: {driver.reason}; --dry-run does every step that needs none")
        return 2
    gpu = bool(driver.gpus) and not args.dry_run
    chosen = [name.strip() for name in args.steps.split(",")]
    unknown = [name for name in chosen if name not in gpu_steps.STEPS]
    if unknown:
        parser.error(f"unknown step {unknown[0]!r}; known: {', '.join(gpu_steps.STEPS)}")
    with tempfile.TemporaryDirectory(prefix="wsiseg-gpu-") as name:
        folder = Path(name)
        for path in args.inputs.iterdir() if args.inputs else ():
            shutil.copy(path, folder)
        small: dict[str, Any] = {} if gpu else {"tile": 64, "batches": (1, 2), "seconds": 0.05}
        if args.keep:
            small["tile"] = 512  # graphs are made for one tile
        context = gpu_steps.Context(gpu, folder, args.tensorrt8, **small)
        outcomes = run(context, chosen)
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            for path in [*folder.glob("network*.onnx"), *folder.glob("reference.npz")]:
                shutil.copy(path, args.keep)
    facts, title = harness.machine(PACKAGES), "gpu" if gpu else "gpu-dry-run"
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / f"{title}.json").write_text(
        json.dumps({"machine": facts, "steps": outcomes, "notes": context.notes}, indent=1, default=str)
        + "\n"
    )
    (args.output / f"{title}.md").write_text(markdown(facts, outcomes, title))
    print(f"{args.output / title}.json and .md")
    return 1 if any(o["state"] == "failed" for o in outcomes.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())

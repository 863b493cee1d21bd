"""How close does the pipeline come to the ideal: the CPU work of bare decoding and bare inference over the cores?

python -m benchmarks.pipeline                 # about two minutes; writes benchmarks/results/pipeline.{json,md}
python -m benchmarks.pipeline --seconds 15 --only light

Targets on two cores: 1.10 times the ideal for a network of U-Net ResNet34's size, 1.20 where decoding is the limit.
The figures in CPU time hold on a busy machine too; those on the clock only when nothing else runs.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path

from benchmarks import harness, networks
from wsiseg.bench.report import Report
from wsiseg.bench.run import measure
from wsiseg.geometry import Size
from wsiseg.limits import available_cores
from wsiseg.pipeline.config import RunConfig
from wsiseg.pipeline.options import RunOptions, SlideFailure, SlideTask
from wsiseg.pipeline.start import start
from wsiseg.resident import tighten_allocator
from wsiseg.synth import Scene, write_slide
from wsiseg.units import parse_width_height

SIZE = "24576x16384"  # a slide of the usual size: what a slide costs once is then a small part
# Name, network (None: the bundled one), scale, threshold (None: the model's), target. Two convolutions of random weights say
# something near 0.5 of every pixel: only a higher threshold gives a mask of about as many runs as a trained network's.
CASES = {
    "resnet34": ("U-Net ResNet34 size, scale 4", networks.unet_resnet34, 4, None, 1.10),
    "bundled": ("bundled network, scale 6", None, 6, None, 1.20),
    "light": ("two convolutions, scale 8: decoding is the limit", networks.light, 8, 0.7, 1.20),
}
COLUMNS = (
    "case",
    "ideal s",
    "pipeline s",
    "times ideal",
    "CPU s ideal",
    "CPU s pipeline",
    "times ideal in CPU",
    "target",
    "idle",
    "cores got",
)


def case(name: str, slide: Path, folder: Path, seconds: float) -> tuple[Report, int]:
    """One network on one slide, everything in one process; and how many runs its mask has."""
    _, layers, scale, threshold, _ = CASES[name]
    model = "glomeruli"
    if layers is not None:
        path = folder / f"{name}.onnx"
        path.write_bytes(networks.onnx_model(layers(), name, tile=512, overlap=0.25))
        model = str(path)
    options = RunOptions(tile=512, overlap=0.25, scale=scale, level="0", tissue="none", threshold=threshold)
    config = RunConfig(models=(model,), memory=4 << 30, threads=available_cores(), options=options)
    with start(config, lambda job, share: None) as started:
        [outcome] = started.processor.process([SlideTask(0, slide.stem, str(slide))], threading.Event())
        if isinstance(outcome, SlideFailure):
            raise SystemExit(outcome.error)
        runs = len(outcome.runs[0].starts)
    return measure(config, str(slide), seconds), runs


def row(name: str, report: Report) -> tuple[str | float, ...]:
    title, _, _, _, target = CASES[name]
    cpu = report.stage("decode").cpu + report.stage("inference").cpu
    return (
        title, report.ideal, report.wall, report.wall / report.ideal, cpu, report.cpu, report.cpu / cpu, target,
        f"{report.idle:.0%}", f"{report.quiet:.0%}",
    )  # fmt: skip


def stages(name: str, report: Report) -> harness.Facts:
    """Where the pipeline's CPU time goes."""
    parts = [(s.name, s.cpu, f"{s.cpu / report.cpu:.1%}") for s in report.stages]
    rest = report.cpu - sum(s.cpu for s in report.stages)
    return harness.facts(
        f"Where the CPU time goes: {CASES[name][0]}",
        ("stage", "CPU s per slide", "share"),
        [*parts, ("the rest (cutting tiles, queues, interpreter)", rest, f"{rest / report.cpu:.1%}")],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30, help="for each case")
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--size", default=SIZE, metavar="WIDTHxHEIGHT", help="of the synthetic slide")
    args = parser.parse_args()
    size = Size(*parse_width_height(args.size))
    tighten_allocator()
    names = [args.only] if args.only else list(CASES)
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "slide.tif"
        write_slide(slide, Scene(size, 1), "tiled-jpeg")
        measured = {name: case(name, slide, Path(folder), args.seconds) for name in names}
    reports = {name: report for name, (report, _) in measured.items()}
    question = f"Pipeline against ideal: JPEG slide of {size}, tile 512, overlap 25 %, every tile run"
    notes = [
        f"{CASES[name][0]}: {report.session}; {report.tiles:.0f} tiles; the mask has {runs:,} runs"
        for name, (report, runs) in measured.items()
    ]
    notes.append(
        "the networks of random weights come from benchmarks/networks.py; cores got: below 100 % other programs ran"
    )
    tables = [
        harness.facts(question, COLUMNS, [row(name, report) for name, report in reports.items()], notes)
    ]
    tables += [stages(name, report) for name, report in reports.items()]
    if not args.only:
        harness.write("pipeline", tables, ["numpy", "numba", "openvino", "imagecodecs"])


if __name__ == "__main__":
    main()

"""`wsiseg run --dry-run`: the memory plan of each slide as a table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from wsiseg.errors import SlideError
from wsiseg.jobs.manifest import Manifest
from wsiseg.pipeline.config import RunConfig
from wsiseg.pipeline.job import SlideJob
from wsiseg.pipeline.options import SlideTask
from wsiseg.pipeline.start import start
from wsiseg.units import format_bytes, format_megapixels


def print_plans(config: RunConfig, manifest: Manifest, workers: int) -> int:
    """Print what a worker would do with each slide; 1 when some slide cannot be done, else 0."""
    console = Console(highlight=False, width=None if Console().is_terminal else 140)
    failed = 0
    with start(config) as started:
        processor = started.processor
        console.print(
            f"{started.description}, model {started.model.name}, tile {processor.settings.tile}, stride {processor.settings.stride}, {workers} worker(s)",
            markup=False,
        )
        for slide in manifest.slides:
            try:
                job = processor.prepare(SlideTask(slide.index, slide.id, slide.path))
            except SlideError as error:
                failed += 1
                console.print(f"\n{slide.id}: FAILED: {error}", markup=False, soft_wrap=True)
                continue
            try:
                _print(console, job)
            finally:
                job.slide.close()
    return 1 if failed else 0


def _print(console: Console, job: SlideJob) -> None:
    plan, grid = job.memory, job.grid
    console.print(
        f"\n{job.task.id}: {job.size} ({format_megapixels(job.size.pixels)}), scale {job.settings.scale}, network grid {grid.size}, "
        f"{grid.count} tiles at most, {len(plan.panels)} panel(s), ring of {plan.ring_rows} rows",
        markup=False,
        soft_wrap=True,
    )
    for warning in job.warnings:
        console.print(f"  note: {warning}", markup=False, soft_wrap=True)
    table = Table("buffer", "shape", "dtype", "bytes", "reason", box=None, pad_edge=False)
    table.add_row(
        "resident",
        "",
        "",
        format_bytes(plan.resident),
        "interpreter, libraries, and the model with its batches",
    )
    for buffer in plan.buffers:
        table.add_row(
            buffer.name,
            " x ".join(map(str, buffer.shape)),
            buffer.dtype,
            format_bytes(buffer.bytes),
            buffer.reason,
        )
    table.add_row(
        "total", "", "", format_bytes(plan.total), f"of {format_bytes(plan.budget)} for this process"
    )
    console.print(table)

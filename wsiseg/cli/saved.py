"""The outputs of `run` beside the CSV: which are asked for, and those that are made when the workers have ended."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from wsiseg.errors import UsageError
from wsiseg.jobs.manifest import Slide
from wsiseg.jobs.request import JobRequest
from wsiseg.outputs.kinds import KINDS, keeps_probabilities, missing_outputs, output_path, parse_kinds
from wsiseg.pipeline.config import RunConfig


@dataclass(frozen=True)
class Asked:
    """What was asked for beside the CSV.

    Args:
        kinds: outputs of each slide. folder: where they go. report: the page about the batch, or None. instances: the
            CSV with one row per object of all slides, or None.
    """

    kinds: tuple[str, ...]
    folder: str
    report: str | None = None
    instances: str | None = None

    @property
    def keeps_probabilities(self) -> bool:
        """Whether the workers keep the probabilities of a slide until its outputs are written."""
        return self.report is not None or keeps_probabilities(self.kinds)

    @property
    def lacks(self) -> Callable[[Slide], bool] | None:
        """Says that a slide with a record lacks an output for which it must be processed again."""
        kinds = [kind for kind in self.kinds if KINDS[kind].planes]
        return (lambda slide: bool(missing_outputs(slide.id, self.folder, kinds))) if kinds else None


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --save --save-dir --instances --report."""
    group = parser.add_argument_group("outputs beside the CSV")
    group.add_argument(
        "--save",
        action="append",
        metavar="KIND,...",
        help="; ".join(f"{name}: {kind.what}" for name, kind in KINDS.items()),
    )
    group.add_argument(
        "--save-dir", metavar="DIR", help="where they go (default: the CSV's name with .outputs)"
    )
    group.add_argument(
        "--instances",
        nargs="?",
        const="",
        metavar="CSV",
        help="also one row per object of every slide (ImageId,EncodedPixels), touching ones split "
        "(default name: the CSV's with .instances.csv)",
    )
    group.add_argument("--report", metavar="FILE.html", help="one self-contained page about the whole batch")


def asked(args: argparse.Namespace, output: str) -> Asked:
    """What the options say.

    Raises:
        UsageError: an unknown output, with the known ones; a name that two outputs would share, or that is no CSV's.
    """
    kinds = parse_kinds([*(args.save or ()), *(() if args.instances is None else ("instances",))])
    instances = args.instances
    if instances == "":
        instances = output.removesuffix(".csv") + ".instances.csv"
    if instances is not None and not instances.lower().endswith(".csv"):
        # A slide's name that follows the option would be taken for its value, and written over.
        raise UsageError(f"--instances {instances}: is not a .csv; give one, or put the option last")
    if instances is not None and instances == output:
        raise UsageError(f"--instances {instances}: is the name of the CSV itself; give another")
    return Asked(kinds, args.save_dir or f"{output}.outputs", args.report, instances)


def with_outputs(config: RunConfig, wanted: Asked) -> RunConfig:
    """The configuration of workers that write them."""
    return replace(
        config,
        save=wanted.kinds,
        save_folder=wanted.folder,
        probabilities=wanted.keeps_probabilities,
    )


def after(request: JobRequest, config: RunConfig, wanted: Asked) -> None:
    """Write outputs that slides of an earlier run lack, the rows of all objects, and the report.

    Raises:
        OutputError: one cannot be written.
    """
    # A shard's own workers have saved its slides, and only the whole job has a report.
    if request.shard or not (wanted.kinds or wanted.report):
        return
    folder = request.folder
    manifest = folder.manifest()
    if manifest is None:
        return
    # Only now, when the workers are gone, does this process load what reads slides.
    from wsiseg.jobs.finished import save_missing, write_batch_report

    if wanted.kinds:
        save_missing(folder, manifest.slides, wanted.folder, wanted.kinds)
    if wanted.instances:
        from wsiseg.outputs.instances import join_instances

        files = [output_path(wanted.folder, slide.id, "instances") for slide in manifest.slides]
        join_instances(wanted.instances, [file for file in files if file.exists()])
    if wanted.report:
        card: dict[str, Any] = config.load().spec.to_dict()
        when = time.strftime("%Y-%m-%d %H:%M")
        write_batch_report(wanted.report, folder, manifest, folder.identity() or {}, card, when)

"""The outputs of `run` beside the CSV that are made when the workers have ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from wsiseg.jobs.request import JobRequest
from wsiseg.pipeline.config import RunConfig


def saved_kinds(words: Sequence[str]) -> tuple[str, ...]:
    """The outputs that `--save` names.

    Raises:
        UsageError: an unknown one, with the known ones.
    """
    from wsiseg.outputs.save import parse_kinds

    return parse_kinds(words)


def after(request: JobRequest, config: RunConfig, report: str | None) -> None:
    """Write outputs that slides of an earlier run lack, and the report.

    Raises:
        OutputError: one cannot be written.
    """
    # A shard's own workers have saved its slides, and only the whole job has a report.
    if request.shard or not (config.save or report):
        return
    folder = request.folder
    manifest = folder.manifest()
    if manifest is None:
        return
    # Only now, when the workers are gone, does this process load what reads slides.
    from wsiseg.jobs.finished import save_missing, write_batch_report

    if config.save:
        save_missing(folder, manifest.slides, config.save_folder, config.save)
    if report:
        card: dict[str, Any] = config.load().spec.to_dict()
        when = time.strftime("%Y-%m-%d %H:%M")
        write_batch_report(report, folder, manifest, folder.identity() or {}, card, when)

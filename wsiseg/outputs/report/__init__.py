"""One self-contained HTML page about a batch of slides: pictures with contours, numbers, warnings, failures."""

from __future__ import annotations

from wsiseg.outputs.report.page import ReportRun, write_report
from wsiseg.outputs.report.rows import Doubt, ReportSlide

__all__ = ["Doubt", "ReportRun", "ReportSlide", "write_report"]

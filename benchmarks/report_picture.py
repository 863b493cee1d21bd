"""The picture of a report in the README: synthetic slides, segmented by the bundled model, the page seen in Chromium.

    python -m benchmarks.report_picture [--output benchmarks/results/report.png]

Needs Chromium and playwright. Colours are reduced to four bits each, so that the picture stays small.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.harness import RESULTS
from benchmarks.tree import checked, wsiseg
from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.synth import Scene, write_slide

WIDTH, HEIGHT = 1280, 760


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "report.png")
    args = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise UsageError("no Chromium on this machine")
    with tempfile.TemporaryDirectory() as folder:
        slides = Path(folder) / "slides"
        slides.mkdir()
        for seed, height, width in ((1, 6000, 9000), (2, 8000, 8000), (3, 5000, 11000)):
            write_slide(slides / f"biopsy {seed}.tif", Scene(Size(height, width), seed), "pyramid-jpeg")
        (slides / "broken.tif").write_bytes((slides / "biopsy 1.tif").read_bytes()[:1000])
        page = Path(folder) / "report.html"
        done = wsiseg("run", slides, "-o", Path(folder) / "out.csv", "--report", page, "--partial")
        try:
            checked(done)
        except SystemExit:
            if not page.exists():  # a failed slide is part of the picture
                raise
        picture(page, browser, args.output)


def picture(page: Path, browser: str, output: Path) -> None:
    """What the page looks like with the first slide's crops unfolded."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.goto(page.as_uri())
        tab.click(".doubts summary >> nth=0")
        data = tab.screenshot()
        chromium.close()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    _, small = cv2.imencode(".png", (image & 0xF0) | (image >> 4), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    output.write_bytes(small.tobytes())


if __name__ == "__main__":
    main()

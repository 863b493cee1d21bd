"""Writes a synthetic slide band by band, in any layout, with its ground truth beside it.

Segments are painted and encoded by a pool of threads and written in order, so a file's bytes do not depend on the
number of threads. A pyramid's upper levels are means of the level below, kept meanwhile in a temporary file
(1/16 of the slide).
"""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import OutputError
from wsiseg.geometry import Rect
from wsiseg.outputs.files import output_errors, refuse_special
from wsiseg.outputs.submission import write_submission
from wsiseg.synth.layouts import DEFAULT_LAYOUT, TILE, layout_named
from wsiseg.synth.scene import Scene
from wsiseg.synth.tiff import write_tiff
from wsiseg.synth.work import Progress, Work


@dataclass(frozen=True)
class WriteReport:
    """What was written: files, number of glomeruli and mask pixels, bytes, seconds."""

    path: Path
    truth: Path
    glomeruli: int
    mask_pixels: int
    file_bytes: int
    seconds: float


def write_slide(
    path: str | os.PathLike[str],
    scene: Scene,
    layout: str = DEFAULT_LAYOUT,
    *,
    threads: int = 0,
    truth: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> WriteReport:
    """Writes `scene` to `path` and its ground truth, a CSV row, beside it.

    Args:
        layout: one of LAYOUTS. BigTIFF is used when the file might pass 4 GB.
        threads: that paint and encode; 0 for as many as this process may use.
        truth: the CSV's name; None for the slide's name with .truth.csv.
        progress: called with the number of slide pixels written since its last call.

    Memory bound: `threads` + 2 tasks, each 16 tiles or 64 rows of the slide.

    Raises:
        UsageError: an unknown layout. OutputError: the file cannot be written.
    """
    began = time.monotonic()
    chosen, path = layout_named(layout), Path(path)
    truth_path = Path(truth) if truth is not None else path.with_name(path.stem + ".truth.csv")
    threads = threads or len(os.sched_getaffinity(0))
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    refuse_special(path)
    with output_errors(path):
        try:
            with ThreadPoolExecutor(threads, thread_name_prefix="synth") as pool:
                work = Work(scene, chosen, pool, threads + 2, progress or (lambda _: None))
                (_write_zarr if chosen.zarr else write_tiff)(partial, work)
            if path.is_dir():
                if not chosen.zarr or not (path / "zarr.json").exists():
                    raise OutputError(f"{path}: is a folder with something else in it")
                shutil.rmtree(path)
            os.replace(partial, path)
        finally:
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)
    runs = scene.truth()
    write_submission(truth_path, [(path.stem, runs.to_rle())])
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return WriteReport(
        path,
        truth_path,
        len(scene.glomeruli),
        runs.area,
        sum(p.stat().st_size for p in files),
        time.monotonic() - began,
    )


def _write_zarr(path: Path, work: Work) -> None:
    """An OME-Zarr 0.5 image with one level: axes c, y, x; chunks of 512."""
    import zarr
    from zarr.codecs import ZstdCodec

    size, scene, chunk = work.scene.size, work.scene, 2 * TILE
    group = zarr.create_group(path, zarr_format=3)
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "name": "wsiseg synth",
                "axes": [
                    {"name": "c", "type": "channel"},
                    {"name": "y", "type": "space", "unit": "micrometer"},
                    {"name": "x", "type": "space", "unit": "micrometer"},
                ],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [1.0, scene.mpp, scene.mpp]}
                        ],
                    }
                ],
            }
        ],
    }
    array = group.create_array(
        "0",
        shape=(3, size.height, size.width),
        chunks=(3, chunk, chunk),
        dtype="uint8",
        compressors=ZstdCodec(level=1),
        dimension_names=["c", "y", "x"],
    )

    def block(at: tuple[int, int]) -> int:
        y, x = at
        y1, x1 = min(y + chunk, size.height), min(x + chunk, size.width)
        array[:, y:y1, x:x1] = scene.render(Rect(y, x, y1, x1)).transpose(2, 0, 1)
        return (y1 - y) * (x1 - x)

    corners = ((y, x) for y in range(0, size.height, chunk) for x in range(0, size.width, chunk))
    for done in work.in_order(block, corners):
        work.progress(done)

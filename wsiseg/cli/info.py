"""`wsiseg info`: what a slide is, what is odd about it, what reading it costs, and whether it is supported."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from wsiseg.errors import SlideError
from wsiseg.units import format_bytes, format_duration, format_megapixels

HELP = """Tell a slide's layout, compression, levels, microns per pixel and where they were found, what is odd about it, what
reading it costs at a scale, and whether it is supported. Exit code 1 when one of the slides is not."""

# The window of network rows that a run holds: a tile of 512 and a stride of 384.
WINDOW = 512 + 384


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("slides", nargs="+", metavar="SLIDE", help="slide files or zarr folders")
    parser.add_argument("--scale", type=int, default=1, help="slide pixels per network pixel (default 1)")
    parser.add_argument(
        "--level", choices=("auto", "0"), default="auto", help="levels to read from (default auto)"
    )
    parser.add_argument(
        "--mpp", help="microns per pixel instead of what the file says: a number, or a CSV of id,mpp"
    )
    parser.add_argument("--check", action="store_true", help="decode every tile and list the damaged ones")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def main(args: argparse.Namespace) -> int:
    from wsiseg.slide import slide_id
    from wsiseg.slide.overrides import parse_mpp

    given = parse_mpp(args.mpp)
    reports = [
        report(path, args.scale, args.level, given.of(slide_id(path)), args.check) for path in args.slides
    ]
    if args.json:
        print(json.dumps(reports[0] if len(reports) == 1 else reports, indent=2))
    else:
        print("\n\n".join("\n".join(lines(r)) for r in reports))
    return 0 if all(r["supported"] for r in reports) else SlideError.exit_code


def report(path: str, scale: int, level: str, mpp: float | None, check: bool) -> dict[str, Any]:
    """Everything about a slide as plain data; `supported` is false and `reason` says why where it cannot be read."""
    from wsiseg.slide import open_slide, ring_bytes
    from wsiseg.slide.cost import estimate

    try:
        with open_slide(path, mpp=mpp) as slide:
            plan = slide.plan(scale, level)
            cost = estimate(slide, plan)
            ring = ring_bytes(plan, (0, plan.network.width), plan.ring_rows(WINDOW), threads=1)
            found: dict[str, Any] = {
                "path": path,
                "id": slide.id,
                "supported": True,
                "format": slide.format,
                "bytes": os.path.getsize(path) if os.path.isfile(path) else None,
                "width": slide.size.width,
                "height": slide.size.height,
                "layout": slide.layout,
                "compression": slide.compression,
                "mpp": slide.mpp,
                "mpp_source": slide.mpp_source,
                "levels": [
                    {
                        "width": x.size.width,
                        "height": x.size.height,
                        "downsample": x.downsample or None,
                        "segment": f"{x.segment}",
                        "where": x.note,
                    }
                    for x in slide.levels
                ],
                "reading": {
                    "scale": scale,
                    "level": plan.level,
                    "network_width": plan.network.width,
                    "network_height": plan.network.height,
                    "segments": plan.segments,
                    "pixels": plan.pixels,
                    "stored_bytes": plan.stored,
                    "memory": dict(ring),
                    "seconds_one_thread": cost.seconds if cost else None,
                    "pixels_per_second": cost.pixels_per_second if cost else None,
                    "sampled_segments": cost.sampled if cost else 0,
                },
                "damaged": list(cost.damaged) if cost else [],
                "odd": list(slide.warnings),
            }
            if check:
                found.update(_check(slide))
            if found["damaged"]:
                found["supported"] = False
                found["reason"] = "some of it is damaged"
            return found
    except SlideError as error:
        return {"path": path, "supported": False, "reason": error.reason, "hint": error.hint}


def _check(slide: Any) -> dict[str, Any]:
    from wsiseg.slide import DecodePool, NetworkReader

    plan = slide.plan(1, "0")
    step = plan.unit
    with (
        DecodePool(len(os.sched_getaffinity(0))) as pool,
        NetworkReader(slide, plan, rows=plan.ring_rows(step), pool=pool, on_bad_tile="white") as reader,
    ):
        for y in range(0, plan.network.height, step):
            reader.wait(y + step)
            reader.release(y + step)
        stats = reader.stats
    return {
        "checked_segments": stats.segments,
        "damaged_segments": stats.bad_segments,
        "damaged_pixels": stats.bad_pixels,
        "damaged": stats.bad,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The report for people."""
    out = [found["path"]]

    def row(label: str, text: str) -> None:
        out.append(f"  {label:<12} {text}")

    if "width" not in found:
        row("supported", f"no: {found['reason']}" + (f"; {found['hint']}" if found["hint"] else ""))
        return out
    reading = found["reading"]
    pixels = found["width"] * found["height"]
    size = f", {format_bytes(found['bytes'])}" if found["bytes"] else ""
    row("format", found["format"] + size)
    row("size", f"{found['width']} x {found['height']} ({format_megapixels(pixels)})")
    row("layout", found["layout"])
    row("compression", found["compression"])
    row("mpp", f"{found['mpp']:.4g} ({found['mpp_source']})" if found["mpp"] else "unknown; give --mpp")
    for i, level in enumerate(found["levels"]):
        ratio = f"1/{level['downsample']}" if level["downsample"] else "no whole ratio; not used"
        row(
            f"level {i}",
            f"{level['width']} x {level['height']}, {ratio}, {level['segment']} ({level['where']})",
        )
    row(
        f"scale {reading['scale']}",
        f"{reading['network_width']} x {reading['network_height']} network pixels",
    )
    stored = f", {format_bytes(reading['stored_bytes'])} of the file" if reading["stored_bytes"] else ""
    row(
        "reading",
        f"level {reading['level']}, {reading['segments']} segments, {format_megapixels(reading['pixels'])}{stored}",
    )
    if reading["seconds_one_thread"]:
        speed = reading["pixels_per_second"] / 1e6
        row("time", f"about {format_duration(reading['seconds_one_thread'])} on one thread ({speed:.0f} Mpx/s, "
            f"from {reading['sampled_segments']} segments)")  # fmt: skip
    memory = {k: v for k, v in reading["memory"].items() if v}
    row(
        "memory",
        ", ".join(f"{k} {format_bytes(v)}" for k, v in memory.items()) + f" (windows of {WINDOW} rows)",
    )
    for odd in found["odd"]:
        row("odd", odd)
    if "checked_segments" in found:
        row("checked", f"{found['checked_segments']} segments, {found['damaged_segments']} damaged"
            f" ({format_megapixels(found['damaged_pixels'])})")  # fmt: skip
    for damaged in found["damaged"]:
        row("damaged", damaged)
    row(
        "supported",
        "yes" if found["supported"] else f"no: {found['reason']} (--on-bad-tile white goes on without it)",
    )
    return out

"""`wsiseg rle check|decode|diff`: look into run-length encoded masks without running anything."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsiseg.geometry import Size
    from wsiseg.outputs.submission import Row
    from wsiseg.runs import Runs

HELP = "check, decode or compare run-length encoded masks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="rle_command", required=True, metavar="check|decode|diff")
    check = commands.add_parser("check", help="is a submission well formed, complete, and inside its slides?")
    check.add_argument("csv", metavar="SUB.csv", help="columns id,predicted (or id,encoding)")
    _add_sizes(check)
    decode = commands.add_parser("decode", help="draw one row as a picture")
    decode.add_argument("csv", metavar="SUB.csv")
    decode.add_argument("--id", metavar="ID", help="whose row; needed if there are several")
    _add_sizes(decode)
    decode.add_argument(
        "-o", "--output", required=True, metavar="MASK.png|.tif", help="0 outside, 255 inside"
    )
    decode.add_argument(
        "--downscale", type=int, default=1, metavar="N", help="one pixel of the picture per N x N (default 1)"
    )
    diff = commands.add_parser("diff", help="Dice and differing pixels of two submissions, row by row")
    diff.add_argument("a", metavar="A.csv")
    diff.add_argument("b", metavar="B.csv")
    diff.add_argument(
        "--fail-under", type=float, metavar="DICE", help="exit with 1 if any row's Dice is smaller than this"
    )


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "slides", nargs="*", metavar="SLIDE", help="slides, or folders of them, for their sizes"
    )
    parser.add_argument("--sizes", metavar="SIZES.csv", help="columns id,height,width, instead of the slides")


def main(args: argparse.Namespace) -> int:
    return {"check": _check, "decode": _decode, "diff": _diff}[args.rle_command](args)


def _sizes(args: argparse.Namespace) -> dict[str, Size]:
    from wsiseg.errors import UsageError
    from wsiseg.outputs.sizes import read_sizes, slide_sizes

    if bool(args.sizes) == bool(args.slides):
        raise UsageError("give the slides, or --sizes with a table of id,height,width (one of both)")
    return read_sizes(args.sizes) if args.sizes else slide_sizes(args.slides)


def _check(args: argparse.Namespace) -> int:
    from wsiseg.outputs.submission import read_rows
    from wsiseg.runs import parse_rle, run_problems

    sizes = _sizes(args)
    seen: dict[str, int] = {}
    problems = rows = 0

    def say(where: str, what: str) -> None:
        nonlocal problems
        problems += 1
        print(f"{args.csv}: {where}: {what}")

    for row in read_rows(args.csv):
        rows += 1
        where = f"line {row.line}, id {row.id!r}"
        if row.problem:
            say(where, row.problem)
        if row.id in seen:
            say(where, f"the id occurs twice, first on line {seen[row.id]}")
        seen.setdefault(row.id, row.line)
        starts, lengths, wrong = parse_rle(row.rle)
        if row.id not in sizes:
            say(where, "no such slide")
        elif not wrong:
            wrong = run_problems(starts, lengths, sizes[row.id])
        for what in wrong:
            say(where, what)
    for name in sizes:
        if name not in seen:
            say(f"id {name!r}", "the slide has no row")
    print(f"{args.csv}: {rows} rows, {len(sizes)} slides, {_count(problems, 'problem')}")
    return 1 if problems else 0


def _decode(args: argparse.Namespace) -> int:
    from wsiseg.errors import UsageError
    from wsiseg.outputs.masks import write_mask_png, write_mask_tiff
    from wsiseg.outputs.submission import read_row, read_rows

    if args.downscale < 1:
        raise UsageError(f"--downscale must be at least 1, not {args.downscale}")
    suffix = args.output.lower().rpartition(".")[2]
    if suffix not in ("png", "tif", "tiff"):
        raise UsageError(f"-o {args.output}: give a name that ends in .png or .tif")
    if suffix != "png" and args.downscale > 1:
        raise UsageError("--downscale is for .png; a .tif is written at full size")
    sizes = _sizes(args)
    if args.id is None:
        rows = read_rows(args.csv)
        row = next(rows, None)
        if row is None or next(rows, None) is not None:
            raise UsageError(
                f"{args.csv}: has {'no' if row is None else 'several'} rows; say which with --id"
            )
    else:
        row = read_row(args.csv, args.id)
    if row.id not in sizes:
        raise UsageError(f"the size of {row.id!r} is not known; known: {', '.join(list(sizes)[:8])}")
    runs = _row_runs(args.csv, row, sizes[row.id])
    if suffix == "png":
        write_mask_png(args.output, [runs], args.downscale)
    else:
        write_mask_tiff(args.output, [runs], pyramid=False)
    print(
        f"{args.output}: {runs.size.over(args.downscale)}, {runs.area} of {runs.size.pixels} slide pixels inside"
    )
    return 0


def _row_runs(path: str, row: Row, size: Size) -> Runs:
    from wsiseg.errors import UsageError
    from wsiseg.runs import Runs

    try:
        return Runs.from_rle(row.rle, size)
    except UsageError as error:
        raise UsageError(f"{path}: line {row.line}, id {row.id!r}: {error}") from None


def _diff(args: argparse.Namespace) -> int:
    from wsiseg.geometry import Size

    # Sizes are not asked for: a slide as long as any run can reach, one pixel wide, holds the same sets of pixels.
    anywhere = Size(1 << 60, 1)
    width = 0
    total, count, worst, differing = 0.0, 0, 1.0, 0
    alone: list[str] = []
    for name, row_a, row_b in _paired(args.a, args.b):
        if row_a is None or row_b is None:
            alone.append(f"{name!r} only in {args.a if row_b is None else args.b}")
            continue
        a, b = _row_runs(args.a, row_a, anywhere), _row_runs(args.b, row_b, anywhere)
        dice, pixels = a.dice(b), a.differing(b)
        if not count:
            width = max(len(name), 12)
            print(f"{'id':{width}} {'Dice':>10} {'differing':>12} {'in A':>12} {'in B':>12}")
        print(f"{name:{width}} {dice:10.6f} {pixels:12d} {a.area:12d} {b.area:12d}")
        total, count, worst, differing = total + dice, count + 1, min(worst, dice), differing + pixels
    for line in alone:
        print(line, file=sys.stderr)
    if count:
        print(
            f"{count} rows: mean Dice {total / count:.6f}, smallest {worst:.6f}, {_count(differing, 'pixel')} differ"
        )
    low = args.fail_under is not None and (not count or worst < args.fail_under)
    return 1 if alone or low else 0


def _paired(path_a: str, path_b: str) -> Iterator[tuple[str, Row | None, Row | None]]:
    """The rows of two files by id; only rows whose partner has not come yet are held.

    Raises:
        UsageError: an id occurs twice in a file.
    """
    from itertools import zip_longest

    from wsiseg.errors import UsageError
    from wsiseg.outputs.submission import read_rows

    paths = (path_a, path_b)
    waiting: tuple[dict[str, Row], dict[str, Row]] = ({}, {})
    seen: tuple[set[str], set[str]] = (set(), set())
    for both in zip_longest(read_rows(path_a), read_rows(path_b)):
        for side, row in enumerate(both):
            if row is None:
                continue
            if row.problem:
                raise UsageError(f"{paths[side]}: line {row.line}, id {row.id!r}: {row.problem}")
            if row.id in seen[side]:
                raise UsageError(f"{paths[side]}: line {row.line}: the id {row.id!r} occurs twice")
            seen[side].add(row.id)
            waiting[side][row.id] = row
        for row in both:
            if row is not None and row.id in waiting[0] and row.id in waiting[1]:
                yield row.id, waiting[0].pop(row.id), waiting[1].pop(row.id)
    for name, row in waiting[0].items():
        yield name, row, None
    for name, row in waiting[1].items():
        yield name, None, row


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"

"""`wsiseg merge OUT`: the CSV from the records of a run or its shards."""

from __future__ import annotations

import argparse
import sys

from wsiseg.errors import UsageError
from wsiseg.jobs.folder import SUFFIX
from wsiseg.jobs.merge import merge
from wsiseg.jobs.status import find_folder

HELP = (
    "Write the submission CSV from the records of a run or of all its shards. Nothing is written while slides are missing, "
    "unless --partial is given. Exit code: 0 all slides are in it, 1 some failed and have no row, 3 some are missing."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="the CSV given to `wsiseg run`, or its .wsiseg folder")
    parser.add_argument(
        "-o", "--output", metavar="CSV", help="where to write it; default: the CSV that the folder belongs to"
    )
    parser.add_argument(
        "--partial", action="store_true", help="write the rows there are, even when slides are missing"
    )
    parser.add_argument(
        "--wait",
        type=float,
        metavar="SECONDS",
        help="look again that long for records that a shared file system may still hide; default: 65 on one, else 0",
    )


def main(args: argparse.Namespace) -> int:
    folder = find_folder(args.out)
    if not args.output and not folder.url.endswith(SUFFIX):
        raise UsageError(f"{folder.url} does not belong to a CSV by its name; give -o CSV")
    output = args.output or folder.url.removesuffix(SUFFIX)
    merged = merge(folder, output, args.partial, patience=args.wait)
    print(f"{output}: {merged.rows} of {merged.total} slides")
    for record in merged.failed:
        print(f"wsiseg: failed: {record.id}: {record.error}", file=sys.stderr)
    if merged.missing:
        print(
            f"wsiseg: {len(merged.missing)} slides are missing; `wsiseg status {args.out}` lists them",
            file=sys.stderr,
        )
    return merged.exit_code

"""A small `wsiseg run` around the fake processor: the same options, the same launch, slides that cost milliseconds.

python -m tests.jobs.driver SLIDES -o OUT [--seconds S] [--options TEXT] [options of a job]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wsiseg.cli.job_options import add_job_arguments, request_from
from wsiseg.cli.main import join_values
from wsiseg.errors import WsisegError
from wsiseg.jobs.launch import launch
from wsiseg.jobs.pool import WorkerSpec

FACTORY = "tests.jobs.fake:make_processor"


def show(event: Mapping[str, Any]) -> None:
    """The events of the job as plain lines."""
    if event["type"] == "plan":
        say(f"{event['skipped']} of {event['total']} slides were done before")
    elif event["type"] == "record" and event["record"].status != "done":
        say(f"failed: {event['record'].id}: {event['record'].error}")
    elif event["type"] == "death":
        say(f"a worker died ({event['how']})")
    elif event["type"] == "note":
        say(event["text"])


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--options", default="")
    parser.add_argument("--overhead", type=float)
    parser.add_argument("--dry-run", action="store_true")
    add_job_arguments(parser)
    args = parser.parse_args(join_values(argv))
    spec = WorkerSpec(FACTORY, {"seconds": args.seconds, "options": args.options}, stage=args.stage)
    command = [sys.executable, "-m", "tests.jobs.driver", *argv]
    try:
        request = request_from(args, args.inputs, args.output, spec, command)
        outcome = launch(
            replace(request, overhead=args.overhead, job_memory=1 << 30, job_host="127.0.0.1"), show
        )
    except WsisegError as error:
        print(f"wsiseg: {error}", file=sys.stderr)
        return error.exit_code
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The `wsiseg` command: finds the command's module, runs it, and turns errors into one line and an exit code.

A command is a module with `HELP` (a sentence or more), `add_arguments(parser)` and `main(args) -> int`. It is imported
only when it is asked for, so `wsiseg --help` loads nothing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from wsiseg._version import __version__
from wsiseg.errors import Interrupted, WsisegError

COMMANDS = {
    "run": "segment slides and write submission.csv",
    "info": "what a slide is, and what reading it costs",
    "models": "the bundled models",
    "doctor": "what this machine has, and which backend would run",
    "synth": "write a synthetic slide with its ground truth",
    "rle": "check, decode and compare run-length submissions",
    "status": "how far a run is",
    "merge": "write the CSV from the records of a run or its shards",
    "build-engine": "compile a model for this machine",
    "import-model": "make a model of wsiseg from a foreign network",
    "bench": "how fast this machine is, and what holds it back",
    "prepare": "turn slides and labels into training stores",
    "tiles": "write a folder of training tiles and masks",
    "train": "train a model from a recipe",
    "evaluate": "score a submission against the truth",
    "convert": "convert masks between formats",
}


def module_of(command: str) -> str:
    """The module that implements a command."""
    return f"wsiseg.cli.{command.replace('-', '_')}"


def _parser(command: str | None) -> argparse.ArgumentParser:
    """The parser, with the arguments of `command` only: the others' modules are not imported."""
    parser = argparse.ArgumentParser(
        prog="wsiseg",
        description="Segments whole-slide images with a trained network, streaming, inside a fixed memory budget.",
        epilog="`wsiseg COMMAND --help` tells a command's options.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wsiseg {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name == command:
            module = importlib.import_module(module_of(name))
            sub = commands.add_parser(name, help=summary, description=module.HELP, allow_abbrev=False)
            module.add_arguments(sub)
            sub.set_defaults(module=module)
        else:
            commands.add_parser(name, help=summary, add_help=False)
    return parser


def join_values(arguments: Sequence[str]) -> list[str]:
    """Arguments with `--sbatch VALUE` as one word, since argparse takes a value like `--time=4:00:00` for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] == "--sbatch":
            joined[-1] = f"--sbatch={word}"
        else:
            joined.append(word)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one line on standard error, never a traceback."""
    arguments = join_values(sys.argv[1:] if argv is None else argv)
    command = next((a for a in arguments if not a.startswith("-")), None)
    try:
        args = _parser(command if command in COMMANDS else None).parse_args(arguments)
        return int(args.module.main(args))
    except WsisegError as error:
        print(f"wsiseg: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("wsiseg: interrupted", file=sys.stderr)
        return Interrupted.exit_code
    except BrokenPipeError:
        # The reader of our output went away (`wsiseg ... | head`); Python would complain again while closing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        print(
            "wsiseg: the system gave no more memory; give a smaller --memory, --batch or --tile",
            file=sys.stderr,
        )
        return 2

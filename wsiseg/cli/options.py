"""The options of `run` that other commands share, and the configuration file that may give them.

Every option's default is None until `settle`, so that the order is: command line, `--config` file, user's config, model.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path
from typing import Any

from wsiseg.errors import UsageError, unknown_name
from wsiseg.limits import core_limit, memory_limit
from wsiseg.pipeline.config import DEFAULT_MODEL, RunConfig
from wsiseg.pipeline.options import LEVELS, ON_BAD_TILE, TISSUE_RULES, RunOptions
from wsiseg.units import parse_bytes

MEMORY_SHARE = 0.8
TTA = ("none", "flips", "d4")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


def memory_size(text: str) -> int:
    """An argparse type for bytes."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What decides the model and the numbers of a run."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        "-m",
        action="append",
        metavar="NAME|FILE",
        help=f"a bundled model or a .onnx, .pt or .engine file; repeat for an ensemble (default: {DEFAULT_MODEL})",
    )
    group.add_argument(
        "--weights", metavar="W,W,...", help="shares of an ensemble's members (default: equal)"
    )
    group.add_argument(
        "--tta",
        choices=TTA,
        help="test-time augmentation: none, flips (4 variants) or d4 (8) (default: none)",
    )
    group.add_argument("--backend", metavar="NAME", help="openvino, torch, tensorrt or auto (default: auto)")
    group.add_argument(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:0, or cuda:0,1 for several GPUs (default: auto)",
    )
    group.add_argument("--precision", choices=PRECISIONS, help="what the network computes in (default: auto)")
    group = parser.add_argument_group("tiles and masks")
    group.add_argument(
        "--tile", type=int, metavar="T", help="tile edge in network pixels (default: the model's)"
    )
    group.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="overlap of neighbouring tiles, 0 to 0.75 (default: the model's)",
    )
    group.add_argument(
        "--batch",
        type=int,
        metavar="B",
        help="tiles per inference (default: 1 per stream on a CPU, 16 on a GPU)",
    )
    group.add_argument(
        "--scale",
        type=int,
        metavar="S",
        help="slide pixels per network pixel (default: from microns per pixel)",
    )
    group.add_argument(
        "--mpp",
        metavar="UM|CSV",
        help="microns per slide pixel, over what the files say; or a CSV with the columns id and mpp",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="a pixel is in the mask above this probability (default: the model's)",
    )
    group.add_argument(
        "--min-area",
        type=int,
        metavar="PX",
        help="drop objects smaller than this many slide pixels (default: the model's)",
    )
    group.add_argument(
        "--fill-holes",
        type=int,
        metavar="PX",
        help="fill holes smaller than this many slide pixels (default: the model's)",
    )
    group.add_argument(
        "--tissue",
        choices=TISSUE_RULES,
        help="auto skips tiles without tissue, none runs every tile (default: the model's)",
    )
    group.add_argument(
        "--presence",
        type=float,
        metavar="P",
        help="with a classification head: tiles whose presence is below P are not decoded, 0 decodes all (default: the model's)",
    )
    group.add_argument(
        "--level",
        choices=LEVELS,
        help="auto reads a pyramid level that divides the scale, 0 the full size (default: auto)",
    )
    group.add_argument(
        "--on-bad-tile",
        choices=ON_BAD_TILE,
        help="a damaged tile fails its slide, or is taken as white and counted (default: fail)",
    )
    group.add_argument(
        "--fast-jpeg", action="store_const", const=True, help="shrink JPEG while decoding: faster, not exact"
    )
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--memory",
        type=memory_size,
        metavar="BYTES",
        help="for the whole process tree, like 700MB or 2GiB (default: 80 %% of what is granted)",
    )
    group.add_argument(
        "--gpu-memory", type=memory_size, metavar="BYTES", help="of each GPU (default: 90 %% of what is free)"
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: the cores granted)")
    group.add_argument(
        "--config", metavar="FILE.toml", help="options by their long names; the command line goes before it"
    )


def read_config(path: str, parser_names: set[str]) -> dict[str, Any]:
    """Options of a TOML file, by their names with underscores.

    Raises:
        UsageError: for a file that cannot be read, or a name that is no option.
    """
    try:
        with open(path, "rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--config {path}: not TOML: {error}") from error
    values = {}
    for key, value in data.items():
        name = key.replace("-", "_")
        if name not in parser_names:
            raise UsageError(f"--config {path}: " + unknown_name("option", key, sorted(parser_names)))
        values[name] = value
    return values


def user_config() -> str:
    """The user's own configuration file; `wsiseg bench --sweep` writes what is best for the machine there."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "wsiseg", "config.toml")


def settle(args: argparse.Namespace) -> None:
    """Fill what the command line left out from `--config`, then from the user's config, in place.

    Raises:
        UsageError: for a file or a value that does not fit.
    """
    names = {name for name in vars(args) if name not in ("command", "module", "config", "slides")}
    given = getattr(args, "config", None)
    files = [given] if given else []
    if Path(user_config()).is_file():
        files.append(user_config())
    for path in files:
        for name, value in read_config(path, names).items():
            if getattr(args, name) is None or getattr(args, name) is False:
                setattr(args, name, _converted(path, name, value))


def _converted(path: str, name: str, value: Any) -> Any:
    """A configuration value as the command line would have given it."""
    if name in ("memory", "gpu_memory") and isinstance(value, str):
        try:
            return parse_bytes(value)
        except ValueError as error:
            raise UsageError(f"--config {path}: {name}: {error}") from error
    if name == "model":
        return [value] if isinstance(value, str) else list(value)
    if name == "weights" and isinstance(value, list):
        return ",".join(str(v) for v in value)
    choices = {
        "tta": TTA,
        "precision": PRECISIONS,
        "tissue": TISSUE_RULES,
        "level": LEVELS,
        "on_bad_tile": ON_BAD_TILE,
    }
    if name in choices and value not in choices[name]:
        raise UsageError(f"--config {path}: " + unknown_name(name, value, choices[name]))
    wanted: dict[str, tuple[type, ...]] = dict.fromkeys(
        ("tile", "batch", "scale", "min_area", "fill_holes", "threads", "workers"), (int,)
    )
    wanted |= dict.fromkeys(("overlap", "threshold", "presence"), (int, float))
    wanted["mpp"] = (int, float, str)
    if name in wanted and (not isinstance(value, wanted[name]) or isinstance(value, bool)):
        raise UsageError(f"--config {path}: {name} = {value!r} is not a number of the right kind")
    return value


def _mpp(given: str | float | None) -> tuple[float | None, tuple[tuple[str, float], ...]]:
    """`--mpp` as one number for all slides, and numbers by slide id.

    Raises:
        UsageError: it is neither a plausible number nor a CSV of them.
    """
    if given is None:
        return None, ()
    # Loaded only here: this process must stay light, and the slide package reads slides.
    from wsiseg.slide.overrides import parse_mpp

    overrides = parse_mpp(str(given))
    return overrides.default, tuple(sorted(overrides.by_id.items()))


def run_config(args: argparse.Namespace) -> RunConfig:
    """The configuration that the options say, with defaults from what is granted to this process.

    Raises:
        UsageError: for a value that does not fit.
    """
    weights: tuple[float, ...] = ()
    if args.weights:
        try:
            weights = tuple(float(w) for w in args.weights.split(","))
        except ValueError as error:
            raise UsageError(f"--weights {args.weights}: write numbers with commas, like 2,1,1") from error
    for name in ("threads", "batch", "scale", "tile"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: must be at least 1")
    for name in ("min_area", "fill_holes"):
        value = getattr(args, name)
        if value is not None and value < 0:
            raise UsageError(f"--{name.replace('_', '-')} {value}: must not be negative")
    mpp, mpp_by_id = _mpp(args.mpp)
    return RunConfig(
        models=tuple(args.model or (DEFAULT_MODEL,)),
        weights=weights,
        tta=args.tta or "none",
        backend=args.backend or "auto",
        device=args.device or "auto",
        precision=args.precision or "auto",
        memory=args.memory or int(memory_limit().value * MEMORY_SHARE),
        threads=args.threads or core_limit().value,
        device_memory=args.gpu_memory,
        options=RunOptions(
            tile=args.tile,
            overlap=args.overlap,
            batch=args.batch or 0,
            scale=args.scale,
            mpp=mpp,
            mpp_by_id=mpp_by_id,
            threshold=args.threshold,
            min_area=args.min_area,
            fill_holes=args.fill_holes,
            tissue=args.tissue,
            presence=args.presence,
            level=args.level or "auto",
            on_bad_tile=args.on_bad_tile or "fail",
            fast_jpeg=bool(args.fast_jpeg),
        ),
    )

"""From what a user calls a model (a bundled name, a file) to one graph that any backend can run."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsiseg.errors import ModelError, UsageError, unknown_name
from wsiseg.model import cache, compose, onnxio
from wsiseg.model.enginefile import SUFFIX as ENGINE_SUFFIX
from wsiseg.model.enginefile import EngineFile
from wsiseg.model.spec import ModelSpec

BUNDLED = Path(__file__).parent / "bundled"
ONNX_SUFFIXES = (".onnx",)
CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class LoadedModel:
    """A model, ready for a backend. `digest` stands for everything its output depends on but the backend.

    Attributes:
        name: what to call it. spec: what it expects and gives.
        onnx_bytes: the one graph, flips and members inside; b"" for an engine.
        digest: SHA-256 of the graph's canonical bytes, or of the engine's plan.
        refs: what the user gave. tta: the flips inside. weights: the members' shares.
        copies: how many network inputs one tile becomes; a batch of B needs the memory of `copies` x B.
        checkpoints: the members' `.pt` files when all of them are checkpoints, else (). For the torch backend.
        engine: the compiled model when it is one, else None.
    """

    name: str
    spec: ModelSpec
    onnx_bytes: bytes
    digest: str
    refs: tuple[str, ...] = ()
    tta: str = "none"
    weights: tuple[float, ...] = (1.0,)
    copies: int = 1
    checkpoints: tuple[Path, ...] = ()
    engine: EngineFile | None = None


def bundled_names() -> tuple[str, ...]:
    """The models that come with wsiseg, in alphabetical order."""
    return tuple(sorted(path.stem for path in BUNDLED.glob("*.onnx")))


def resolve(ref: str) -> Path:
    """The file that `ref` means: an existing path, else a bundled model's name.

    Raises:
        ModelError: for neither; a bare word's error lists the bundled names.
    """
    path = Path(ref).expanduser()
    if path.is_dir():
        raise ModelError(f"{ref}: a folder, not a model file")
    if path.exists():
        return path
    names = bundled_names()
    if ref in names:
        return BUNDLED / f"{ref}.onnx"
    if len(path.parts) > 1 or path.suffix in (*ONNX_SUFFIXES, *CHECKPOINT_SUFFIXES, ENGINE_SUFFIX):
        raise ModelError(f"{ref}: no such model file")
    raise ModelError(
        unknown_name("model", ref, names or ("none is bundled",)) + "; or give a .onnx, .pt or .engine file"
    )


def load_models(
    refs: Sequence[str], weights: Sequence[float] | None = None, tta: str = "none"
) -> LoadedModel:
    """The model that `refs` form together: one file or name, or an ensemble of several.

    Args:
        refs: bundled names, `.onnx` and `.pt` files, or exactly one `.engine`.
        weights: the members' shares, or None for equal ones.
        tta: "none", "flips" (4 variants) or "d4" (8).

    Raises:
        ModelError: for a file that is missing, damaged, or does not fit the others.
        UsageError: for wrong weights or an unknown `tta`.
    """
    if not refs:
        raise UsageError("no model given; `wsiseg models` lists the bundled ones")
    compose.variants(tta)
    paths = [resolve(ref) for ref in refs]
    if any(path.suffix == ENGINE_SUFFIX for path in paths):
        return _load_engine(refs, paths, weights, tta)
    members = [read_graph(path) for path in paths]
    loaded = from_graphs(members, [str(ref) for ref in refs], weights, tta)
    if all(path.suffix in CHECKPOINT_SUFFIXES for path in paths):
        return dataclasses.replace(loaded, checkpoints=tuple(paths))
    return loaded


def from_graphs(
    graphs: Sequence[bytes], refs: Sequence[str], weights: Sequence[float] | None = None, tta: str = "none"
) -> LoadedModel:
    """`load_models` for ONNX models in memory; `refs` are what errors call them."""
    shares = compose.normalise_weights(len(graphs), weights)
    models = [onnxio.parse(data, ref) for data, ref in zip(graphs, refs, strict=True)]
    specs = [onnxio.spec_of(model, ref) for model, ref in zip(models, refs, strict=True)]
    for model, spec, ref in zip(models, specs, refs, strict=True):
        onnxio.check_contract(model, spec, ref)
    symmetries = compose.variants(tta)
    if len(models) == 1 and tta == "none":
        model, spec = models[0], specs[0]
    else:
        model = compose.compose(models, specs, weights, tta)
        spec = onnxio.spec_of(model, "ensemble")
    data = onnxio.canonical(model)
    return LoadedModel(
        name=spec.name, spec=spec, onnx_bytes=data, digest=onnxio.digest(data), refs=tuple(refs), tta=tta,
        weights=shares, copies=len(symmetries),
    )  # fmt: skip


def read_graph(path: Path) -> bytes:
    """The ONNX bytes of a `.onnx` file, or of a `.pt` checkpoint by exporting it (kept in the user's cache).

    Raises:
        ModelError: for a file that cannot be read or is of another kind.
    """
    if path.suffix not in (*ONNX_SUFFIXES, *CHECKPOINT_SUFFIXES):
        raise ModelError(f"{path}: not a model file; wsiseg reads .onnx, .pt and .engine")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    return data if path.suffix in ONNX_SUFFIXES else _export_checkpoint(path, data)


def _export_checkpoint(path: Path, data: bytes) -> bytes:
    if not data:
        raise ModelError(f"{path}: the file is empty")
    from wsiseg import __version__

    name = f"export-{__version__}-{onnxio.digest(data)}.onnx"
    kept = cache.get(name)
    if kept is not None:
        return kept
    if importlib.util.find_spec("torch") is None:
        raise ModelError(
            f"{path}: reading a checkpoint needs torch; pip install 'wsiseg[train]', or use the model's .onnx file"
        )
    exported: bytes = importlib.import_module("wsiseg_train.export").export_onnx(path)
    cache.put(name, exported)
    return exported


def _load_engine(
    refs: Sequence[str], paths: Sequence[Path], weights: Sequence[float] | None, tta: str
) -> LoadedModel:
    if len(paths) > 1 or weights is not None:
        raise UsageError(
            "an engine cannot join an ensemble; build one engine of all members: `wsiseg build-engine A.pt B.pt`"
        )
    engine = EngineFile.open(paths[0])
    sidecar = engine.sidecar
    if tta not in ("none", sidecar.tta):
        raise UsageError(
            f"{refs[0]}: the engine was built with --tta {sidecar.tta}; build it again with `wsiseg build-engine --tta {tta}`"
        )
    return LoadedModel(
        name=sidecar.spec.name, spec=sidecar.spec, onnx_bytes=b"", digest=sidecar.plan_digest, refs=tuple(refs),
        tta=sidecar.tta, copies=len(compose.variants(sidecar.tta)), engine=engine,
    )  # fmt: skip

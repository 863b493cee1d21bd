"""The settings of a run as plain data, so that a job can send them to another process or node. Loads no runtime."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsiseg.pipeline.options import RunOptions
from wsiseg.pipeline.settings import model_settings

if TYPE_CHECKING:
    from wsiseg.model.load import LoadedModel

DEFAULT_MODEL = "glomeruli"


def _options(data: dict[str, Any]) -> RunOptions:
    """RunOptions of plain data that went through JSON, which has no tuples."""
    pairs = tuple((str(slide_id), float(mpp)) for slide_id, mpp in data.get("mpp_by_id", ()))
    return RunOptions(**{**data, "mpp_by_id": pairs})


@dataclass(frozen=True)
class RunConfig:
    """Everything a process needs to segment slides.

    Attributes:
        models: bundled names or files; several form an ensemble. weights: their shares, or () for equal ones.
        tta: "none", "flips" or "d4". backend, device, precision: "auto" or a name.
        memory: bytes for the process. workers, apart: that many such processes and so many bytes besides make up the
            whole budget; for messages that speak of `--memory`. threads: prefetch threads, and CPU
            threads of the runtime.
        device_memory: bytes of GPU memory, or None.
        save, save_folder: outputs beside the CSV (`wsiseg.outputs.save.KINDS`), and where they go.
        probabilities: the probabilities of a slide are kept in `save_folder` until its outputs are written.
        options: what one slide depends on.
    """

    models: tuple[str, ...] = (DEFAULT_MODEL,)
    weights: tuple[float, ...] = ()
    tta: str = "none"
    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    memory: int = 2 << 30
    workers: int = 1
    apart: int = 0
    threads: int = 1
    device_memory: int | None = None
    save: tuple[str, ...] = ()
    save_folder: str = ""
    probabilities: bool = False
    options: RunOptions = field(default_factory=RunOptions)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunConfig:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**{**values, "options": _options(data["options"])})

    def load(self) -> LoadedModel:
        """The model, flips and members inside.

        Raises:
            ModelError, UsageError: see `wsiseg.model.load.load_models`.
        """
        from wsiseg.model.load import load_models

        return load_models(self.models, self.weights or None, self.tta)

    def identity(
        self, model: LoadedModel, backend: str, precision: str, presence: float = 0.0
    ) -> dict[str, Any]:
        """Plain data of everything that the bytes of a result depend on, with names that people know.

        Args:
            presence: below which the session leaves the decoder out; 0 where it never does.
        """
        settings = model_settings(model.spec, self.options)
        return {
            "model": model.name,
            "model digest": model.digest,
            "tta": self.tta,
            "backend": backend,
            "precision": precision,
            **self.options.identity(),
            "tile": settings.tile,
            "stride": settings.stride,
            "threshold": list(settings.thresholds),
            "tissue": "auto" if settings.tissue else "none",
            **({"presence": presence} if presence else {}),
        }

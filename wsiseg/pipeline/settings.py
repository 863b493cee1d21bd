"""From a model's spec, a person's options and a slide's facts to the numbers of one slide. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from wsiseg.errors import UsageError
from wsiseg.model.spec import ModelSpec
from wsiseg.pipeline.options import RunOptions
from wsiseg.tiling import stride_of

WHITE, BLACK = 255, 0
SCALE_TOLERANCE = 0.2


@dataclass(frozen=True)
class ModelSettings:
    """What is the same for every slide of a run: tile and stride in network pixels, thresholds, fill, tissue rule.

    `fill` is 0 for reflection and 1 for the constant `fill_value`.
    """

    tile: int
    stride: int
    thresholds: tuple[float, ...]
    fill: int
    fill_value: int
    tissue: bool


@dataclass(frozen=True)
class SlideSettings:
    """What depends on the slide: its scale, areas in slide pixels, and what a person should know."""

    scale: int
    min_area: int
    fill_holes: int
    warnings: tuple[str, ...]


def model_settings(spec: ModelSpec, options: RunOptions) -> ModelSettings:
    """Raises UsageError for an option that the model cannot take."""
    tile = options.tile or spec.tile
    if tile < 1 or tile % spec.tile_multiple:
        near = max(spec.tile_multiple, round(tile / spec.tile_multiple) * spec.tile_multiple)
        raise UsageError(
            f"--tile {tile}: model {spec.name!r} needs a multiple of {spec.tile_multiple}, such as {near}"
        )
    overlap = spec.overlap if options.overlap is None else options.overlap
    if not 0 <= overlap <= 0.75:
        raise UsageError(f"--overlap {overlap}: must be between 0 and 0.75 of the tile")
    thresholds = spec.thresholds if options.threshold is None else (options.threshold,) * len(spec.classes)
    if not all(0 <= t < 1 for t in thresholds):
        raise UsageError(f"--threshold {options.threshold}: must be at least 0 and below 1")
    return ModelSettings(
        tile=tile,
        stride=stride_of(tile, overlap),
        thresholds=tuple(float(t) for t in thresholds),
        fill=0 if spec.fill == "reflect" else 1,
        fill_value=BLACK if spec.fill == "black" else WHITE,
        tissue=(options.tissue or spec.tissue) == "auto",
    )


def presence_limit(spec: ModelSpec, options: RunOptions, refused: str) -> float:
    """Below which presence a tile is not decoded; 0 decodes every tile.

    Args:
        refused: why this backend decodes every tile, or "" when it can leave some out.

    Raises:
        UsageError: for a limit that was asked for and cannot be.
    """
    asked = options.presence
    if asked is None:
        return spec.presence if spec.has_classifier and not refused else 0.0
    if not 0 <= asked < 1:
        raise UsageError(f"--presence {asked:g}: must be at least 0 and below 1")
    if asked and not spec.has_classifier:
        raise UsageError(f"--presence {asked:g}: model {spec.name!r} has no classification head")
    if asked and refused:
        raise UsageError(f"--presence {asked:g}: {refused}; leave it out")
    return asked


def slide_settings(spec: ModelSpec, options: RunOptions, mpp: float | None) -> SlideSettings:
    """The scale and the areas for a slide of `mpp` microns per pixel (None: unknown)."""
    warnings: list[str] = []
    if options.scale is not None:
        if options.scale < 1:
            raise UsageError(f"--scale {options.scale}: must be a whole number of slide pixels, 1 or more")
        scale = options.scale
    elif spec.mpp is None:
        scale = spec.scale
    elif mpp is None:
        scale = spec.scale
        warnings.append(
            f"no microns per pixel in the file; scale {scale} assumed, set --mpp or --scale to be sure"
        )
    else:
        wanted = spec.mpp / mpp
        scale = max(1, round(wanted))
        if abs(scale / wanted - 1) > SCALE_TOLERANCE:
            warnings.append(
                f"{mpp:.3g} microns per pixel is {'coarser' if wanted < 1 else 'not a whole part'} of the model's {spec.mpp:.3g}; scale {scale} is {scale / wanted:.2f} of the wanted one"
            )

    # Without the file's word the assumed scale implies a pixel size, so areas in square microns keep their meaning.
    pixel = (mpp or spec.mpp / scale) if spec.mpp else 1.0

    def pixels(option: int | None, default: float) -> int:
        return option if option is not None else round(default / (pixel * pixel))

    return SlideSettings(
        scale,
        pixels(options.min_area, spec.min_area),
        pixels(options.fill_holes, spec.fill_holes),
        tuple(warnings),
    )

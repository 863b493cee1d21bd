"""Run-length masks of whole slides: sets of pixels as sorted runs, their algebra, and the CSV's text form.

A run is (start, length) over the column-major flat index x * H + y: top to bottom, then left to right. In memory
starts count from 0; in text from 1. Runs that touch are one, also across a column's end. No operation here makes a
full-size mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wsiseg.errors import UsageError
from wsiseg.geometry import Rect, Size
from wsiseg_kernels import cpu


@dataclass(frozen=True, eq=False, slots=True)
class Runs:
    """A mask of `size` as canonical runs.

    Args:
        starts: int64 [n], 0-based, ascending.
        lengths: int64 [n], at least 1; no two runs overlap or touch.
        size: of the slide.

    The constructor trusts its arguments; `from_rle` and `merged` check or mend theirs.
    """

    starts: np.ndarray
    lengths: np.ndarray
    size: Size

    @classmethod
    def empty(cls, size: Size) -> Runs:
        """The mask without a pixel."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), size)

    @classmethod
    def merged(cls, starts: np.ndarray, lengths: np.ndarray, size: Size) -> Runs:
        """The canonical form of any runs inside the slide: sorted, those that overlap or touch made one."""
        starts, lengths = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
        starts, lengths = starts[lengths > 0], lengths[lengths > 0]
        if not len(starts):
            return cls.empty(size)
        if (np.diff(starts) < 0).any():
            order = np.argsort(starts, kind="stable")
            starts, lengths = starts[order], lengths[order]
        reach = np.maximum.accumulate(starts + lengths)
        first = np.concatenate([[True], starts[1:] > reach[:-1]])
        last = np.concatenate([first[1:], [True]])
        return cls(starts[first], reach[last] - starts[first], size)

    @classmethod
    def from_mask(cls, mask: np.ndarray) -> Runs:
        """The runs of a small mask [H, W]; what is not zero is inside."""
        starts, lengths = cpu.mask_to_runs(np.ascontiguousarray(mask != 0).view(np.uint8))
        return cls(starts, lengths, Size(*mask.shape))

    @classmethod
    def from_rle(cls, text: str, size: Size, strict: bool = True) -> Runs:
        """The mask of a CSV field: "start length start length ...", starts from 1; "" is the empty mask.

        Args:
            strict: refuse what is not well formed. Otherwise runs are sorted, merged and cut to the slide, and only
                text that is not numbers in pairs is refused.

        Raises:
            UsageError: the first things wrong, with their positions.
        """
        starts, lengths, problems = parse_rle(text)
        if not problems and strict:
            problems = run_problems(starts, lengths, size)
        if problems:
            raise UsageError(_summary(problems))
        if not strict:
            ends = np.minimum(starts, size.pixels) + np.minimum(lengths, size.pixels)
            starts = starts.clip(0, size.pixels)
            lengths = ends.clip(0, size.pixels) - starts
        return cls.merged(starts, lengths, size)

    def to_rle(self) -> str:
        """The CSV field: 1-based, ASCII."""
        return bytes(cpu.encode_runs(self.starts, self.lengths)).decode("ascii")

    def mask(self, rect: Rect) -> np.ndarray:
        """A window of the mask: uint8 [h, w], 1 inside, 0 outside and beyond the slide."""
        out = np.zeros((rect.size.height, rect.size.width), np.uint8)
        h = self.size.height
        # Only the runs that reach into the window's columns matter.
        first, last = np.searchsorted(self.starts, [rect.x0 * h, rect.x1 * h])
        if first and self.starts[first - 1] + self.lengths[first - 1] > rect.x0 * h:
            first -= 1
        if out.size and first < last:
            cpu.runs_to_mask(self.starts[first:last], self.lengths[first:last], h, rect.y0, rect.x0, out)
        return out

    @property
    def ends(self) -> np.ndarray:
        """One past each run's last pixel: int64 [n]."""
        return self.starts + self.lengths

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int(self.lengths.sum())

    def __len__(self) -> int:
        return len(self.starts)

    def __bool__(self) -> bool:
        """Whether any pixel is inside."""
        return len(self.starts) > 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Runs):
            return NotImplemented
        return (
            self.size == other.size
            and np.array_equal(self.starts, other.starts)
            and np.array_equal(self.lengths, other.lengths)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Runs({len(self)} runs, {self.area} of {self.size} pixels)"

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """The same pixels with every run cut at its columns' ends: (starts, lengths), int64 [m] each."""
        h = self.size.height
        first, last = self.starts // h, (self.ends - 1) // h
        if np.array_equal(first, last):
            return self.starts, self.lengths
        owner, nth = _expand(last - first + 1)
        column = first[owner] + nth
        starts = np.maximum(self.starts[owner], column * h)
        return starts, np.minimum(self.ends[owner], (column + 1) * h) - starts

    def columns(self, x0: int, x1: int) -> Runs:
        """The part of the mask in columns x0 to x1, with the slide's size."""
        h = self.size.height
        lo, hi = x0 * h, x1 * h
        a = int(np.searchsorted(self.starts, lo, "right"))
        a -= bool(a and self.starts[a - 1] + self.lengths[a - 1] > lo)
        b = int(np.searchsorted(self.starts, hi, "left"))
        starts = np.maximum(self.starts[a:b], lo)
        return Runs(starts, np.minimum(self.ends[a:b], hi) - starts, self.size)

    def pairs(self, other: Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Every overlap of a run of this mask with one of the other: (run here, run there, start, end), int64 [n].

        Runs may touch here, as they do when they are cut at columns.

        Raises:
            ValueError: masks of different slides.
        """
        if self.size != other.size:
            raise ValueError(f"masks of different slides: {self.size} and {other.size}")
        ends, other_ends = self.ends, other.ends
        low = np.searchsorted(ends, other.starts, "right")
        high = np.searchsorted(self.starts, other_ends, "left")
        theirs, nth = _expand(np.maximum(high - low, 0))
        mine = low[theirs] + nth
        starts = np.maximum(self.starts[mine], other.starts[theirs])
        return mine, theirs, starts, np.minimum(ends[mine], other_ends[theirs])

    def intersection(self, other: Runs) -> Runs:
        """The pixels in both."""
        _, _, starts, ends = self.pairs(other)
        return Runs(starts, ends - starts, self.size)

    def union(self, other: Runs) -> Runs:
        """The pixels in either."""
        if self.size != other.size:
            raise ValueError(f"masks of different slides: {self.size} and {other.size}")
        return Runs.merged(
            np.concatenate([self.starts, other.starts]),
            np.concatenate([self.lengths, other.lengths]),
            self.size,
        )

    def complement(self) -> Runs:
        """The pixels of the slide that are not inside."""
        starts = np.concatenate([[0], self.ends]).astype(np.int64)
        lengths = np.concatenate([self.starts, [self.size.pixels]]).astype(np.int64) - starts
        return Runs(starts[lengths > 0], lengths[lengths > 0], self.size)

    def difference(self, other: Runs) -> Runs:
        """The pixels inside this mask and not in the other."""
        return self.intersection(other.complement())

    def overlap(self, other: Runs) -> int:
        """How many pixels are in both."""
        _, _, starts, ends = self.pairs(other)
        return int((ends - starts).sum())

    def differing(self, other: Runs) -> int:
        """How many pixels are in exactly one of both."""
        return self.area + other.area - 2 * self.overlap(other)

    def dice(self, other: Runs) -> float:
        """2 |A and B| / (|A| + |B|); 1 for two empty masks, as the HuBMAP competition scores."""
        total, both = self.area + other.area, self.overlap(other)
        return 2 * both / total if total else 1.0


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For counts [n]: of each of sum(counts) items, whose it is and the how many-eth of its owner."""
    owner = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - before[owner]


def parse_rle(text: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(starts 0-based, lengths, problems) of a CSV field, as it stands; with problems the arrays are empty."""
    none = np.empty(0, np.int64)
    try:
        starts, lengths = cpu.decode_runs(text.encode("ascii"))
    except (ValueError, UnicodeEncodeError):
        return none, none, list(_token_problems(text))[:_LISTED] or ["cannot be read as numbers"]
    return starts, lengths, []


_LISTED = 5
"""How many problems of one kind are listed by position; the rest is counted."""


def _token_problems(text: str) -> Iterator[str]:
    """What keeps a text from being pairs of numbers; only called for text that is not."""
    tokens = text.split()
    for k, token in enumerate(tokens):
        if not (token.isascii() and token.isdigit()):
            shown = token if len(token) <= 24 else token[:24] + "..."
            yield f"run {k // 2 + 1}: {('start', 'length')[k % 2]} {shown!r} is not a whole number"
        elif len(token) > 18:
            yield f"run {k // 2 + 1}: {('start', 'length')[k % 2]} {token[:24]} is too large"
    if len(tokens) % 2:
        yield f"{len(tokens)} numbers: an odd count, so the last start {tokens[-1][:24]!r} has no length"


def run_problems(starts: np.ndarray, lengths: np.ndarray, size: Size) -> list[str]:
    """Everything wrong with runs as decoded (0-based starts), each with the run's position; none if well formed.

    Runs that touch are well formed: some encoders write one run per column.
    """
    pixels = size.pixels
    safe = np.minimum(lengths, pixels + 1)  # a sum with it cannot overflow
    ends = np.minimum(starts, pixels) + safe
    sound = lengths >= 1
    lowest = [np.iinfo(np.int64).min]  # nothing comes before the first run
    before = np.concatenate([lowest, np.maximum.accumulate(starts)])[:-1]
    covered = np.concatenate([lowest, np.maximum.accumulate(ends)])[:-1]
    kinds = [
        (starts < 0, lambda k: f"start {starts[k] + 1}, but starts count from 1"),
        (~sound, lambda k: f"length {lengths[k]}, but a run has at least one pixel"),
        (starts < before, lambda k: f"start {starts[k] + 1} comes after {before[k] + 1}: not sorted"),
        (
            sound & (starts >= before) & (starts < covered),
            lambda k: (
                f"start {starts[k] + 1} lies in a run before it, which ends at {covered[k]}: overlapping"
            ),
        ),
        (
            (starts >= pixels) | (ends > pixels),
            lambda k: (
                f"start {starts[k] + 1} length {lengths[k]} ends at {starts[k] + lengths[k]}, "
                f"beyond the slide's {pixels} pixels ({size})"
            ),
        ),
    ]
    problems = []
    for wrong, words in kinds:
        where = np.nonzero(wrong)[0]
        problems += [f"run {k + 1}: {words(k)}" for k in where[:_LISTED]]
        if len(where) > _LISTED:
            problems.append(f"... and {len(where) - _LISTED} more like the last")
    return problems


def _summary(problems: list[str]) -> str:
    return "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")

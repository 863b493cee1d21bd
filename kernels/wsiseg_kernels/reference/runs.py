"""Lists of runs to text, to masks and back, in plain Python."""

from __future__ import annotations

import re

import numpy as np

from ..arrays import I64, U8, Runs


def joined(starts: I64, lengths: I64) -> Runs:
    """The canonical form of sorted runs: those that touch are one."""
    ends = starts + lengths
    first = np.ones(len(starts), bool)
    first[1:] = starts[1:] != ends[:-1]
    last = np.append(first[1:], True)[: len(starts)]
    return starts[first], ends[last] - starts[first]


def encode_runs(starts: I64, lengths: I64) -> bytes:
    """ASCII "start length start length ..." with 1-based starts; nothing for no runs. int64 [n] each."""
    pairs = zip(starts.tolist(), lengths.tolist(), strict=True)
    return " ".join(f"{start + 1} {length}" for start, length in pairs).encode("ascii")


def decode_runs(text: bytes) -> Runs:
    """The runs of "start length ..." text as int64, 0-based, in the text's order; their values are not judged.

    Numbers are unsigned decimal and fit int64, between ASCII white space. ValueError says at which byte it is not so.
    """
    values = []
    for token in re.finditer(rb"[^ \t\r\n]+", text):
        word = token.group()
        bad = re.search(rb"[^0-9]", word)
        if bad:
            raise ValueError(f"byte {token.start() + bad.start()}: not a digit")
        if int(word) > np.iinfo(np.int64).max:
            raise ValueError(f"byte {token.start()}: number too large")
        values.append(int(word))
    if len(values) % 2:
        raise ValueError(f"byte {len(text)}: a start without a length")
    pairs = np.array(values, np.int64).reshape(-1, 2)
    return pairs[:, 0] - 1, pairs[:, 1].copy()


def runs_to_mask(starts: I64, lengths: I64, height: int, y0: int, x0: int, out: U8) -> None:
    """Draw the window of the mask whose corner is slide pixel (y0, x0): 1 inside runs, 0 elsewhere and off the slide.

    starts, lengths int64 [n], sorted, not overlapping; height the slide's; out uint8 [h, w].
    """
    out[:] = 0
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        for flat in range(start, start + length):
            x, y = divmod(flat, height)
            if 0 <= x - x0 < out.shape[1] and 0 <= y - y0 < out.shape[0]:
                out[y - y0, x - x0] = 1


def mask_to_runs(mask: U8) -> Runs:
    """The canonical runs of a mask uint8 [H, W]: non-zero is inside."""
    flat = np.concatenate([[0], (mask != 0).T.ravel().astype(np.int8), [0]])
    edges = np.nonzero(np.diff(flat))[0].astype(np.int64)
    return edges[::2], edges[1::2] - edges[::2]

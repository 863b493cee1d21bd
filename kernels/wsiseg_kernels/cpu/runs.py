"""Lists of runs to ASCII and back, and to and from masks."""

# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import numpy as np

from ..arrays import I64, U8, Runs
from .jit import kernel
from .transitions import transitions_to_runs


def encode_runs(starts: I64, lengths: I64) -> bytes:
    """ASCII "start length start length ..." with 1-based starts. int64 [n] each, not negative."""
    out = np.empty(_text_size(starts, lengths), np.uint8)
    _write(starts, lengths, out)
    return out.tobytes()


def decode_runs(text: bytes) -> Runs:
    """The runs of "start length ..." text, int64, 0-based, unjudged; see `reference.decode_runs`.

    ValueError with the byte's position when the text is not unsigned decimal numbers that fit int64, in pairs.
    """
    data = np.frombuffer(text, np.uint8)
    starts, lengths, bad, where = _read(data)
    if bad:
        what = ("", "not a digit", "number too large", "a start without a length")[bad]
        raise ValueError(f"byte {where}: {what}")
    return starts, lengths


def runs_to_mask(starts: I64, lengths: I64, height: int, y0: int, x0: int, out: U8) -> None:
    """Draw the window of the mask with its corner at slide pixel (y0, x0); see `reference.runs_to_mask`.

    starts, lengths int64 [n], sorted, not overlapping; height the slide's; out uint8 [h, w] gets 1 inside, 0 elsewhere.
    """
    _draw(starts, lengths, height, y0, x0, out)


def mask_to_runs(mask: U8) -> Runs:
    """The canonical runs of a mask uint8 [H, W]: non-zero is inside."""
    x, y = _toggles(mask)
    return transitions_to_runs(x, y, 0, mask.shape[1], mask.shape[0])


@kernel
def _digits(value):
    n = 1
    while value >= 10:
        value //= np.uint64(10)
        n += 1
    return n


@kernel
def _text_size(starts, lengths):
    size = 0
    for i in range(starts.size):
        size += _digits(np.uint64(starts[i] + 1)) + _digits(np.uint64(lengths[i])) + 2
    return max(size - 1, 0)


@kernel
def _put(out, end, value):
    """Write the number so that its last digit is out[end - 1]; returns where its first digit is."""
    while True:
        rest = value // np.uint64(10)
        end -= 1
        out[end] = np.uint8(48) + np.uint8(value - rest * np.uint64(10))
        value = rest
        if value == 0:
            return end


@kernel
def _write(starts, lengths, out):
    """From the last digit to the first, since the size is known and a number's digits come out in that order."""
    end = out.size
    for k in range(starts.size):
        i = starts.size - 1 - k
        end = _put(out, end, np.uint64(lengths[i])) - 1
        out[end] = 32
        end = _put(out, end, np.uint64(starts[i] + 1)) - 1
        if i > 0:
            out[end] = 32


@kernel
def _is_space(byte):
    return byte == 32 or byte == 9 or byte == 10 or byte == 13


@kernel
def _read(data):
    """(starts, lengths, what is wrong: 0 nothing, 1 not a digit, 2 too large, 3 odd; at which byte)."""
    tokens, gap = 0, 1
    for i in range(data.size):
        space = int(_is_space(data[i]))
        if gap != 0 and space == 0:
            tokens += 1
        gap = space
    starts, lengths = np.empty((tokens + 1) // 2, np.int64), np.empty(tokens // 2, np.int64)
    largest = np.uint64(np.iinfo(np.int64).max)
    i, token = 0, 0
    while i < data.size:
        if _is_space(data[i]):
            i += 1
            continue
        first, value, large = i, np.uint64(0), 0
        while i < data.size and not _is_space(data[i]):
            digit = np.uint64(data[i]) - np.uint64(48)
            if digit > 9:
                return starts, lengths, 1, i
            if value > (largest - digit) // np.uint64(10):
                large = 1
            value = value * np.uint64(10) + digit
            i += 1
        if large != 0:
            return starts, lengths, 2, first
        if token % 2 == 0:
            starts[token // 2] = np.int64(value) - 1
        else:
            lengths[token // 2] = np.int64(value)
        token += 1
    return starts, lengths, 3 if tokens % 2 else 0, data.size


@kernel
def _draw(starts, lengths, height, y0, x0, out):
    """Mark where each column toggles, then carry the state down row by row: whole vectors, whatever the runs."""
    tall, wide = out.shape
    out[:] = 0
    low, high = 0, starts.size
    while low < high:
        middle = (low + high) // 2
        if starts[middle] + lengths[middle] <= x0 * height:
            low = middle + 1
        else:
            high = middle
    for i in range(low, starts.size):
        flat, end = starts[i], starts[i] + lengths[i]
        if flat >= (x0 + wide) * height:
            break
        flat = max(flat, max(0, x0) * height)
        while flat < end:
            x = flat // height
            if x >= x0 + wide:
                break
            top, bottom = flat - x * height - y0, min(end - x * height, height) - y0
            if top < tall and bottom > 0:
                out[max(top, 0), x - x0] ^= 1
                if bottom < tall:
                    out[bottom, x - x0] ^= 1
            flat = (x + 1) * height
    for y in range(1, tall):
        above, row = out[y - 1], out[y]
        for x in range(wide):
            row[x] ^= above[x]


@kernel
def _toggles(mask):
    """(column, row) int32 of every change going down the columns, from outside above to outside below."""
    tall, wide = mask.shape
    state = np.zeros(wide, np.uint8)
    count = 0
    for y in range(tall):
        row = mask[y]
        for x in range(wide):
            now = np.uint8(row[x] != 0)
            count += now ^ state[x]
            state[x] = now
    for x in range(wide):
        count += state[x]
    out_x, out_y = np.empty(count, np.int32), np.empty(count, np.int32)
    words = np.zeros((wide + 7) // 8, np.uint64)
    changed = words.view(np.uint8)
    state[:] = 0
    count = 0
    for y in range(tall + 1):
        if y < tall:
            row = mask[y]
            for x in range(wide):
                now = np.uint8(row[x] != 0)
                changed[x] = now ^ state[x]
                state[x] = now
        else:
            changed[:wide] = state
        for word in range(words.size):
            if words[word] != 0:
                for x in range(word * 8, word * 8 + 8):
                    if changed[x] != 0:
                        out_x[count] = x
                        out_y[count] = y
                        count += 1
    return out_x, out_y

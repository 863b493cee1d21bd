"""Bytes of files, which have no form on a device: whether a JPEG scan is whole, and uncompressed pixels into a ring.

Plain forms are in the tests of the slides that are read with them.
"""

# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .jit import kernel, kernel_for
from .shrink import copy_block, shrink_block

WHOLE, OTHER_HEADERS, CUT, GARBLED = range(4)
_BYTES = "Array(uint8, 1, 'C', readonly=True)"


@kernel_for(f"int64({_BYTES}, {_BYTES}, boolean, boolean, boolean)")
def scan_state(data, headers, baseline, restarts, part):
    """WHOLE or what is wrong with a JPEG stream that should begin with `headers`.

    Args:
        data: uint8 [n], the stream.
        headers: uint8 [m], all that stands before the scan's data; m = 0 leaves nothing to compare.
        baseline: only then markers inside the scan are looked for: no other than restarts can be there.
        restarts: there may be restart markers.
        part: the stream lies between restart markers and may end with one.

    Returns:
        WHOLE, or OTHER_HEADERS, or CUT: the end marker is missing, or GARBLED: other markers are inside the scan.
    """
    n, start = data.size, headers.size
    if n < start:
        return OTHER_HEADERS
    begin, apart = data[:start], np.uint8(0)
    for i in range(start):
        apart |= begin[i] ^ headers[i]
    if apart:
        return OTHER_HEADERS
    end = n - 2  # writers may pad after the end marker
    while end >= start and not (data[end] == 0xFF and data[end + 1] == 0xD9):
        end -= 1
    while end - 2 >= start and data[end - 2] == 0xFF and data[end - 1] == 0xD9:
        end -= 2  # some write it twice
    if end < start and part and n >= start + 2 and data[n - 2] == 0xFF and data[n - 1] & 0xF8 == 0xD0:
        end = n
    if end < start:
        return CUT
    if not baseline:
        return WHOLE
    # Nearly every scan is clean: a pass without a branch, over slices, is done in whole vectors.
    these, following, found = data[start : end - 1], data[start + 1 : end], np.uint8(0)
    for i in range(these.size):
        found |= following[i] if these[i] == 0xFF else np.uint8(0)
    if not found:
        return WHOLE
    for i in range(start, end - 1):
        marker = data[i + 1]
        if data[i] != 0xFF or marker == 0 or marker == 0xFF or (restarts and marker & 0xF8 == 0xD0):
            continue
        # Tables or another scan may follow the first one in files that store each component by itself.
        return WHOLE if marker in (0xC4, 0xDA, 0xDB, 0xDD) else GARBLED
    return WHOLE


_copy, _shrink = copy_block.inner, shrink_block.inner
# ssize_t pread(int, void *, size_t, off_t) of the C library that every process has.
_pread: Any = types.ExternalFunction(
    "pread", types.intp(types.int32, types.voidptr, types.uintp, types.int64)
)


@kernel
def _fetch(fd, offset, count, out):
    """Read `count` bytes at `offset` to where `out` begins; False when the file does not give them."""
    done = 0
    while done < count:
        got = _pread(fd, out[done:].ctypes, count - done, offset + done)
        if got <= 0:
            return False
        done += got
    return True


@kernel_for(
    "int64(int32, int64, Array(int64, 1, 'C', readonly=True), Array(int64, 1, 'C', readonly=True), UniTuple(int64, 5), "
    "UniTuple(int64, 6), uint8[::1], uint8[:, :, ::1], uint16[:, ::1])"
)
def read_plain(fd, end, offsets, counts, segments, place, buffer, ring, work):
    """Read segments beside each other into the ring; returns how many of them went well, one after the other.

    Args:
        fd, end: the file and its size.
        offsets, counts: the file's tables.
        segments: number of the first in the tables, how many, rows and columns of pixels in each, least bytes of each.
        place: level column of the first one's corner; level columns a..b that are wanted; network row and column where the
            ring's part begins, the column counted from the ring's; level pixels per network pixel.
        buffer: uint8, room for `scale` rows of a segment and more. ring: uint8 [rows, w, 3]. work: as of `shrink_block`.
    """
    first, number, high, wide, least = segments
    x, a, b, row, col, scale = place
    line, rows = wide * 3, len(ring)
    # Network rows that are read at a time: what is shrunk next is then in the second-level cache.
    pieces = max(1, buffer.size // (line * scale))
    straight = scale == 1 and number == 1 and b - a == wide and ring.shape[1] == wide
    for k in range(number):
        offset, left = offsets[first + k], x + k * wide
        if offset < 8 or counts[first + k] < least or offset + counts[first + k] > end:
            return k
        x0, x1 = max(a, left) - left, min(b, left + wide) - left
        u0 = col + (left + x0 - a) // scale
        u1 = u0 + -(-(x1 - x0) // scale)
        done, made = 0, -(-high // scale)
        while done < made:
            at = (row + done) % rows
            n = min(made - done, rows - at)
            if not straight:
                n = min(n, pieces)
            y0, y1 = done * scale, min(high, (done + n) * scale)
            out = ring[at : at + n, u0:u1]
            target = ring[at : at + n].reshape(n * ring.shape[1] * 3) if straight else buffer
            if not _fetch(fd, offset + y0 * line, (y1 - y0) * line, target):
                return k
            if not straight:
                part = buffer[: (y1 - y0) * line].reshape(y1 - y0, wide, 3)[:, x0:x1]
                if scale == 1:
                    _copy(part, out)
                else:
                    _shrink(part, scale, out, work)
            done += n
    return number

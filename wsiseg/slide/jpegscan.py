"""Whether the scan of a JPEG stream is whole, told from its bytes in one compiled pass; a plain form is in the tests."""

from __future__ import annotations

import numpy as np

from wsiseg_kernels.cpu.jit import kernel_for

WHOLE, OTHER_HEADERS, CUT, GARBLED = range(4)
_BYTES = "Array(uint8, 1, 'C', readonly=True)"


@kernel_for(f"int64({_BYTES}, {_BYTES}, boolean, boolean, boolean)")
def scan_state(data, headers, baseline, restarts, part):  # type: ignore[no-untyped-def]
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

"""Chunks of a zarr array in a local folder, read and decoded without zarr's event loop.

zarr's own reading goes through one loop for all threads and so does not scale; and some of its codecs allocate what a
chunk's header claims. Here a chunk is one `open`, one read into a buffer that is kept, and one decode into a buffer of
the size that the array's metadata gives. Arrays with other codecs or stores (shards, filters) are left to zarr.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from wsiseg.slide import limits
from wsiseg.slide.level import Scratch
from wsiseg.slide.segments import pread
from wsiseg.slide.streams import BadStream

Array = npt.NDArray[Any]

# By the names that zarr v2 and v3 give them. All decode into `out`.
DECODERS: dict[str, Callable[..., Any]] = {
    "zstd": imagecodecs.zstd_decode,
    "zlib": imagecodecs.deflate_decode if imagecodecs.DEFLATE.available else imagecodecs.zlib_decode,
    "gzip": imagecodecs.gzip_decode,
    "blosc": imagecodecs.blosc_decode,
}


class LocalChunks:
    """Decodes chunks of one array. Use `local_chunks`. Safe from several threads."""

    def __init__(self, array: Any, folder: Path, codec: str | None, dtype: np.dtype[Any], order: str) -> None:
        self._key, self._folder = array.metadata.encode_chunk_key, folder
        self._decode = DECODERS[codec] if codec else None
        self._shape, self._dtype, self._order = tuple(array.chunks), dtype, order
        self._bytes = int(np.prod(self._shape)) * dtype.itemsize
        self._most = limits.MAX_GROWTH * self._bytes + limits.MAX_STORED_EXTRA

    def read(self, place: tuple[int, ...], scratch: Scratch, slot: int) -> Array | None:
        """The chunk at grid position `place`, whole (edge chunks include their padding); None where it is missing.

        `slot` numbers the chunks that are held at once.

        Raises:
            BadStream: it is cut, or not what the metadata says.
        """
        try:
            fd = os.open(self._folder / self._key(place), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise BadStream("it is not a regular file")
            count = status.st_size
            if count > self._most:
                raise BadStream(f"its {count} bytes are too many for {self._bytes} bytes of pixels")
            if self._decode is None and count != self._bytes:
                raise BadStream(f"it holds {count} of {self._bytes} bytes")
            stored = scratch.take("stored" if self._decode else f"decoded{slot}", count)
            pread(fd, 0, count, stored)
        finally:
            os.close(fd)
        flat: Any = stored
        if self._decode is not None:
            flat = self._decode(stored.data, out=scratch.take(f"decoded{slot}", self._bytes))
            if len(flat) != self._bytes:
                raise BadStream(f"it decodes to {len(flat)} of {self._bytes} bytes")
        return np.frombuffer(flat, np.uint8).view(self._dtype).reshape(self._shape, order=self._order)  # type: ignore[call-overload,no-any-return]


def local_chunks(array: Any) -> LocalChunks | None:
    """A reader of `array`'s chunks, or None when zarr has to read them itself."""
    root = getattr(array.store, "root", None)
    if root is None:
        return None
    metadata, folder = array.metadata, Path(root) / array.path
    dtype = np.dtype(array.dtype)
    if metadata.zarr_format == 2:
        compressor = metadata.compressor
        name = getattr(compressor, "codec_id", None)
        if metadata.filters or (compressor is not None and name not in DECODERS):
            return None
        return LocalChunks(array, folder, name, dtype, metadata.order)
    from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ZstdCodec

    codecs = list(metadata.codecs)
    if not codecs or not isinstance(codecs[0], BytesCodec) or len(codecs) > 2:
        return None
    endian = getattr(codecs[0].endian, "value", "little")
    stored = dtype.newbyteorder(">" if endian == "big" else "<")
    if len(codecs) == 1:
        return LocalChunks(array, folder, None, stored, "C")
    names = {ZstdCodec: "zstd", GzipCodec: "gzip", BloscCodec: "blosc"}
    found = next((n for kind, n in names.items() if isinstance(codecs[1], kind)), None)
    if found is None or (found == "zstd" and getattr(codecs[1], "checksum", False) is None):
        return None
    return LocalChunks(array, folder, found, stored, "C")

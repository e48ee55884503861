"""Zip archives as evaluations leave them: entries packed with zstd, archives that were cut off."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

_STORED, _DEFLATED, _ZSTD = 0, 8, 93
_LOCAL = struct.Struct("<4s5H3I2H")
"""A local header: signature, version, flags, method, time, date, crc, packed, size, name, extra."""
_SIZES_FOLLOW = 8
"""Flag: sizes stand behind the data, so a walk cannot know where it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file in an archive."""

    name: str
    """With its folders."""
    offset: int
    """Of its local header, in bytes."""
    packed: int
    """Length of its packed data, in bytes."""
    method: int
    """How it is packed, as zip numbers it."""
    crc: int
    """Checksum of the unpacked data."""


def entries(file: io.BufferedIOBase) -> tuple[list[Entry], bool]:
    """The entries of an archive, and whether its directory is there.

    An archive that was cut off has lost its directory, which stands at the end; the headers before
    the data tell what is there up to the cut. Of several entries of a name the last counts.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            listed = [
                Entry(
                    name=info.filename,
                    offset=info.header_offset,
                    packed=info.compress_size,
                    method=info.compress_type,
                    crc=info.CRC,
                )
                for info in archive.infolist()
            ]
    except (zipfile.BadZipFile, struct.error):
        return _last_of_each(_walk(file)), False
    return _last_of_each(listed), True


def content(file: io.BufferedIOBase, entry: Entry) -> bytes:
    """An entry's bytes, unpacked.

    Raises:
        ValueError: it is damaged, or packed in a way that nothing here unpacks.
    """
    file.seek(entry.offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
        raise ValueError("damaged: no header where the directory says")
    file.seek(sum(_LOCAL.unpack(header)[-2:]), 1)
    data = file.read(entry.packed)
    try:
        unpacked = _unpacked(data, entry.method)
    except (zlib.error, OSError) as error:
        raise ValueError(f"damaged: {error}") from error
    if zlib.crc32(unpacked) != entry.crc:
        raise ValueError("damaged: its checksum differs")
    return unpacked


def _last_of_each(listed: list[Entry] | Iterator[Entry]) -> list[Entry]:
    return list({entry.name: entry for entry in listed}.values())


def _walk(file: io.BufferedIOBase) -> Iterator[Entry]:
    end = file.seek(0, 2)
    offset = 0
    while True:
        file.seek(offset)
        header = file.read(_LOCAL.size)
        if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
            return
        _, _, flags, method, _, _, crc, packed, _, name_length, extra = _LOCAL.unpack(header)
        name = file.read(name_length).decode("utf-8", errors="replace")
        data_end = offset + _LOCAL.size + name_length + extra + packed
        if flags & _SIZES_FOLLOW or data_end > end:
            return
        yield Entry(name=name, offset=offset, packed=packed, method=method, crc=crc)
        offset = data_end


def _unpacked(data: bytes, method: int) -> bytes:
    if method == _STORED:
        return data
    if method == _DEFLATED:
        return zlib.decompress(data, wbits=-zlib.MAX_WBITS)
    if method != _ZSTD:
        raise ValueError(f"packed by method {method}, expected deflate or zstd")
    # zipfile reads zstd from Python 3.14 on; Arrow has always brought it along
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        return bytes(stream.read())

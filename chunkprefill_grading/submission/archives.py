"""What lies in a zip or a folder that strangers filled: notebooks, and what is refused, by name."""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import os
import re
import stat
import struct
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from chunkprefill_grading.submission.load import MAX_BYTES, Unreadable, read_bytes

NO_NOTEBOOK = "not a notebook"
CHECKPOINT = "nothing but a copy that Jupyter keeps for itself, in .ipynb_checkpoints"
EMPTY_FOLDER = "an empty folder"
MAX_ENTRIES = 50_000
MAX_TOTAL = 4 << 30  # bytes taken out of one archive
MAX_RATIO = 200  # of unpacked to packed, beyond the first MB: JSON packs well, bombs pack better
MAX_NESTED = 64 << 20  # bytes of a zip inside a zip
MAX_INSIDE = 200  # entries of a zip inside a zip
MAX_LISTED = 10_000  # entries that its list may seem to have before it is read at all
MAX_PATH = 400  # characters
MAX_NOTES = 32 << 20  # bytes of a file that says who handed in: Gradescope's holds each student's results
MAX_ALL_NOTES = 64 << 20  # bytes of all of them: they are kept in memory
MAX_DICTIONARY = 64 << 20  # bytes that LZMA may take
FUTURE_S = 26 * 3600  # a zip has local times without a zone; later than this is no date
_BLOCK = 1 << 16
#: Browsers add an ending of their own to a notebook that they save.
NOTEBOOK = re.compile(r"\.ipynb(?:\.(?:txt|json))?$", re.I)
_NOISE = re.compile(
    r"(?:^|/)(?:__MACOSX|\.ipynb_checkpoints|\.git|\.DS_Store|\._[^/]*|Thumbs\.db|desktop\.ini)(?:/|$)", re.I
)
#: Files that a learning system adds to what students handed in.
_NOTES = re.compile(r"(?:^|/)(?:submission_metadata\.ya?ml|[^/]*_attempt_[\d-]+\.txt)$")


@dataclass(frozen=True)
class Found:
    """A notebook in a source. `read()` gives its bytes, which have been looked at already."""

    parts: tuple[str, ...]
    entry: str
    when: float  # s since 1970; 0.0: no date, or none that can be
    order: int
    read: Callable[[], bytes]
    path: Path | None = None
    doubt: str = ""  # what is wrong with its date


@dataclass(frozen=True)
class Refusal:
    """An entry that is not taken. parts: () where even its name is not to be trusted."""

    entry: str
    why: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What was found in one zip or folder. notes: the learning system's own files, by entry.

    hidden: what is passed over without a word, unless it is all that a student has.
    """

    found: list[Found]
    refused: list[Refusal]
    notes: dict[str, str]
    hidden: list[Refusal] = field(default_factory=list)


def look(source: Path, now: float | None = None) -> Source:
    """Notebooks of a zip or a folder. ValueError for a source that is neither.

    now: s since 1970; an entry that is dated later has no date.
    """
    now = time.time() if now is None else now
    if source.is_dir():
        return _sorted_out(_in_folder(source), now)
    if not source.is_file():
        raise ValueError(f"{source}: no such file or folder")
    if not zipfile.is_zipfile(source):
        raise ValueError(f"{source}: neither a zip nor a folder, or a zip that is cut off")
    return _sorted_out(_in_zip(source), now)


def _sorted_out(entries: Iterator[Found | Refusal | tuple[str, str]], now: float) -> Source:
    made = Source([], [], {})
    for entry in entries:
        if isinstance(entry, Found):
            made.found.append(_dated(entry, now))
        elif isinstance(entry, Refusal):
            (made.hidden if entry.why in (CHECKPOINT, EMPTY_FOLDER) else made.refused).append(entry)
        else:
            made.notes[entry[0]] = entry[1]
    return made


def _dated(found: Found, now: float) -> Found:
    """A date to come is no date: who sets a clock ahead gains nothing by it."""
    if not 0 <= found.when <= now + FUTURE_S:
        said = time.strftime("%Y-%m-%d", time.gmtime(found.when)) if 0 <= found.when < 1e11 else "impossible"
        return Found(found.parts, found.entry, 0.0, found.order, found.read, found.path, said)
    return Found(found.parts, found.entry, min(found.when, now), found.order, found.read, found.path)


def readable(text: str) -> str:
    """A name with composed accents, and without what no file, table or terminal can show."""
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no character
    return unicodedata.normalize("NFC", text)


def _parts(name: str) -> tuple[str, ...]:
    """The folders and the file of an entry. Unreadable for a name that leads elsewhere."""
    if len(name) > MAX_PATH or "\0" in name:
        raise Unreadable(f"a name of {len(name)} characters, or with a zero in it")
    path = readable(name).replace("\\", "/")
    if path.startswith("/") or re.match(r"^[A-Za-z]:", path):
        raise Unreadable("an absolute path")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Unreadable("a path that leads out of the folder (..)")
    if not parts:
        raise Unreadable("an empty name")
    return parts


def entry_name(info: zipfile.ZipInfo) -> str:
    """The name of an entry: macOS writes UTF-8 without saying so."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


class _Opened:
    """An archive that stays open while its notebooks are read: opening it reads the list of all entries."""

    def __init__(self, source: Path | IO[bytes]) -> None:
        self.archive = zipfile.ZipFile(source)

    def unpacked(self, info: zipfile.ZipInfo, most: int = MAX_BYTES) -> bytes:
        return _unpacked(self.archive, info, most)


class _Shelf:
    """The zip inside a zip that was read last: of all that a class hands in, one at a time is in memory."""

    def __init__(self) -> None:
        self.order = -1
        self.opened: _Opened | None = None

    def unpacked(self, order: int, again: Callable[[], bytes], info: zipfile.ZipInfo) -> bytes:
        """An entry of the inner zip of this place, which `again` unpacks if another was read since."""
        if self.opened is None or self.order != order:
            self.order, self.opened = order, _Opened(io.BytesIO(again()))
        return self.opened.unpacked(info)


def _in_zip(source: Path) -> Iterator[Found | Refusal | tuple[str, str]]:
    try:
        opened = _Opened(source)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise ValueError(f"{source}: a broken zip: {error}") from None
    entries = opened.archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"{source}: {len(entries)} entries, {MAX_ENTRIES} is the most")
    total, notes_left, shelf = 0, MAX_ALL_NOTES, _Shelf()
    shared = overlapping(entries)
    for order, info in enumerate(entries):
        parts: tuple[str, ...] = ()
        name = entry_name(info)
        try:
            parts = _parts(name)
            if info.header_offset in shared:
                raise Unreadable("a bomb: it shares its bytes with another entry")
            if info.is_dir():
                yield Refusal(readable(name), EMPTY_FOLDER, parts)
                continue
            if _NOISE.search(name):
                if not _NOISE.search(parts[0]):
                    yield Refusal(
                        readable(name), CHECKPOINT if NOTEBOOK.search(name) else EMPTY_FOLDER, parts
                    )
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise Unreadable("a link" if kind == stat.S_IFLNK else "no regular file")
            if _NOTES.search(name):
                parts = ()  # the learning system's, or called like it: no student, whatever is wrong with it
                data = opened.unpacked(info, min(MAX_NOTES, notes_left))
                notes_left -= len(data)
                yield name, data.decode("utf-8", "replace")
                continue
            if parts[-1].lower().endswith(".zip") and total < MAX_TOTAL:
                again = partial(opened.unpacked, info, MAX_NESTED)
                data = again()
                total += len(data)
                yield from _inside(
                    data, _Place(parts, _when(info), order), partial(shelf.unpacked, order, again)
                )
                continue
            if not NOTEBOOK.search(parts[-1]):
                raise Unreadable(NO_NOTEBOOK)
            if total > MAX_TOTAL:
                raise Unreadable(f"more than {MAX_TOTAL >> 30} GB in this archive")
            total += len(opened.unpacked(info))
        except Unreadable as error:
            yield Refusal(readable(name), str(error), parts)
        else:
            yield Found(parts, readable(name), _when(info), order, partial(opened.unpacked, info))


def overlapping(entries: list[zipfile.ZipInfo]) -> set[int]:
    """Where entries begin that reach into the next one: thousands of them may unpack the same few bytes."""
    places = sorted((info.header_offset, info.compress_size) for info in entries)
    shared: set[int] = set()
    end = last = -1
    for offset, size in places:
        if offset < end and offset != last:
            shared |= {offset, last}
        if offset == last and size:
            shared.add(offset)
        if offset + size > end:
            end, last = offset + size, offset
    return shared


@dataclass(frozen=True)
class _Place:
    """Where a zip that a student handed in lies, and since when."""

    parts: tuple[str, ...]
    when: float
    order: int


def _inside(
    data: bytes, place: _Place, read: Callable[[zipfile.ZipInfo], bytes]
) -> Iterator[Found | Refusal]:
    """The notebooks of a zip that a student handed in: they are that student's, one level deep.

    read: unpacks an entry later, when `data` is gone.
    """
    outer = place.parts
    label = "/".join(outer)
    if (n := data.count(b"PK\x01\x02")) > MAX_LISTED:
        yield Refusal(label, f"a zip of about {n} entries, {MAX_INSIDE} is the most", outer)
        return
    try:
        opened = _Opened(io.BytesIO(data))
        entries = opened.archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        yield Refusal(label, f"a zip that cannot be opened: {error}", outer)
        return
    if len(entries) > MAX_INSIDE:
        yield Refusal(label, f"a zip of {len(entries)} entries, {MAX_INSIDE} is the most", outer)
        return
    n, total = 0, 0
    shared = overlapping(entries)
    for info in entries:
        name = entry_name(info)
        try:
            parts = _parts(name)
            if info.header_offset in shared:
                raise Unreadable("a bomb: it shares its bytes with another entry")
            if info.is_dir() or _NOISE.search(name) or not NOTEBOOK.search(parts[-1]):
                continue
            total += len(opened.unpacked(info, MAX_BYTES))
            if total > 2 * MAX_NESTED:
                raise Unreadable(f"more than {2 * MAX_NESTED >> 20} MB in a zip of a student's")
        except Unreadable as error:
            yield Refusal(f"{label}/{readable(name)}", str(error), outer)
            continue
        n += 1
        owned = (*outer[:-1], outer[-1][:-4], *parts) if len(outer) > 1 else (outer[0][:-4], *parts)
        when = max(place.when, 0.0)  # a student writes the dates inside, the learning system the one outside
        yield Found(owned, f"{label}/{readable(name)}", when, place.order, partial(read, info))
    if not n:
        yield Refusal(label, "a zip without a notebook", outer)


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    """The bytes of an entry, never more than `most`, whatever its header says.

    zipfile unpacks bzip2 and LZMA without a bound, so the packed bytes are read here and unpacked piece by
    piece.
    """
    if info.flag_bits & 1:
        raise Unreadable("encrypted")
    packed = copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    packed.CRC = None  # type: ignore[assignment]
    out = bytearray()
    checksum = 0
    try:
        with archive.open(packed) as file:
            for piece in _pieces(info.compress_type, file, most):
                out += piece
                checksum = zlib.crc32(piece, checksum)
                if len(out) > most or (
                    len(out) > 1 << 20 and len(out) > MAX_RATIO * max(1, info.compress_size)
                ):
                    break
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        MemoryError,
        NotImplementedError,
        struct.error,
        IndexError,
    ) as error:
        raise Unreadable(f"cannot be unpacked: {error}") from None
    if len(out) > 1 << 20 and len(out) > MAX_RATIO * max(1, info.compress_size):
        raise Unreadable(f"a bomb: unpacks to more than {MAX_RATIO} times its size")
    if len(out) > most:
        raise Unreadable(f"more than {most >> 20} MB")
    if checksum != info.CRC:
        raise Unreadable("cannot be unpacked: it is damaged (its checksum is wrong)")
    return bytes(out)


def _pieces(method: int, file: IO[bytes], most: int) -> Iterator[bytes]:
    """What packed bytes unpack to, in pieces of a bounded size."""
    if method == zipfile.ZIP_STORED:
        while block := file.read(_BLOCK):
            yield block
        return
    if method == zipfile.ZIP_DEFLATED:
        inflate = zlib.decompressobj(-15)
        rest = b""
        while not inflate.eof and (rest or (rest := file.read(_BLOCK))):
            yield inflate.decompress(rest, _BLOCK)
            rest = inflate.unconsumed_tail
        if not inflate.eof:
            yield inflate.flush()
        return
    if method == zipfile.ZIP_BZIP2:
        unpack: Any = bz2.BZ2Decompressor()
    elif method == zipfile.ZIP_LZMA:
        unpack = _lzma(file)
    else:
        raise Unreadable(
            f"packed by method {method}, which is not read here: pack it again as an ordinary zip"
        )
    while not unpack.eof:
        block = file.read(_BLOCK) if unpack.needs_input else b""
        if unpack.needs_input and not block:
            return  # cut off: its checksum will tell
        yield unpack.decompress(block, _BLOCK)


def _lzma(file: IO[bytes]) -> lzma.LZMADecompressor:
    """The decompressor that an LZMA entry's own head asks for, within a bound of memory."""
    head = file.read(4)
    size = struct.unpack("<H", head[2:4])[0]
    props = file.read(size)
    if len(props) != 5:
        raise Unreadable("cannot be unpacked: a broken LZMA head")
    first, dictionary = props[0], struct.unpack("<I", props[1:])[0]
    if dictionary > MAX_DICTIONARY:
        raise Unreadable(f"a bomb: LZMA asks for {dictionary >> 20} MB of memory")
    lc, first = first % 9, first // 9
    filters = [
        {
            "id": lzma.FILTER_LZMA1,
            "dict_size": max(4096, dictionary),
            "lc": lc,
            "lp": first % 5,
            "pb": first // 5,
        }
    ]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)


def _when(info: zipfile.ZipInfo) -> float:
    try:
        return time.mktime((*info.date_time, 0, 0, -1))
    except (ValueError, OverflowError):
        return 0.0


def _in_folder(source: Path) -> Iterator[Found | Refusal | tuple[str, str]]:
    order, notes_left, shelf = 0, MAX_ALL_NOTES, _Shelf()
    for folder, folders, files in os.walk(source, followlinks=False):
        folders.sort()
        for name in [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            place = (Path(folder) / name).relative_to(source)
            yield Refusal(readable(place.as_posix()), "a link", tuple(map(readable, place.parts)))
        if not (files or folders) and Path(folder) != source:
            place = Path(folder).relative_to(source)
            yield Refusal(readable(place.as_posix()), EMPTY_FOLDER, tuple(map(readable, place.parts)))
        for name in sorted(files):
            path = Path(folder) / name
            entry = readable(path.relative_to(source).as_posix())
            parts = tuple(map(readable, path.relative_to(source).parts))
            if _NOISE.search(entry):
                if not _NOISE.search(parts[0]):
                    yield Refusal(entry, CHECKPOINT if NOTEBOOK.search(entry) else EMPTY_FOLDER, parts)
                continue
            order += 1
            if order > MAX_ENTRIES:
                raise ValueError(f"{source}: more than {MAX_ENTRIES} files")
            try:
                if path.is_symlink():
                    raise Unreadable("a link")
                _parts(entry)
                if _NOTES.search(entry):
                    parts = ()
                    data = read_bytes(path, min(MAX_NOTES, notes_left))
                    notes_left -= len(data)
                    yield entry, data.decode("utf-8", "replace")
                    continue
                if path.suffix.lower() == ".zip":
                    again = partial(read_bytes, path, MAX_NESTED)
                    inner = _Place(parts, _modified(path), order)
                    yield from _inside(again(), inner, partial(shelf.unpacked, order, again))
                    continue
                if not NOTEBOOK.search(name):
                    raise Unreadable(NO_NOTEBOOK)
                read_bytes(path)
            except Unreadable as error:
                yield Refusal(entry, str(error), parts)
                continue
            yield Found(parts, entry, _modified(path), order, partial(read_bytes, path), path)


def _modified(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0

"""What lies in a zip or a folder that strangers filled: notebooks, and what is refused, by name."""

from __future__ import annotations

import os
import re
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from chunkprefill.grading.submission import MAX_BYTES, Unreadable, read_bytes

MAX_ENTRIES = 50_000
MAX_TOTAL = 4 << 30  # bytes taken out of one archive
MAX_RATIO = 200  # of unpacked to packed, beyond the first MB: JSON packs well, bombs pack better
MAX_PATH = 400  # characters
_NOISE = re.compile(r"(?:^|/)(?:__MACOSX|\.ipynb_checkpoints|\.git|\.DS_Store|\._[^/]*)(?:/|$)")


@dataclass(frozen=True)
class Found:
    """A notebook in a source. `read()` gives its bytes, which have been looked at already."""

    parts: tuple[str, ...]
    entry: str
    when: float  # s since 1970
    order: int
    read: Callable[[], bytes]
    path: Path | None = None


@dataclass(frozen=True)
class Refusal:
    """An entry that is not taken. parts: () where even its name is not to be trusted."""

    entry: str
    why: str
    parts: tuple[str, ...] = ()


def look(source: Path) -> tuple[list[Found], list[Refusal]]:
    """Notebooks of a zip or a folder. ValueError for a source that is neither."""
    if source.is_dir():
        return _sorted_out(_in_folder(source))
    if not source.is_file():
        raise ValueError(f"{source}: no such file or folder")
    if not zipfile.is_zipfile(source):
        raise ValueError(f"{source}: neither a zip nor a folder, or a zip that is cut off")
    return _sorted_out(_in_zip(source))


def _sorted_out(entries: Iterator[Found | Refusal]) -> tuple[list[Found], list[Refusal]]:
    found, refused = [], []
    for entry in entries:
        if isinstance(entry, Found):
            found.append(entry)
        else:
            refused.append(entry)
    return found, refused


def _parts(name: str) -> tuple[str, ...]:
    """The folders and the file of an entry. Unreadable for a name that leads elsewhere."""
    if len(name) > MAX_PATH or "\0" in name:
        raise Unreadable(f"a name of {len(name)} characters, or with a zero in it")
    path = name.replace("\\", "/")
    if path.startswith("/") or re.match(r"^[A-Za-z]:", path):
        raise Unreadable("an absolute path")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Unreadable("a path that leads out of the folder (..)")
    if not parts:
        raise Unreadable("an empty name")
    return parts


def _in_zip(source: Path) -> Iterator[Found | Refusal]:
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{source}: a broken zip: {error}") from None
    with archive:
        if len(archive.infolist()) > MAX_ENTRIES:
            raise ValueError(f"{source}: {len(archive.infolist())} entries, {MAX_ENTRIES} is the most")
        total = 0
        for order, info in enumerate(archive.infolist()):
            parts: tuple[str, ...] = ()
            try:
                parts = _parts(info.filename)
                if info.is_dir() or _NOISE.search(info.filename):
                    continue
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG):
                    raise Unreadable("a link" if kind == stat.S_IFLNK else "no regular file")
                if not parts[-1].lower().endswith(".ipynb"):
                    raise Unreadable("not a notebook")
                total += len(_unpacked(archive, info))
                if total > MAX_TOTAL:
                    raise Unreadable(f"more than {MAX_TOTAL >> 30} GB in this archive")
            except Unreadable as error:
                yield Refusal(info.filename, str(error), parts)
            else:
                yield Found(parts, info.filename, _when(info), order, partial(_again, source, info))


def _again(source: Path, info: zipfile.ZipInfo) -> bytes:
    with zipfile.ZipFile(source) as archive:
        return _unpacked(archive, info)


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of an entry, never more than a notebook may have, whatever its header says."""
    if info.flag_bits & 1:
        raise Unreadable("encrypted")
    try:
        with archive.open(info) as file:
            data = file.read(MAX_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise Unreadable(f"cannot be unpacked: {error}") from None
    if len(data) > 1 << 20 and len(data) > MAX_RATIO * max(1, info.compress_size):
        raise Unreadable(f"a bomb: unpacks to more than {MAX_RATIO} times its size")
    if len(data) > MAX_BYTES:
        raise Unreadable(f"more than {MAX_BYTES >> 20} MB")
    return data


def _when(info: zipfile.ZipInfo) -> float:
    try:
        return time.mktime((*info.date_time, 0, 0, -1))
    except (ValueError, OverflowError):
        return 0.0


def _in_folder(source: Path) -> Iterator[Found | Refusal]:
    order = 0
    for folder, folders, files in os.walk(source, followlinks=False):
        folders.sort()
        for name in [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            place = (Path(folder) / name).relative_to(source)
            yield Refusal(place.as_posix(), "a link", place.parts)
        for name in sorted(files):
            path = Path(folder) / name
            place = path.relative_to(source)
            entry = place.as_posix()
            if _NOISE.search(entry) or (len(place.parts) == 1 and path.suffix.lower() != ".ipynb"):
                continue
            order += 1
            if order > MAX_ENTRIES:
                raise ValueError(f"{source}: more than {MAX_ENTRIES} files")
            try:
                if path.is_symlink():
                    raise Unreadable("a link")
                if path.suffix.lower() != ".ipynb":
                    raise Unreadable("not a notebook")
                _parts(entry)
                read_bytes(path)
            except Unreadable as error:
                yield Refusal(entry, str(error), place.parts)
                continue
            when = path.stat().st_mtime
            yield Found(place.parts, entry, when, order, partial(read_bytes, path), path)

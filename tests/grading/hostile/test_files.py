"""Files that are no notebooks, archives that want to be elsewhere: refused by name, and the others go on."""

from __future__ import annotations

import io
import json
import os
import random
import stat
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkprefill_grading.submission import archives
from chunkprefill_grading.submission import load as submission
from chunkprefill_grading.submission.collect import collect, read_list
from chunkprefill_grading.submission.load import Unreadable, load, parse
from tests.grading.hostile import world

GOOD = json.dumps(world.notebook(*world.HONEST)).encode()
CORRUPT = {
    "empty": (b"", "empty"),
    "blank": (b" \n", "empty"),
    "half": (GOOD[: len(GOOD) // 2], "cut off"),
    "no JSON": (b"hello", "JSON"),
    "a list": (b"[]", "no list of cells"),
    "a number": (b"3", "no list of cells"),
    "no cells": (b"{}", "no list of cells"),
    "cells of text": (b'{"cells": "x"}', "no list of cells"),
    "format 3 without cells": (b'{"worksheets": [{}]}', "format 3"),
    "format 3 with a cell that is none": (b'{"worksheets": [{"cells": [3]}]}', "cell 1 is no cell"),
    "format 3 with code that is no text": (
        b'{"worksheets": [{"cells": [{"cell_type": "code", "input": 3}]}]}',
        "cell 1 has no text",
    ),
    "both formats, and neither": (b'{"worksheets": [{"cells": []}], "cells": 3}', "no list of cells"),
    "a cell that is none": (b'{"cells": [3]}', "cell 1 is no cell"),
    "a source that is none": (b'{"cells": [{"cell_type": "code", "source": 3}]}', "cell 1 has no text"),
    "a source of numbers": (b'{"cells": [{"cell_type": "code", "source": [1, 2]}]}', "cell 1 has no text"),
    "latin-1": ('{"cells": ["é"]}'.encode("latin-1"), "UTF-8"),
    "a zip": (b"PK\x03\x04" + bytes(50), "a zip, or a document, called like a notebook: save the notebook"),
    "a web page": (b"\n<!DOCTYPE html><html>" + GOOD, "a web page and no notebook"),
    "a PDF": (b"%PDF-1.7\n\xff\xfe", "a PDF and no notebook"),
    "a merge": (b"<<<<<<< HEAD\n" + GOOD, "a merge that was not finished"),
    "half of UTF-16": (GOOD.decode().encode("utf-16")[:-101], "UTF-8|cut off"),
    "a comma too many": (GOOD[:-1] + b",}", "no JSON"),
    "nested": (b'{"cells": ' + b"[" * 300_000 + b"]" * 300_000 + b"}", "nested|brackets"),
    "brackets": (b"[" + b"[]," * 1_000_000 + b"[]]", "brackets"),
    "many cells": (json.dumps({"cells": [{}] * 6000}).encode(), "6000 cells"),
    "much code": (json.dumps(world.notebook("x" * 3_000_000)).encode(), "characters of code"),
    "a long number": (b'{"cells": [], "x": ' + b"9" * 100_000 + b"}", "JSON"),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_what_is_no_notebook(name):
    data, why = CORRUPT[name]
    with pytest.raises(Unreadable, match=why):
        parse(data)


@given(
    st.binary(max_size=400)
    | st.builds(lambda i, j: GOOD[:i] + GOOD[j:], st.integers(0, 600), st.integers(0, 600))
)
def test_any_bytes_are_a_notebook_or_unreadable(data):
    try:
        assert all(type(cell) is str for cell in parse(data).cells)
    except Unreadable as error:
        assert str(error)


def test_no_metadata_is_needed_and_none_is_believed():
    bare = {"cells": [{"cell_type": "code", "source": ["number", " = 42"]}]}
    odd = {
        **bare,
        "metadata": {"kernelspec": {"name": "ir", "language": "R"}},
        "nbformat": "no",
        "nbformat_minor": [],
    }
    assert parse(json.dumps(bare).encode()).cells == parse(json.dumps(odd).encode()).cells == ("number = 42",)
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        assert parse(json.dumps(bare).encode(encoding)).cells == ("number = 42",), encoding


def test_a_notebook_of_format_3_is_read_as_the_one_that_it_was():
    """As nbformat writes it back: the same cells, the same answers, in as many worksheets as there may be."""
    nbformat = pytest.importorskip("nbformat")
    cells = ("## A title\n\ntext", "<!-- answer: a -->\nwords", "<!-- answer: b -->\n\nmore")
    new = world.notebook(*world.HONEST, "# Answer: c\nc = 1", markdown=cells)
    for cell in new["cells"]:
        cell.update(
            metadata={}, **({"outputs": [], "execution_count": 7} if cell["cell_type"] == "code" else {})
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nbformat.convert(nbformat.from_dict({**new, "metadata": {}, "nbformat_minor": 4}), 3)
    assert "cells" not in old and len(old["worksheets"]) == 1
    found, due = parse(json.dumps(old).encode()), parse(json.dumps(new).encode())
    assert (found.cells, found.written, found.answers) == (due.cells, due.written, due.answers)
    assert found.written == {"a": "words", "b": "more"} and found.answers
    one = old["worksheets"][0]["cells"]
    old["worksheets"] = [{"cells": one[:3]}, {"cells": one[3:]}]
    assert parse(json.dumps(old).encode()).cells == due.cells
    heading = {"cell_type": "heading", "level": [9], "source": ["T"]}
    odd = {"worksheets": [{"cells": [heading, {"cell_type": "html", "source": "<!-- answer: d --> x"}]}]}
    assert parse(json.dumps(odd).encode()).texts[0].source == "# T"
    assert parse(json.dumps(odd).encode()).written == {"d": "x"}


def test_written_answers_are_found_by_their_marker():
    cells = (
        "<!-- answer: a -->\n first ",
        "text\n<!--answer:b-->two<!-- answer: c -->three",
        "<!-- answer: a -->",
    )
    book = world.notebook("x = '<!-- answer: d --> code is no answer'", markdown=cells)
    assert parse(json.dumps(book).encode()).written == {"a": "first", "b": "two", "c": "three"}


def test_a_file_that_is_no_file(tmp_path):
    (tmp_path / "big.ipynb").write_bytes(b" " * (submission.MAX_BYTES + 1))
    (tmp_path / "folder.ipynb").mkdir()
    for name, why in (("big.ipynb", "MB"), ("folder.ipynb", "regular|cannot"), ("none.ipynb", "cannot")):
        with pytest.raises(Unreadable, match=why):
            load(tmp_path / name)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.ipynb")  # nothing writes to it: a reader waits for ever
        (tmp_path / "link.ipynb").symlink_to("/dev/zero")
        for name in ("pipe.ipynb", "link.ipynb"):
            with pytest.raises(Unreadable):
                load(tmp_path / name)


def packed(path: Path, entries: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data, zipfile.ZIP_DEFLATED)
    return path


def link(name: str, to: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, to.encode()


ESCAPES = {
    "../up.ipynb": "leads out",
    "Eve/../../up.ipynb": "leads out",
    "Eve/..": "leads out",
    "/etc/up.ipynb": "absolute",
    "C:\\up.ipynb": "absolute",
    "c:up.ipynb": "absolute",
    "\\\\host\\share\\up.ipynb": "absolute",
    "..\\up.ipynb": "leads out",
    "a" * 500 + ".ipynb": "characters",
}


def test_zip_slip_links_and_bombs_are_refused_by_name_and_the_others_go_on(tmp_path):
    bomb = b'{"cells": [' + b" " * (20 << 20) + b"]}"
    entries = [
        *((name, GOOD) for name in ESCAPES),
        ("Ada.ipynb", GOOD),
        link("Eve/link.ipynb", "/etc/passwd"),
        ("Bob/bomb.ipynb", bomb),
        ("Zoe/huge.ipynb", os.urandom(submission.MAX_BYTES + 10)),
        ("Tom/notes.txt", b"x"),
        ("Tom/__MACOSX/._x.ipynb", b"x"),
    ]
    done = collect([packed(tmp_path / "a.zip", entries)], tmp_path / "out")
    refused = dict(done.refused)
    for name, why in ESCAPES.items():
        key = next(entry for entry in refused if entry.replace("\\", "/") == name.replace("\\", "/"))
        assert why in refused[key]
    assert "link" in refused["Eve/link.ipynb"] and "bomb" in refused["Bob/bomb.ipynb"]
    assert "MB" in refused["Zoe/huge.ipynb"]
    students = {student.student: student for student in done.students}
    assert {name for name, student in students.items() if student.file} == {"Ada"}
    assert "link" in students["Eve"].problem and "bomb" in students["Bob"].problem
    assert (tmp_path / "out" / students["Ada"].file).read_bytes() == GOOD
    assert not list(tmp_path.rglob("*up.ipynb")) and not list(tmp_path.parent.glob("up.ipynb"))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]


def test_encrypted_damaged_and_lying_entries(tmp_path):
    path = packed(tmp_path / "a.zip", [("Ada.ipynb", GOOD), ("Bob.ipynb", GOOD), ("Eve.ipynb", GOOD)])
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        infos = archive.infolist()
    start = data.rindex(b"Bob.ipynb") - 46  # its place in the directory at the end
    data[start + 8] |= 1  # encrypted
    eve = infos[2].header_offset + 30 + len("Eve.ipynb")
    data[eve + 5 : eve + 25] = bytes(20)  # damaged
    path.write_bytes(bytes(data))
    done = collect([path], tmp_path / "out")
    assert [student.student for student in done.students if student.file] == ["Ada"]
    assert "encrypted" in dict(done.refused)["Bob.ipynb"] and "unpacked" in dict(done.refused)["Eve.ipynb"]


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06", b"no zip at all", GOOD])
def test_what_is_no_zip_is_an_error_and_changes_nothing(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.zip"):
        collect([tmp_path / "a.zip"], tmp_path / "out")
    with pytest.raises(ValueError, match="no such"):
        collect([tmp_path / "none.zip"], tmp_path / "out")


def test_a_folder_with_links_pipes_and_loops(tmp_path):
    source = tmp_path / "in"
    world.hand_in(source, "Ada", *world.HONEST)
    (tmp_path / "secret.ipynb").write_text("{}")
    (source / "Eve").mkdir()
    (source / "Eve" / "a.ipynb").symlink_to(tmp_path / "secret.ipynb")
    (source / "Bob").symlink_to(tmp_path)
    (source / "Tom").mkdir()
    (source / "Tom" / "loop").symlink_to(source)
    os.mkfifo(source / "Tom" / "pipe.ipynb")
    done = collect([source], tmp_path / "out")
    assert [student.student for student in done.students if student.file] == ["Ada"]
    assert dict(done.refused) == {
        **{"Eve/a.ipynb": "a link", "Bob": "a link", "Tom/loop": "a link"},
        "Tom/pipe.ipynb": "no regular file",
    }
    assert {student.student for student in read_list(source).students} == {"Ada", "Bob", "Eve", "Tom"}


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1, max_size=30)


@given(
    st.lists(
        NAMES.filter(lambda name: name.strip(" .") and ":" not in name), min_size=1, max_size=6, unique=True
    )
)
def test_any_names_stay_apart_and_inside(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    entries: list[tuple[str | zipfile.ZipInfo, bytes]] = []
    for i, name in enumerate(names):
        entries.append((f"{name}/book.ipynb", json.dumps(world.notebook(f"number = {i}")).encode()))
    done = collect([packed(folder / "a.zip", entries)], folder / "out")
    inside = (folder / "out").resolve()
    files = [student.file for student in done.students if student.file]
    assert len(files) == len(set(files)) == len({name.casefold() for name in files})
    for file in files:
        assert (inside / file).resolve().is_relative_to(inside) and (inside / file).is_file()
    assert len({student.student for student in done.students}) == len(done.students)
    refused_or_taken = len(files) + sum(not student.file for student in done.students)
    assert refused_or_taken + len(done.refused) >= len({name.strip() for name in names} - {"__MACOSX"})


def test_too_many_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ENTRIES", 3)
    path = packed(tmp_path / "a.zip", [(f"{i}.ipynb", GOOD) for i in range(4)])
    with pytest.raises(ValueError, match="4 entries, 3 is the most"):
        collect([path], tmp_path / "out")


def zipped(*entries: tuple[str, bytes]) -> bytes:
    packed_here = io.BytesIO()
    with zipfile.ZipFile(packed_here, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return packed_here.getvalue()


def test_a_zip_in_a_zip_whose_list_is_endless_is_refused_before_it_is_read(tmp_path, monkeypatch):
    rng, n = random.Random(1), 50_000
    records = b"".join(
        b"PK\x01\x02" + bytes(12) + rng.randbytes(12) + (1).to_bytes(2, "little") + bytes(16) + b"a"
        for _ in range(n)
    )
    end = b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + len(records).to_bytes(4, "little") + bytes(6)
    read: list[int] = []
    opened = zipfile.ZipFile.infolist
    monkeypatch.setattr(
        zipfile.ZipFile, "infolist", lambda self: read.append(len(opened(self))) or opened(self)
    )
    done = collect(
        [packed(tmp_path / "a.zip", [("Eve/x.zip", records + end), ("Ada.ipynb", GOOD)])], tmp_path / "out"
    )
    assert "entries, 200 is the most" in dict(done.refused)["Eve/x.zip"]
    assert max(read) == 2
    assert [student.student for student in done.students if student.file] == ["Ada"]


def test_of_zips_in_a_zip_one_at_a_time_is_in_memory(tmp_path):
    """Each holds megabytes beside its notebook; what is kept of them is what it takes to read one again."""
    import tracemalloc

    heavy = [(f"s{i}.zip", zipped(("x.ipynb", GOOD), ("y.bin", os.urandom(1 << 20)))) for i in range(20)]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in heavy:
            archive.writestr(name, data)
    del heavy
    tracemalloc.start()
    done = collect([tmp_path / "a.zip"], tmp_path / "out")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len([student for student in done.students if student.file]) == 20
    assert most < 8 << 20
    assert {path.read_bytes() for path in (tmp_path / "out").glob("*/*.ipynb")} == {GOOD}

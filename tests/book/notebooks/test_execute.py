"""A notebook runs from its top, and a second run differs in measured numbers alone."""

from __future__ import annotations

import json
import os
import re

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lint_notebooks import STATE
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from normal_form import normalise, to_text

import notebooks

MEASURED = """
import time
import chunkprefill as cp
start = time.perf_counter()
print("it took", cp.measured(time.perf_counter() - start))
"""
WIDGETS = """
import ipywidgets as w
tab = w.Tab(children=[w.HTML("<b>one</b>"), w.HTML("<b>two</b>")])
tab.set_title(0, "first")
slider = w.IntSlider(max=1, description="n")
link = w.jslink((slider, "value"), (tab, "selected_index"))
w.VBox([slider, tab])
"""
RANDOM_IDS = """
import uuid
from IPython.display import HTML, display
one, two = uuid.uuid4(), uuid.uuid4()
display(HTML(f'<p id="{one}"></p><p id="{two}"></p><a href="#{one}">up</a>'))
"""
STREAMS = """
import sys
for i in range(5):
    print(i, flush=True)
    print(-i, file=sys.stderr, flush=True)
"""


def saved(folder, *sources, name="a.ipynb"):
    """A notebook as an editor leaves it: random ids, its own metadata."""
    cells = [new_markdown_cell("# A question?"), *map(new_code_cell, sources)]
    for cell in cells:
        cell.metadata = {"collapsed": False, "execution": {"iopub.status.busy": "now"}, "tags": ["kept"]}
    book = new_notebook(
        cells=cells, metadata={"vscode": {}, "kernelspec": {"name": "mine", "display_name": "me"}}
    )
    path = folder / name
    nbformat.write(book, path)
    return path


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """The text of the same notebook after one run and after another."""
    path = saved(tmp_path_factory.mktemp("runs"), MEASURED, WIDGETS, RANDOM_IDS, STREAMS)
    texts = []
    for _ in range(2):
        assert notebooks.execute_all([path]) == 0
        texts.append(path.read_text())
    assert os.listdir(path.parent) == [path.name], "something was left beside the notebook"
    return texts


def test_a_second_run_differs_in_measured_numbers_alone(two_runs):
    first, second = (re.sub(r"≈[\d.]+ [nµm]?s", "≈", text) for text in two_runs)
    assert first == second
    assert first != two_runs[0], "nothing was measured, so nothing was tested"


def test_widgets_are_saved_with_their_state_and_links(two_runs):
    notebook = nbformat.reads(two_runs[0], as_version=4)
    state = notebook.metadata.widgets[STATE].state
    view = notebook.cells[2].outputs[0].data["application/vnd.jupyter.widget-view+json"]
    assert state[view.model_id].model_name == "VBoxModel"
    names = {model.model_name for model in state.values()}
    assert {"LinkModel", "TabModel", "IntSliderModel", "HTMLModel"} <= names
    assert set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(state))) <= set(state)


def test_random_ids_keep_what_they_point_to(two_runs):
    html = nbformat.reads(two_runs[0], as_version=4).cells[3].outputs[0].data["text/html"]
    one, two, link = re.findall(r'(?:id="|#)([^"]+)"', html)
    assert one == link != two


def test_metadata_asks_for_a_gpu_and_forgets_the_editor(two_runs):
    metadata = nbformat.reads(two_runs[0], as_version=4).metadata
    assert metadata.accelerator == "GPU" and metadata.colab.gpuType == "T4"
    assert metadata.kernelspec.name == "python3" and "version" not in metadata.language_info
    assert "vscode" not in metadata
    cells = nbformat.reads(two_runs[0], as_version=4).cells
    assert {tuple(cell.metadata) for cell in cells} == {("tags",)}
    assert [cell.execution_count for cell in cells[1:]] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "source, told",
    [
        ("x = 1\n1 / 0", "ZeroDivisionError: division by zero"),
        ("import os\nos._exit(3)", "DeadKernelError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit('enough')", "SystemExit: enough"),
    ],
)
def test_a_failing_cell_is_named_and_the_old_notebook_stays(tmp_path, capsys, source, told):
    path = saved(tmp_path, "fine = 1", source, "never = 1")
    before = path.read_bytes()
    assert notebooks.execute_all([path]) == 1
    said = capsys.readouterr().err
    assert told in said and "cell 2 " in said and source.splitlines()[-1] in said and path.name in said
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_one_failure_does_not_keep_the_others_from_running(tmp_path):
    bad, good = saved(tmp_path, "1 / 0", name="a.ipynb"), saved(tmp_path, "print(1)", name="b.ipynb")
    assert notebooks.execute_all([bad, good]) == 1
    assert nbformat.read(good, 4).cells[1].outputs[0].text == "1\n"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"cells": 3}', b'{"nbformat": 4, "cells": [{}]}']
)
def test_what_is_no_notebook_is_said(tmp_path, capsys, content):
    path = tmp_path / "a.ipynb"
    path.write_bytes(content)
    assert notebooks.check_all([path]) == 1 and notebooks.execute_all([path]) == 1
    out, err = capsys.readouterr()
    assert "a.ipynb" in out and "a.ipynb" in err
    assert path.read_bytes() == content


# --- normal form, on generated notebooks --------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20)
hexes = st.uuids().map(lambda u: u.hex)
ids = st.one_of(
    st.uuids().map(str),
    hexes,
    hexes.map(lambda h: h[:8]),
    st.sampled_from(["setup", "same-cache", "-", "A b"]),
)
outputs = st.one_of(
    st.builds(
        lambda name, text: new_output("stream", name=name, text=text),
        st.sampled_from(["stdout", "stderr"]),
        words,
    ),
    st.builds(
        lambda u, t: new_output("display_data", data={"text/html": f'<i id="{u}">{t}</i>'}), st.uuids(), words
    ),
)
code = st.builds(
    lambda i, source, out: {**new_code_cell(source, outputs=out), "id": i},
    ids,
    words,
    st.lists(outputs, max_size=4),
)
prose = st.builds(lambda i, source: {**new_markdown_cell(source), "id": i}, ids, words)


@st.composite
def any_notebook(draw):
    book = new_notebook()
    book.cells = [nbformat.from_dict(cell) for cell in draw(st.lists(st.one_of(code, prose), max_size=6))]
    models = draw(st.lists(hexes, unique=True, max_size=4))
    state = {
        m: {"model_name": "M", "state": {"child": f"IPY_MODEL_{models[0]}", "html": f"see {m}"}}
        for m in models
    }
    if models:
        book.metadata.widgets = {STATE: {"state": state, "version_major": 2, "version_minor": 0}}
    return nbformat.from_dict(book)


@given(any_notebook())
def test_normal_form_is_normal(book):
    once = to_text(normalise(book))
    again = to_text(normalise(nbformat.reads(once, as_version=4)))
    assert again == once


@given(any_notebook())
def test_normal_form_is_a_notebook_with_ids_of_its_own(book):
    normal = normalise(book)
    nbformat.validate(normal)
    cells = [cell.id for cell in normal.cells]
    assert len(set(cells)) == len(cells)
    widgets = normal.metadata.get("widgets", {}).get(STATE, {"state": {}})
    assert set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(widgets))) <= set(widgets["state"])


@given(any_notebook())
def test_normal_form_keeps_every_word(book):
    normal = normalise(book)
    assert [c.source for c in normal.cells] == [c.source.strip("\n") for c in book.cells]
    for old, new in zip(notebooks.code_cells(book), notebooks.code_cells(normal)):
        for name in ("stdout", "stderr"):
            said = ["".join(o.text for o in cell.outputs if o.get("name") == name) for cell in (old, new)]
            assert said[0] == said[1]


@given(any_notebook(), st.data())
def test_normal_form_forgets_what_was_drawn_at_random(book, data):
    """The same notebook with all its random ids drawn anew has the same normal form."""
    text = json.dumps(book)
    found = sorted(set(re.findall(r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", text)))
    fresh = data.draw(st.lists(st.uuids(), min_size=len(found), max_size=len(found), unique=True))
    names = {old: new.hex if len(old) == 32 else str(new) for old, new in zip(found, fresh)}
    other = re.sub("|".join(names) or "$^", lambda m: names[m[0]], text)
    other = nbformat.from_dict(json.loads(other))
    assert to_text(normalise(other)) == to_text(normalise(book))


def test_a_name_that_a_person_gave_a_cell_stays():
    book = new_notebook(cells=[new_code_cell("x", id="same-cache"), new_code_cell("x", id="deadbeef")])
    names = [cell.id for cell in normalise(book).cells]
    assert names[0] == "same-cache" and names[1] != "deadbeef"

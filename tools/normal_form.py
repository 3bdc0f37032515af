"""Normal form of a notebook: what two runs may differ in is measured numbers, and nothing else.

Ids that Jupyter draws at random, times of execution and what an editor left behind are replaced by what
follows from the notebook's own text.
"""

from __future__ import annotations

import hashlib
import json
import re

import nbformat
from lint_notebooks import widget_state
from nbformat import NotebookNode

# What stays of a notebook's and a cell's metadata; all the rest is what an editor left behind.
KEEP_NOTEBOOK = {"widgets", "mystnb", "myst", "html_meta", "substitutions", "orphan", "title"}
KEEP_CELL = {"tags", "mystnb", "jupyter", "editable", "deletable"}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3", "file_extension": ".py"},
    "accelerator": "GPU",  # asked for, never needed
    "colab": {"gpuType": "T4", "provenance": []},
}

HAND_WRITTEN = re.compile(r"(?![0-9a-f-]{8,}$)[a-z][a-z0-9]*(-[a-z0-9]+)*")  # a name, not drawn digits
UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


def normalise(notebook: NotebookNode) -> NotebookNode:
    """A copy in normal form; of a copy in normal form, the same again."""
    notebook = nbformat.from_dict(json.loads(json.dumps(notebook)))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    kept = {key: value for key, value in notebook.metadata.items() if key in KEEP_NOTEBOOK}
    notebook.metadata = nbformat.from_dict({**kept, **METADATA})
    taken: set[str] = set()
    for cell in notebook.cells:
        cell.source = cell.source.strip("\n")
        cell.id = _cell_id(cell, taken)
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in KEEP_CELL and value}
    for cell in _code(notebook):
        cell.outputs = _merge_streams(cell.outputs)
        for output in cell.outputs:
            output.pop("transient", None)
            if "execution_count" in output:
                output.execution_count = cell.execution_count
    return _rename(notebook, {**_widget_names(notebook), **_uuid_names(notebook)})


def to_text(notebook: NotebookNode) -> str:
    """The bytes of the file: what nbformat writes, keys sorted, one newline at the end."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _cell_id(cell: NotebookNode, taken: set[str]) -> str:
    """The id that a person gave, else a hash of what the cell says; a number makes a second one unique."""
    name = str(cell.get("id", ""))
    if not HAND_WRITTEN.fullmatch(name):
        name = hashlib.sha256(f"{cell.cell_type}:{cell.source}".encode()).hexdigest()[:8]
    unique, n = name, 2
    while unique in taken:
        unique, n = f"{name}-{n}", n + 1
    taken.add(unique)
    return unique


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """One stream of each name: how a kernel cuts its prints into messages depends on time."""
    merged: list[NotebookNode] = []
    streams: dict[str, NotebookNode] = {}
    for output in outputs:
        if output.output_type == "stream" and output.name in streams:
            streams[output.name].text += output.text
            continue
        if output.output_type == "stream":
            streams[output.name] = output
        merged.append(output)
    return merged


def _widget_names(notebook: NotebookNode) -> dict[str, str]:
    """Widget models by the order in which they were made."""
    state = widget_state(notebook) or {}
    return {model: f"{n:032x}" for n, model in enumerate(state)}


def _uuid_names(notebook: NotebookNode) -> dict[str, str]:
    """Ids of the form that libraries draw at random, by the order in which the outputs name them."""
    text = json.dumps([cell.outputs for cell in _code(notebook)])
    found = dict.fromkeys(UUID.findall(text))
    return {name: f"{0:08x}-0000-0000-0000-{n:012x}" for n, name in enumerate(found)}


def _rename(notebook: NotebookNode, names: dict[str, str]) -> NotebookNode:
    """Every id replaced wherever it stands: as a key, as a reference, inside HTML."""
    if not names:
        return notebook
    pattern = re.compile("|".join(map(re.escape, names)))
    text = pattern.sub(lambda found: names[found[0]], json.dumps(notebook))
    return nbformat.from_dict(json.loads(text))

"""Execute the notebooks and save them in normal form; check what is committed.

    python tools/notebooks.py execute [PATH...]    run, normalise, replace (default: every notebook)
    python tools/notebooks.py check [PATH...]      find what nbval does not see; change nothing

A second run of the same notebook differs in measured numbers alone (normal_form.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from lint_notebooks import lint
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from normal_form import normalise, to_text
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 600  # seconds a cell may take


class NotebookError(Exception):
    """What is wrong with one notebook, in words for the person who ran the command."""


# --- execute ------------------------------------------------------------------------------------------


def execute(
    path: Path,
    *,
    python: str = sys.executable,
    folder: Path | None = None,
    checkout: bool = True,
    tick: Callable[[], object] = int,
) -> NotebookNode:
    """The notebook at `path`, run from its top in a fresh kernel of `python`, widget state included.

    The file is not touched. The kernel works in `folder` (default: the notebook's) and imports the package
    from this checkout, or, without `checkout`, from where `python` has it. `tick` is called after each code
    cell. Raises NotebookError naming the cell that failed.
    """
    notebook = read(path)
    notebook.metadata.pop("widgets", None)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None

    class Kernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:  # this very Python, whatever kernels are registered here
            command = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="Python 3", language="python")

    begun: list[int] = [0]  # indices, the last one running
    with tempfile.TemporaryDirectory() as profile:
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            kernel_manager_class=Kernel,
            extra_arguments=["--HistoryManager.hist_file=:memory:", "--IPKernelApp.log_level=40"],
            resources={"metadata": {"path": str(folder or path.parent)}},
            store_widget_state=True,
            coalesce_streams=True,
            on_cell_start=lambda cell, cell_index: begun.append(cell_index),
            on_cell_executed=lambda cell, cell_index, execute_reply: tick(),
        )
        try:
            client.execute(env=kernel_environment(profile, checkout))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise NotebookError(_failure(path, notebook.cells[begun[-1]], begun[-1], error)) from None
    return notebook


def kernel_environment(profile: str, checkout: bool) -> dict[str, str]:
    """This process's, without progress bars and the user's own settings; the checkout importable, or not.

    Committed outputs are a CPU's, so that they can be proved anywhere: a GPU is hidden unless
    CUDA_VISIBLE_DEVICES names it.
    """
    search = [str(ROOT), os.environ.get("PYTHONPATH")] if checkout else []
    quiet = {"TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "JUPYTER_PLATFORM_DIRS": "1"}
    own = {"PYTHONPATH": os.pathsep.join(filter(None, search)), "IPYTHONDIR": profile}
    return {"CUDA_VISIBLE_DEVICES": ""} | os.environ | quiet | own


def _failure(path: Path, cell: NotebookNode, index: int, error: Exception) -> str:
    """Which cell stopped the run and why: the end of its traceback, and its source."""
    raised = [output for output in cell.outputs if output.output_type == "error"]
    if raised:
        trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(raised[0].traceback)).splitlines()[-12:]
        why = "\n".join([f"{raised[0].ename}: {raised[0].evalue}", *(f"  | {line}" for line in trace)])
    else:  # a timeout, or a kernel that died
        why = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    source = "\n".join(f"    {line}" for line in cell.source.splitlines()[:12])
    return f"{shown(path)}, cell {index} ({cell.id}) failed: {why}\n  the cell:\n{source}"


# --- files --------------------------------------------------------------------------------------------


def all_notebooks() -> list[Path]:
    """Every notebook of the course, in the order of the book: a chapter, its practice, its further reading."""
    kinds = ("chapter", "practice", "further")
    return sorted(
        (ROOT / "notebooks").glob("*.ipynb"), key=lambda path: (path.stem[:2], kinds.index(kind(path)))
    )


def kind(path: Path) -> str:
    """What a notebook is: a "chapter", a chapter's "practice" (exercises or cases), or its "further" reading."""
    return {"_practice": "practice", "_cases": "practice", "_further": "further"}.get(
        path.stem[2:], "chapter"
    )


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def read(path: Path) -> NotebookNode:
    """The notebook, in format 4. Raises NotebookError for what is none."""
    try:
        text = path.read_text(encoding="utf-8")
        if not isinstance(content := json.loads(text), dict) or content.get("nbformat") != 4:
            raise ValueError("it does not say nbformat 4")
        nbformat.validate(content)
        return nbformat.reads(text, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        why = (str(error).splitlines() or ["?"])[0]
        raise NotebookError(f"{shown(path)} is no notebook: {why}") from None


def write(path: Path, notebook: NotebookNode) -> None:
    """Replace the file in one step: a killed run leaves the old one. Raises if the result is not valid."""
    nbformat.validate(notebook)
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(to_text(notebook), encoding="utf-8")
    partial.replace(path)


def shown(path: Path) -> str:
    """As a person would name it: from the root of the checkout."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


# --- commands -----------------------------------------------------------------------------------------


def execute_all(paths: list[Path]) -> int:
    """Run and replace each; go on after a failure, and say so at the end."""
    failures = []
    for path in paths:
        try:
            n_cells, start = len(code_cells(read(path))), time.monotonic()
            with tqdm(total=n_cells, desc=path.stem, unit="cell", leave=False, disable=None) as bar:
                notebook = execute(path, tick=bar.update)
            write(path, normalise(notebook))
            print(f"{shown(path)}: {n_cells} cells in {time.monotonic() - start:.0f} s{_slowest(notebook)}")
        except NotebookError as error:
            failures.append(path)
            print(f"{error}\n  {shown(path)} is as it was.", file=sys.stderr)
    return 1 if failures else 0


def _slowest(notebook: NotebookNode) -> str:
    """The three cells that took longest, of those over five seconds."""
    took = []
    for i, cell in enumerate(notebook.cells):
        times = cell.metadata.get("execution", {})  # nbclient's record, which normal form forgets
        if len(times) > 1:
            begun, ended = min(times.values()), max(times.values())
            seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds()
            took.append((seconds, f", cell {i} {seconds:.0f} s"))
    return "".join(words for seconds, words in sorted(took, reverse=True)[:3] if seconds > 5)


def check_all(paths: list[Path]) -> int:
    """Print every finding; 0 if there is none."""
    findings: list[str] = []
    for path in paths:
        try:
            notebook = read(path)
        except NotebookError as error:
            findings.append(str(error))
            continue
        here = [f"{shown(path)}, {finding}" for finding in lint(notebook)]
        if path.read_text(encoding="utf-8") != to_text(normalise(notebook)):
            here.append(f"{shown(path)} is not in normal form: run `make notebooks`")
        findings += here
    print("\n".join(findings) or f"{len(paths)} notebooks: nothing found")
    return 1 if findings else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("execute", "check"))
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="default: notebooks/*.ipynb")
    args: Any = parser.parse_args(argv)
    paths = args.paths or all_notebooks()
    return execute_all(paths) if args.command == "execute" else check_all(paths)


if __name__ == "__main__":
    sys.exit(main())

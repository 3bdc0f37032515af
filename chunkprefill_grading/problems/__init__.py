"""Problem sets, drawn from a secret: what to hand out, and what to mark by. `new` writes one.

The drawing, the texts and the ways to solve them are public; the secret is not. From it come the numbers,
the workloads, the choices and the faults of one term (`draw.stream`), those that a student sees from other
streams than those that are hidden.
"""

from __future__ import annotations

import os
from pathlib import Path

from chunkprefill_grading.problems import key as keys
from chunkprefill_grading.problems.draw import check_secret, new_secret
from chunkprefill_grading.problems.notebook import as_json, notebook


def new(name: str, out: str | os.PathLike[str], secret: str | None = None) -> list[Path]:
    """Write `NAME.ipynb` to hand out, `key.json` to keep, `solution.ipynb` to look at; returns their paths.

    secret: hexadecimal, at least 128 bits; None: one is made. The same secret writes the same files.
    Raises ValueError for an unknown set, a weak secret, and a folder that holds another key: a key that is
    lost cannot be made again, and nothing could be marked.
    """
    folder = Path(out)
    place = folder / "key.json"
    if place.exists():
        old = keys.read(place)
        if secret is None or (old["problem_set"], old["secret"]) != (name, check_secret(secret)):
            raise ValueError(f"{place} is there already, for {old['problem_set']}; give another folder")
    key = keys.make(name, new_secret() if secret is None else secret)
    sheet = keys.sheet_of(name, key["secret"])
    folder.mkdir(parents=True, exist_ok=True)
    keys.write(place, key)  # first: without it the notebook is worth nothing
    paths = [folder / f"{name}.ipynb", place, folder / "solution.ipynb"]
    keys.put(paths[0], as_json(notebook(sheet)))
    keys.put(paths[2], as_json(notebook(sheet, solved=True)), mode=0o600)
    return paths

"""The ledger's files as data, and what can be wrong with them; nothing of the package is imported."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
BENEATH = {"practice": "practice", "further": "further reading"}  # keys of a chapter's pages beneath it
CLAIM_KEYS = {"id", "chapter", "cards", "sentence", "conditions"}


@dataclass
class Ledger:
    """What the files say, read from a checkout; `problems()` lists what is wrong with it."""

    root: Path = ROOT
    chapters: dict[int, dict[str, str]] = field(default_factory=dict)
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: list[dict[str, Any]] = field(default_factory=list)
    aims: dict[str, dict[str, Any]] = field(default_factory=dict)
    record: dict[str, dict[str, Any]] = field(default_factory=dict)
    in_book: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, root: Path = ROOT) -> Ledger:
        """From claims.yml, map.yml, the record and the table of contents."""
        ledger = yaml.safe_load((root / "book/claims.yml").read_text("utf8"))
        results = root / "benchmarks/results/evidence.json"
        rows = json.loads(results.read_text("utf8"))["rows"] if results.is_file() else []
        toc = yaml.safe_load((root / "_toc.yml").read_text("utf8"))
        return cls(
            root,
            ledger["chapters"],
            ledger["cards"],
            ledger["claims"],
            yaml.safe_load((root / "book/map.yml").read_text("utf8")) or {},
            {row["claim"]: row for row in rows},
            set(_files(toc)),
        )

    def written(self, chapter: int) -> bool:
        """Whether the chapter is in the book's table of contents."""
        return self.chapters[chapter]["page"] in self.in_book

    def pages(self, chapter: int) -> list[str]:
        """The chapter's own page, then those of its exercises and of its further reading where it has them."""
        entry = self.chapters[chapter]
        return [entry[key] for key in ("page", *BENEATH) if key in entry]

    def source(self, chapter: int) -> str:
        """All cells' sources of a written chapter and the pages beneath it; "" of one that is not written."""
        if not self.written(chapter):
            return ""
        return "\n\n".join(sources(self.root, page) for page in self.pages(chapter))

    def shown(self, claim: dict[str, Any]) -> bool:
        """Whether the claim's chapter, or a page beneath it, has a target for it."""
        return f"(claim-{claim['id']})=" in self.source(claim["chapter"])

    def problems(self) -> list[str]:
        """Everything that has to be mended before the book may be built."""
        found: list[str] = []
        ids = [claim.get("id") for claim in self.claims]
        found += [
            f"{name}: twice in claims.yml" for name in sorted({str(i) for i in ids if ids.count(i) > 1})
        ]
        for number in self.chapters:
            for name, page in self.chapters[number].items():
                if name in BENEATH and self.written(number) and page not in self.in_book:
                    found.append(f"chapter {number}: its {BENEATH[name]} {page} is not in _toc.yml")
        for claim in self.claims:
            found += [f"{claim.get('id', '(no id)')}: {words}" for words in self._claim_problems(claim)]
        for card, entry in self.cards.items():
            proved = [c for c in self.claims if card in c.get("cards", ()) and "evidence" in c]
            if entry["chapter"] not in self.chapters:
                found.append(f"card {card}: there is no chapter {entry['chapter']}")
            elif self.written(entry["chapter"]) and not proved:
                found.append(f"card {card}: its chapter is written, and no claim of it has evidence")
            if card not in self.aims:
                found.append(f"card {card}: not in map.yml")
            elif self.written(entry["chapter"]) and not self.aims[card].get("exercises"):
                found.append(f"card {card}: its chapter is written, and map.yml names no exercise")
        found += [f"map.yml: {card} is no card" for card in self.aims if card not in self.cards]
        known = exercise_ids(self.root)
        for card, aim in self.aims.items():
            source = self.source(self.cards[card]["chapter"]) if card in self.cards else ""
            for name in aim.get("exercises") or ():
                if name not in known:
                    found.append(f"card {card}: there is no exercise {name} in chunkprefill_course/exercises")
                elif source and name not in source:
                    found.append(f"card {card}: exercise {name} is not in its chapter")
        strange = sorted(set(self.record) - set(map(str, ids)))
        return found + [f"{claim}: recorded, and not in claims.yml" for claim in strange]

    def _claim_problems(self, claim: dict[str, Any]) -> list[str]:
        if missing := CLAIM_KEYS - set(claim):
            return [f"without {', '.join(sorted(missing))}"]
        found = [f"there is no card {card}" for card in claim["cards"] if card not in self.cards]
        if claim["chapter"] not in self.chapters:
            return [*found, f"there is no chapter {claim['chapter']}"]
        if "evidence" not in claim:
            return found + ([] if claim.get("pending") else ["a claim without evidence (and not pending)"])
        if claim.get("pending"):
            found.append("has evidence and is pending: which?")
        if not defines(self.root, claim["evidence"]):
            found.append(f"its evidence {claim['evidence']} is nowhere defined")
        row = self.record.get(claim["id"])
        again = f"run `python -m benchmarks evidence --only {claim['id']}`"
        if row is None:
            found.append(f"its evidence was never recorded: {again}")
        elif not row["claimed"]["holds"]:
            found.append(f"the evidence is against it, as recorded on {row['where']['date']}")
        elif row["changed"]["holds"]:
            found.append(f"it holds whatever is changed, as recorded on {row['where']['date']}")
        if self.written(claim["chapter"]) and not self.shown(claim):
            found.append(f"chapter {claim['chapter']} is written and has no target (claim-{claim['id']})=")
        return found


def sources(root: Path, page: str) -> str:
    """The sources of all cells of a page that is a notebook."""
    notebook = json.loads((root / f"{page}.ipynb").read_text("utf8"))
    return "\n\n".join("".join(cell["source"]) for cell in notebook["cells"])


def _files(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node[key] for key in ("root", "file") if key in node]
        return own + [name for value in node.values() if isinstance(value, list) for name in _files(value)]
    return [name for item in node for name in _files(item)] if isinstance(node, list) else []


def defines(root: Path, dotted: str) -> bool:
    """Whether a dotted name is a function in a file of the checkout; nothing is imported."""
    module, _, name = dotted.rpartition(".")
    path = root.joinpath(*module.split(".")).with_suffix(".py")
    if not module or not path.is_file():
        return False
    nodes = ast.parse(path.read_text("utf8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in nodes)


@cache
def exercise_ids(root: Path, field: str = "id") -> dict[str, str]:
    """Name -> id (or title) of what chunkprefill_course/exercises makes at the top of a file; read once."""
    found = {}
    for path in sorted((root / "chunkprefill_course/exercises").rglob("*.py")):
        for node in ast.parse(path.read_text("utf8")).body:
            if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
                continue
            ids = [
                k.value.value
                for k in node.value.keywords
                if k.arg == field and isinstance(k.value, ast.Constant)
            ]
            if ids and isinstance(node.targets[0], ast.Name):
                found[node.targets[0].id] = str(ids[0])
    return found

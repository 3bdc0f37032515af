"""Write `book/claims.md` and `book/map.md`: `python tools/ledger.py [--check]`.

They are made of claims.yml and map.yml in `book/`, and of the numbers in `benchmarks/results/evidence.json`,
which `python -m benchmarks evidence` renews. Nothing of the package is imported. Exit status 1 for a
card without a claim, a claim without evidence, evidence against its claim, or a page that is not up to date.
"""

from __future__ import annotations

import argparse
import re
import sys
from html import escape
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # so that tests may import this file as tools.ledger
from claims import ROOT, Ledger, exercise_ids

LONG = 6  # rows of numbers; more of them fold behind the verdict, as on the chapters' pages
BADGES = {
    "counted": "counted here",
    "measured": "measured here",
    "simulated": "simulated",
    "published": "published",
    "recorded": "recorded run",
}


def claims_page(ledger: Ledger) -> str:
    """Every claim with its verdict and numbers; then what is pending; then the machines."""
    proved = [claim for claim in ledger.claims if "evidence" in claim]
    pending = [claim for claim in ledger.claims if "evidence" not in claim]
    lines = [
        CLAIMS_HEAD,
        f"{len(proved)} claims have been run; {len(pending) or 'none'} {'are' if len(pending) > 1 else 'is'} pending.\n",
    ]
    for number, chapter in ledger.chapters.items():
        here = [claim for claim in proved if claim["chapter"] == number]
        if here:
            lines.append(f"## Chapter {number}: {chapter['title']}\n")
        for claim in here:
            lines += _claim(ledger, claim)
    if pending:
        lines.append("## Pending\n")
    for claim in pending:
        waits = f"*Waits for {claim.get('pending', 'evidence')}.*"
        lines.append(f"- **{claim['id']}** (chapter {claim['chapter']}): {claim['sentence']} {waits}")
    lines.append("\n## Where the numbers come from\n")
    for where, names in _machines(ledger, proved).items():
        lines.append(f"- {', '.join(names)}: {where}")
    lines.append(
        "\nCounted and simulated numbers are the same on every machine. Measured numbers (≈) are from the machine named."
    )
    return "\n".join(lines) + "\n"


def _claim(ledger: Ledger, claim: dict[str, Any]) -> list[str]:
    row = ledger.record.get(claim["id"])
    cards = ", ".join(f"{{ref}}`{card} <card-{card.lower()}>`" for card in claim["cards"])
    lines = [
        f"(ledger-{claim['id']})=",
        f"### {claim['id']}\n",
        f"**{claim['sentence']}**\n",
        f"*Conditions.* {claim['conditions']}\n",
    ]
    if row is None:
        return [*lines, "Not recorded yet.\n"]
    badges = " ".join(
        f'<span class="cp-badge cp-badge-{b}">{BADGES.get(b, b)}</span>' for b in row["claimed"]["badges"]
    )
    where = f" {{ref}}`The cell in the chapter <claim-{claim['id']}>`." if ledger.shown(claim) else ""
    lines += [
        f"{_verdict(row['claimed'])} {badges}{where} Study cards: {cards}.\n",
        f"{_sentence(row['claimed']['setting'])}\n",
    ]
    lines += _folded(_table(row["claimed"]))
    lines += [
        ":::{dropdown} One condition changed, and the verdict flips",
        f"{_sentence(row['claimed']['otherwise'])}\n",
    ]
    return [*lines, f"{_verdict(row['changed'])}\n", *_table(row["changed"]), ":::\n"]


def _sentence(text: str) -> str:
    """With a capital in front, but for a name that begins with a small letter (vLLM)."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def _verdict(side: dict[str, Any]) -> str:
    return "**✓ It holds.**" if side["holds"] else "**✗ It does not hold.**"


def _table(side: dict[str, Any]) -> list[str]:
    rows = [f"| {_cell(n['label'])} | {_cell(_unbroken(n['text']))} |" for n in side["numbers"]]
    return ["| what | found |", "|---|---:|", *rows, ""]


def _folded(table: list[str]) -> list[str]:
    """A long table behind a line that says how long it is."""
    n_rows = len(table) - 3  # head, rule and the empty line after it
    return [f":::{{dropdown}} The {n_rows} numbers", *table, ":::\n"] if n_rows > LONG else table


def _unbroken(text: str) -> str:
    """A number and its unit, or its exponent, stay on one line of a narrow table."""
    return text.replace(" ", "\u00a0").replace("-", "\u2011")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _machines(ledger: Ledger, claims: list[dict[str, Any]]) -> dict[str, list[str]]:
    """How each machine, date and commit is written -> the claims recorded there."""
    found: dict[str, list[str]] = {}
    for claim in claims:
        if row := ledger.record.get(claim["id"]):
            w = row["where"]
            commit = f"commit {w['commit'][:10]}{' with changes' if w['dirty'] is True else ''}"
            torch = "" if w["torch"] == "not loaded" else f", torch {w['torch']}"
            where = f"{w['device']}, {w['machine']}, Python {w['python']}{torch}, {w['date']}, {commit}"
            found.setdefault(where, []).append(claim["id"])
    return found


def map_page(ledger: Ledger) -> str:
    """A section a card: objective, chapter, exercises, misconceptions, claims."""
    ids, lines = exercise_ids(ledger.root), [MAP_HEAD]
    for card, entry in sorted(ledger.cards.items(), key=lambda pair: (pair[1]["chapter"], pair[0])):
        aim, chapter = ledger.aims.get(card, {}), ledger.chapters[entry["chapter"]]
        written = ledger.written(entry["chapter"])
        lines += [f"(card-{card.lower()})=", f"## {card}: {entry['title']}\n"]
        place = f"{{doc}}`/{chapter['page']}`" if written else f"{chapter['title']} (not written yet)"
        if written and "practice" in chapter:
            place += f", with {{doc}}`its practice </{chapter['practice']}>`"
        lines += [
            f"- **You will be able to:** {aim.get('objective', '')} *({aim.get('level', '')})*",
            f"- **Chapter {entry['chapter']}:** {place}",
        ]
        if aim.get("exercises"):
            links = [f"  - {_exercise(ledger, name, ids, entry['chapter'])}" for name in aim["exercises"]]
            lines += ["- **Exercises:**", *links]
        if aim.get("misconceptions"):
            lines += ["- **Refuted by a run:**", *(f"  - {words}" for words in aim["misconceptions"])]
        claims = [claim for claim in ledger.claims if card in claim["cards"]]
        names = [
            f"{{ref}}`{c['id']} <ledger-{c['id']}>`" if "evidence" in c else f"{c['id']} (pending)"
            for c in claims
        ]
        lines.append(f"- **Claims:** {', '.join(names) or 'none yet'}\n")
    return "\n".join(lines) + "\n"


def _exercise(ledger: Ledger, name: str, ids: dict[str, str], chapter: int) -> str:
    """A link to the exercise in the card's chapter or its practice, or on the first other page that shows it."""
    title = exercise_ids(ledger.root, "title").get(name) or asked(exercise_ids(ledger.root, "prompt")[name])
    mark = f'id=\\"cp-{ids.get(name)}\\"'  # as a notebook's JSON has it
    for page in (page for number in (chapter, *ledger.chapters) for page in ledger.pages(number)):
        notebook = ledger.root / f"{page}.ipynb"
        if notebook.is_file() and mark in notebook.read_text("utf8"):
            return f'<a href="../{page}.html#cp-{escape(ids[name])}">{escape(title)}</a>'
    return title


def asked(prompt: str) -> str:
    """What a question without a title is called: its last sentence, after the first where it says little alone."""
    sentences = re.split(r"(?<=[.?]) ", prompt)
    says_little = len(sentences) > 1 and len(sentences[-1].split()) < 4
    return f"{sentences[0]} … {sentences[-1]}" if says_little else sentences[-1]


NOTE = (
    "<!-- Written by tools/ledger.py from claims.yml, map.yml and the record. Do not edit: `make pages`. -->"
)
CLAIMS_HEAD = f"""# What the book claims, and what proves it

{NOTE}

We ran every sentence below. The page shows the setting, the numbers that came out, and one changed condition that
makes the sentence false. A sentence that stayed true whatever you changed would say nothing.
"""
MAP_HEAD = f"""# Learning map

{NOTE}

The course follows eleven *study cards*, five topics (C1 to C5) and six questions (Q1 to Q6) about chunked
prefilling, from the chapter on inference of {{cite:t}}`foundations`. For each card, this page lists what you will
learn, the chapter that teaches it, its exercises, the wrong ideas that it refutes, and the
{{doc}}`claims </book/claims>` that it rests on.
"""


def main(argv: list[str] | None = None) -> int:
    """Write the pages, or with --check say whether they are up to date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    check = parser.parse_args(argv).check
    ledger = Ledger.read()
    problems = ledger.problems()
    for name, text in (("claims", claims_page(ledger)), ("map", map_page(ledger))):
        path = ROOT / f"book/{name}.md"
        if check and (not path.is_file() or path.read_text("utf8") != text):
            problems.append(f"book/{name}.md is out of date: run tools/ledger.py")
        elif not check:
            path.write_text(text, "utf8")
    for problem in problems:
        print(f"ledger: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Fill what is made by program in book/instructors: plans that add up, tables, a session that was run.

    python tools/instructors.py [--check]    write the pages anew; --check: only compare
    python tools/instructors.py record       grade a small class, and keep what the commands said

A generated stretch stands between `<!-- made: NAME -->` and `<!-- end -->`; the prose around it is written.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from chunkprefill import exercises  # noqa: E402
from chunkprefill.grading import results, sandbox  # noqa: E402
from chunkprefill.grading.problems import key, ps3  # noqa: E402
from chunkprefill.grading.problems.sheet import Sheet  # noqa: E402

FOLDER = ROOT / "book" / "instructors"
SESSION = FOLDER / "session.json"
#: For show: it is in the repository, so nothing that is drawn from it may be handed out.
SHOWN = "9d41c7e2058b3fa6714e90d2c8b5063f"
SETS = ("PS1", "PS2", "PS3")
LESSONS = {"lesson1": "Lesson 1", "lesson2": "Lesson 2", "lab": "Lab"}
EXIT = "import os\nos._exit(0)"
BAR = re.compile(r"\d+%\|.*submission")  # of progress
ANSWER = (
    "Each chunk is one more task, and costs the processor `small_ms`. That matters where steps are short."
)
STEPS = ("new", "collect", "run", "again", "manual", "sheet", "import", "feedback", "export", "summary")


# --- the plan ---------------------------------------------------------------------------------------


@cache
def ledger() -> dict[int, dict[str, str]]:
    """The chapters: number -> page and title."""
    return yaml.safe_load((ROOT / "book/claims.yml").read_text("utf8"))["chapters"]


@cache
def source(chapter: int) -> str:
    """All cells of a chapter; "" of one that is not written."""
    path = ROOT / f"{ledger()[chapter]['page']}.ipynb"
    if not path.is_file():
        return ""
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(path.read_text("utf8"))["cells"])


def lesson(name: str) -> list[dict[str, Any]]:
    """The slots of a lesson. ValueError where they do not add up, or name what is not there."""
    plan = yaml.safe_load((FOLDER / "plan.yml").read_text("utf8"))[name]
    if (total := sum(slot["minutes"] for slot in plan["slots"])) != plan["minutes"]:
        raise ValueError(f"plan.yml: {name} is {plan['minutes']} minutes long, its slots are {total}")
    for slot in plan["slots"]:
        for exercise in slot.get("exercises", ()):
            form = getattr(exercises, exercise)
            if f"cp.exercises.{exercise}" not in source(slot["chapter"]):
                raise ValueError(f"plan.yml: {exercise} is not in chapter {slot['chapter']}")
            if getattr(form, "minutes", 0) > slot["minutes"]:
                raise ValueError(f"plan.yml: {exercise} takes longer than its {slot['minutes']} minutes")
    return plan["slots"]


def plan_table(name: str) -> str:
    """A lesson, minute by minute."""
    rows, now = ["| from | to | what | with |", "|---:|---:|---|---|"], 0
    for slot in lesson(name):
        place = ""
        if "chapter" in slot:
            number = slot["chapter"]
            page = ledger()[number]["page"]
            place = f"[chapter {number}](../../{page})" if source(number) else f"chapter {number}"
        forms = "; ".join(_titled(exercise) for exercise in slot.get("exercises", ()))
        with_what = ": ".join(filter(None, (place, forms)))
        rows.append(f"| {now} | {now + slot['minutes']} | {slot['what']} | {with_what} |")
        now += slot["minutes"]
    return "\n".join(rows)


def _titled(name: str) -> str:
    """An exercise by its title and its minutes, a question by its name."""
    form = getattr(exercises, name)
    if minutes := getattr(form, "minutes", 0):
        return f"*{form.title}* ({minutes} min)"
    return f"`{name}`"


# --- points, rubric, limits -------------------------------------------------------------------------


@cache
def sheet(name: str) -> Sheet:
    """A problem set, drawn for show."""
    return key.sheet_of(name, SHOWN)


def points_table() -> str:
    """What is marked in each set, for how many points, by whom."""
    lines = []
    for name in SETS:
        drawn = sheet(name)
        lines += [f"**{drawn.title}**, {drawn.max_score:g} points. {drawn.intro}", ""]
        lines += ["| question | what is marked | points | marked by |", "|---|---|---:|---|"]
        for question in drawn.questions:
            for i, (what, points) in enumerate(question.table):
                by = "a person" if question.written else "the machine"
                lines.append(f"| {'' if i else question.title} | {what} | {points:g} | {'' if i else by} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def shares() -> str:
    """How much of PS3 naming the fault is, and how much a person gives."""
    drawn = sheet("PS3")
    fault = sum(question.points for question in drawn.questions if question.name == "fault")
    written = sum(question.points for question in drawn.questions if question.written)
    return (
        f"In PS3 naming the fault is worth {fault:g} of {drawn.max_score:g} points: it could be guessed. "
        f"A fix that is replayed, and the numbers that point to it, are worth the rest of that part. "
        f"A person gives {written:g} points. PS1 and PS2 are marked by the machine alone."
    )


def rubric_table() -> str:
    """PS3's written answer, criterion by criterion."""
    rows = ["| criterion | points |", "|---|---:|"]
    return "\n".join(rows + [f"| {what} | {points:g} |" for what, points in ps3.RUBRIC])


def limits_table() -> str:
    """What a submission may use."""
    limits, torch = sandbox.Limits(), sandbox.limits_of({"needs_torch": True})
    rows = [
        ("processor time of a whole submission", f"{limits.cpu_s} s, with torch (PS1) {torch.cpu_s} s"),
        ("time asleep", f"{limits.idle_s:g} s"),
        ("wall clock, behind the others", f"{limits.wall_s / 60:g} min"),
        (
            "memory beyond what the libraries take",
            f"{limits.memory_mb} MiB, with torch {torch.memory_mb} MiB",
        ),
        ("files it may write, all together, in a folder that is thrown away", f"{limits.tmp_mb} MiB"),
        ("files open at once", str(limits.n_files)),
        ("files in all", f"{limits.n_made:,}"),
    ]
    return "\n".join(["| what | at most |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def statuses() -> str:
    """What may become of a submission."""
    told = {
        "ok": "it was run and marked; it has a score",
        "needs manual": "a written answer waits for a person",
        "no answer": "nothing that was asked for is in it",
        "unreadable": "it is no notebook, or a damaged one",
        "timeout": "it used up its time",
        "memory": "it used up its memory",
        "crashed": "its program ended before the end",
    }
    if set(told) != set(results.STATUSES):
        raise ValueError(f"statuses are {results.STATUSES}, told are {tuple(told)}")
    return "\n".join(
        ["| status | what it means |", "|---|---|", *(f"| `{k}` | {v} |" for k, v in told.items())]
    )


def mistakes() -> str:
    """The wrong answers that the exercises know, chapter by chapter, in the words of their hints."""
    lines: list[str] = []
    for number, chapter in ledger().items():
        names = dict.fromkeys(re.findall(r"cp\.exercises\.(\w+)\b", source(number)))
        found = [getattr(exercises, name) for name in names if getattr(exercises, name, None) is not None]
        known = [form for form in found if getattr(form, "wrong", ())]
        if known:
            lines += [f"## Chapter {number}: {chapter['title']}", ""]
        for form in known:
            lines += [f"**{form.title}** ({form.minutes} min, {form.level})", ""]
            lines += [f"- {wrong.hint}" for wrong in form.wrong] + [""]
    return "\n".join(lines).rstrip()


# --- a session that was run --------------------------------------------------------------------------


def record() -> int:
    """Make a class of five, run the commands of a sitting, and keep what they said."""
    with tempfile.TemporaryDirectory() as folder:
        steps = list(sitting(Path(folder)))
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    made = {"date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"), "commit": commit.stdout.strip()}
    text = json.dumps({"made": made, "steps": steps}, indent=1, ensure_ascii=False) + "\n"
    SESSION.write_text(text, "utf8")
    return write(check=False)


def sitting(folder: Path) -> Iterator[dict[str, str]]:
    """The commands of one sitting, in order, each with what it wrote, standard error included."""

    def run(name: str, command: str) -> dict[str, str]:
        arguments = command.split()[1:]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
        done = subprocess.run(
            [sys.executable, "-m", "chunkprefill.grading", *arguments],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            raise RuntimeError(f"{command}: exit {done.returncode}\n{done.stdout}")
        lines = [line for line in done.stdout.splitlines() if line.strip() and not BAR.search(line)]
        return {"name": name, "command": command, "output": "\n".join(lines)}

    yield run("new", f"chunkprefill-grade new PS3 --out term1 --secret {SHOWN}")
    (folder / "roster.csv").write_text("student\n" + "".join(f"{name}\n" for name in (*CLASS, "Fay Absent")))
    with zipfile.ZipFile(folder / "moodle.zip", "w") as archive:
        for number, (name, make) in enumerate(CLASS.items(), 1001):
            archive.writestr(f"{name}_{number}_assignsubmission_file/PS3.ipynb", make(folder / "term1"))
    yield run("collect", "chunkprefill-grade collect moodle.zip --roster roster.csv --out submitted")
    yield run("run", "chunkprefill-grade run submitted --key term1/key.json --out results --jobs 2")
    yield run("again", "chunkprefill-grade run submitted --key term1/key.json --out results --jobs 2")
    yield run("manual", "chunkprefill-grade manual export results written.csv")
    yield {"name": "sheet", "command": "", "output": mark_by_hand(folder / "written.csv")}
    yield run("import", "chunkprefill-grade manual import results written.csv")
    yield run("feedback", "chunkprefill-grade feedback results --out feedback --zip moodle")
    yield run("export", "chunkprefill-grade export results --format csv")
    yield run("summary", "chunkprefill-grade summary results")


def mark_by_hand(sheet: Path) -> str:
    """Give every written answer the most there is, and return the sheet's columns with the first row."""
    rows = list(csv.DictReader(io.StringIO(sheet.read_text("utf-8-sig"))))
    for row in rows:
        row["points"], row["comment"] = row["max_points"], "Numbers first, then the decision. Well done."
    with sheet.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    shown = {name: f"{value[:60]}…" if len(value) > 60 else value for name, value in rows[0].items()}
    return "\n".join(f"{name + ':':<12} {value}" for name, value in shown.items())


def _cells(folder: Path, *solved: str) -> bytes:
    """The notebook handed out, with the solutions of some questions in it."""
    blank, full = (json.loads((folder / name).read_text("utf8")) for name in ("PS3.ipynb", "solution.ipynb"))
    for i, cell in enumerate(full["cells"]):
        if "".join(cell["source"]).startswith(tuple(f"# Answer: {name}\n" for name in solved) or ("\0",)):
            blank["cells"][i] = cell
    return json.dumps(blank).encode()


def _in_her_own_words(folder: Path) -> bytes:
    notebook = json.loads((folder / "solution.ipynb").read_text("utf8"))
    for cell in notebook["cells"]:
        if "<!-- answer: advice -->" in "".join(cell["source"]):
            cell["source"] = f"<!-- answer: advice -->\n\n{ANSWER}\n"
    return json.dumps(notebook).encode()


def _ends_early(folder: Path) -> bytes:
    notebook = json.loads((folder / "solution.ipynb").read_text("utf8"))
    cell: dict[str, Any] = {
        "cell_type": "code",
        "source": EXIT,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    return json.dumps(notebook | {"cells": [cell, *notebook["cells"]]}).encode()


CLASS: dict[str, Callable[[Path], bytes]] = {
    "Ada Full": _in_her_own_words,
    "Ben Half": lambda folder: _cells(folder, "tasks", "consequence", "overhead"),
    "Cleo Blank": _cells,
    "Dan Broken": lambda folder: (folder / "solution.ipynb").read_bytes()[:-500],
    "Eve Exit": _ends_early,
}


@cache
def session() -> dict[str, Any]:
    """What `record` kept."""
    return json.loads(SESSION.read_text("utf8"))


def step(name: str) -> str:
    """A command and what it said, as a block."""
    (found,) = (each for each in session()["steps"] if each["name"] == name)
    command = found["command"].replace(f" --secret {SHOWN}", "")
    head = f"$ {command}\n" if command else ""
    return f"```text\n{head}{found['output']}\n```"


def when() -> str:
    """When the session was run."""
    made = session()["made"]
    return f"*Run on {made['date']}, at commit `{made['commit']}`, by `python tools/instructors.py record`.*"


PARTS: dict[str, Callable[[], str]] = {
    **{name: lambda name=name: plan_table(name) for name in LESSONS},  # type: ignore[misc]
    **{"points": points_table, "shares": shares, "rubric": rubric_table, "limits": limits_table},
    **{"statuses": statuses, "mistakes": mistakes, "when": when},
    **{
        f"session-{name}": lambda name=name: step(name)  # type: ignore[misc]
        for name in STEPS
    },
}


def filled(page: str) -> str:
    """The page with every generated stretch made anew. ValueError for a name that is not in PARTS."""

    def fill(found: re.Match[str]) -> str:
        if found[1] not in PARTS:
            raise ValueError(f"instructors: no part is called {found[1]!r}; there are {', '.join(PARTS)}")
        return f"<!-- made: {found[1]} -->\n{PARTS[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- made: (\S+) -->.*?<!-- end -->", fill, page, flags=re.S)


def write(*, check: bool) -> int:
    """Write the pages, or say which are stale."""
    stale = []
    for path in sorted(FOLDER.glob("*.md")):
        old = path.read_text("utf8")
        new = filled(old)
        if new != old:
            stale.append(path.name)
            if not check:
                path.write_text(new, "utf8")
    if check and stale:
        print(f"book/instructors: {', '.join(stale)} out of date: run tools/instructors.py", file=sys.stderr)
        return 1
    return 0


def main(args: list[str]) -> int:
    """Exit status 1 for a page that is out of date, with --check."""
    return record() if args == ["record"] else write(check="--check" in args)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

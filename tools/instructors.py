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
import shlex
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

from chunkprefill.recording import git  # noqa: E402
from chunkprefill_course import exercises  # noqa: E402
from chunkprefill_grading.marking import results  # noqa: E402
from chunkprefill_grading.marking.lasting import PURSE  # noqa: E402
from chunkprefill_grading.problems import key, ps3  # noqa: E402
from chunkprefill_grading.problems.sheet import Sheet  # noqa: E402
from chunkprefill_grading.sandbox import limits as sandbox  # noqa: E402

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
STEPS = (
    *(
        "new",
        "verify",
        "collect",
        "collect-canvas",
        "run",
        "again",
        "run-canvas",
        "manual",
        "sheet",
        "import",
    ),
    *("override", "excuse", "late", "log", "feedback", "export", "moodle", "canvas", "summary", "items"),
    *("similarity", "shards", "merge"),
)


# --- the plan ---------------------------------------------------------------------------------------


@cache
def ledger() -> dict[int, dict[str, str]]:
    """The chapters: number -> page and title."""
    return yaml.safe_load((ROOT / "book/claims.yml").read_text("utf8"))["chapters"]


@cache
def sources(chapter: int) -> dict[str, str]:
    """Page -> its cells, of a chapter and of its practice; of a chapter that is not written, nothing."""
    pages = [ledger()[chapter][key] for key in ("page", "practice") if key in ledger()[chapter]]
    found = {}
    for page in pages:
        if (path := ROOT / f"{page}.ipynb").is_file():
            cells = json.loads(path.read_text("utf8"))["cells"]
            found[page] = "\n\n".join("".join(cell["source"]) for cell in cells)
    return found


def source(chapter: int) -> str:
    """All cells of a chapter and of its practice; "" of one that is not written."""
    return "\n\n".join(sources(chapter).values())


def lesson(name: str) -> list[dict[str, Any]]:
    """The slots of a lesson. ValueError where they do not add up, or name what is not there."""
    plan = yaml.safe_load((FOLDER / "plan.yml").read_text("utf8"))[name]
    if (total := sum(slot["minutes"] for slot in plan["slots"])) != plan["minutes"]:
        raise ValueError(f"plan.yml: {name} is {plan['minutes']} minutes long, its slots are {total}")
    for slot in plan["slots"]:
        for exercise in slot.get("exercises", ()):
            form = getattr(exercises, exercise)
            if f"course.exercises.{exercise}" not in source(slot["chapter"]):
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
            place = _places(slot)
        if "page" in slot:
            title = (ROOT / "book" / f"{slot['page']}.md").read_text("utf8").splitlines()[0].strip("# ")
            live = f"[{title.lower()}](../{slot['page']}.md)"
            place = f"{place}, {live}" if place else live
        forms = "; ".join(_titled(exercise) for exercise in slot.get("exercises", ()))
        with_what = ": ".join(filter(None, (place, forms)))
        rows.append(f"| {now} | {now + slot['minutes']} | {slot['what']} | {with_what} |")
        now += slot["minutes"]
    return "\n".join(rows)


def _places(slot: dict[str, Any]) -> str:
    """Links to a slot's chapter, its practice page, or both: where the slot's exercises are."""
    number, links = slot["chapter"], []
    wanted = [f"course.exercises.{name}\n" for name in slot.get("exercises", ())]
    for page, text in sources(number).items():
        here = any(mark in f"{text}\n" for mark in wanted)
        if page == ledger()[number]["page"]:
            if here or not wanted:
                links.append(f"[chapter {number}](../../{page})")
        elif here or slot.get("practice"):
            links.append(f"[practice {number}](../../{page})")
    return ", ".join(links) or f"chapter {number}"


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
        ("processor time of a program", f"{limits.cpu_s} s, with torch (PS1) {torch.cpu_s} s"),
        ("time in which it does nothing, however it is spread", f"{limits.idle_s:g} s"),
        ("programs' time of a whole submission, where some end early", f"{PURSE} times that"),
        ("wall clock, behind the others", f"{limits.wall_s / 60:g} min"),
        (
            "memory beyond what the libraries take",
            f"{limits.memory_mb} MiB, with torch {torch.memory_mb} MiB",
        ),
        ("files it may write, all together, in a folder that is thrown away", f"{limits.tmp_mb} MiB"),
        ("files open at once", str(limits.n_files)),
        ("files and folders in all", f"{limits.n_made:,}"),
    ]
    return "\n".join(["| what | at most |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def statuses() -> str:
    """What may become of a submission."""
    told = {
        "ok": "it was run and marked; it has a score",
        "needs manual": "a written answer waits for a person",
        "no answer": "nothing that was asked for is in it",
        "unreadable": "it is no notebook, or a damaged one",
        "another set": "it answers another draw, or another problem set",
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
        names = dict.fromkeys(re.findall(r"course\.exercises\.(\w+)\b", source(number)))
        found = [getattr(exercises, name) for name in names if getattr(exercises, name, None) is not None]
        known = [form for form in found if getattr(form, "wrong", ())]
        if known:
            lines += [f"## Chapter {number}: {chapter['title']}", ""]
        for form in known:
            lines += [f"**{form.title}** ({form.minutes} min, {form.level})", ""]
            lines += [f"- {wrong.hint}" for wrong in form.wrong] + [""]
    return "\n".join(lines).rstrip()


def mutants_table() -> str:
    """How many small changes of each shown solution its check catches, from the last `make mutants`."""
    found = json.loads((FOLDER / "mutants.json").read_text("utf8"))
    n = found["checks"]
    rows = [f"| exercise | mutants | equivalent | caught in {n} of {n} checks |", "|---|---:|---:|---:|"]
    for row in found["exercises"].values():
        cells = (row["title"], row["mutants"], row["equivalent"], row["caught"])
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    totals = [
        sum(row[key] for row in found["exercises"].values()) for key in ("mutants", "equivalent", "caught")
    ]
    return "\n".join([*rows, "| together | " + " | ".join(map(str, totals)) + " |"])


# --- a session that was run --------------------------------------------------------------------------


def record() -> int:
    """Make a class of five, run the commands of a sitting, and keep what they said."""
    with tempfile.TemporaryDirectory() as folder:
        steps = list(sitting(Path(folder)))
    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    made = {"date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"), "commit": commit}
    text = json.dumps({"made": made, "steps": steps}, indent=1, ensure_ascii=False) + "\n"
    SESSION.write_text(text, "utf8")
    return write(check=False)


def sitting(folder: Path) -> Iterator[dict[str, str]]:
    """The commands of one sitting, in order, each with what it wrote, standard error included."""

    def run(name: str, command: str) -> dict[str, str]:
        arguments = shlex.split(command)[1:]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "TZ": "UTC"}
        done = subprocess.run(
            [sys.executable, "-m", "chunkprefill_grading", *arguments],
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
    yield run("verify", "chunkprefill-grade verify term1/key.json")
    hand_in(folder)
    yield run("collect", "chunkprefill-grade collect moodle.zip --roster roster.csv --out submitted")
    yield run("collect-canvas", "chunkprefill-grade collect canvas.zip --out canvas")
    yield run("run", "chunkprefill-grade run submitted --key term1/key.json --out results --jobs 2")
    yield run("again", "chunkprefill-grade run submitted --key term1/key.json --out results --jobs 2")
    yield run(
        "run-canvas", "chunkprefill-grade run canvas --key term1/key.json --out canvas-results --jobs 2"
    )
    yield run("manual", "chunkprefill-grade manual export results written.csv")
    yield {"name": "sheet", "command": "", "output": mark_by_hand(folder / "written.csv")}
    yield run("import", "chunkprefill-grade manual import results written.csv --by ben")
    yield run(
        "override", "chunkprefill-grade override 'Ben Half' overhead 3.5 --why 'rounded too early' --by cleo"
    )
    yield run(
        "excuse", "chunkprefill-grade excuse consequence --full --why 'two letters can be defended' --by ben"
    )
    yield run(
        "late", "chunkprefill-grade late submitted --due '2026-03-01 23:59' --extensions later.csv --by ben"
    )
    yield run("log", "chunkprefill-grade log results")
    yield run("feedback", "chunkprefill-grade feedback results --out feedback --zip moodle")
    yield run("export", "chunkprefill-grade export results --format csv")
    yield run("moodle", "chunkprefill-grade export results --format moodle --worksheet worksheet.csv")
    yield run("canvas", "chunkprefill-grade export canvas-results --format canvas --worksheet gradebook.csv")
    yield run("summary", "chunkprefill-grade summary results")
    yield run("items", "chunkprefill-grade items results")
    yield run("similarity", "chunkprefill-grade similarity canvas --handout term1/PS3.ipynb")
    yield run("shards", "chunkprefill-grade run submitted --key term1/key.json --out part1 --shards 1/2")
    run("shards", "chunkprefill-grade run submitted --key term1/key.json --out part2 --shards 2/2")
    yield run("merge", "chunkprefill-grade merge together part1 part2 --submitted submitted")


def hand_in(folder: Path) -> None:
    """Write what the class hands in, by Moodle and by Canvas, and the tables of both."""
    roster = "".join(f"{name}\n" for name in (*CLASS, "Fay Absent"))
    (folder / "roster.csv").write_text(f"student\n{roster}", "utf8")
    (folder / "later.csv").write_text("student,due\nCleo Blank,+2 days\n", "utf8")
    rows = ["Identifier,Full name,Status,Grade,Maximum Grade,Feedback comments"]
    book = ["Student,ID,SIS User ID,SIS Login ID,Section,PS2 (70),PS3 (71)", "    Points Possible,,,,,20,40"]
    with (
        zipfile.ZipFile(folder / "moodle.zip", "w") as moodle,
        zipfile.ZipFile(folder / "canvas.zip", "w") as canvas,
    ):
        for number, (name, make) in enumerate(CLASS.items(), 1001):
            made, first, last = make(folder / "term1"), *name.split()
            handed_in = (2026, 3, 1, 18, 30, 0) if number != 1003 else (2026, 3, 3, 9, 0, 0)
            entry = f"{name}_{number}_assignsubmission_file_/PS3.ipynb"
            moodle.writestr(zipfile.ZipInfo(entry, handed_in), made)
            late = "_LATE" * (number == 1003)
            entry = f"{last}{first}".lower() + f"{late}_{number}_{71000 + number}_PS3.ipynb"
            canvas.writestr(zipfile.ZipInfo(entry, handed_in), made)
            rows.append(f"Participant {number},{name},Submitted,,100,")
            book.append(f'"{last}, {first}",{number},S{number},{first.lower()},1,15,')
        again = zipfile.ZipInfo("fullada_1001_72001_PS3-1.ipynb", (2026, 3, 1, 20, 0, 0))
        canvas.writestr(again, CLASS["Ada Full"](folder / "term1"))
    (folder / "worksheet.csv").write_text("\n".join(rows) + "\n", "utf8")
    (folder / "gradebook.csv").write_text("\n".join(book) + "\n", "utf8")


def mark_by_hand(sheet: Path) -> str:
    """Give every written answer the most there is, by criterion; returns the columns with the first row."""
    rows = list(csv.DictReader(io.StringIO(sheet.read_text("utf-8-sig"))))
    for row in rows:
        row["comment"] = "Numbers first, then the decision. Well done."
        for i, (_, points) in enumerate(ps3.RUBRIC, 1):
            row[f"criterion {i}"] = f"{points:g}"
    with sheet.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    shown = {name: f"{value[:60]}…" if len(value) > 60 else value for name, value in rows[0].items()}
    return "\n".join(f"{name + ':':<15} {value}".rstrip() for name, value in shown.items())


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
    **{"statuses": statuses, "mistakes": mistakes, "mutants": mutants_table, "when": when},
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

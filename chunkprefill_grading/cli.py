"""`chunkprefill-grade`: hand out, collect, run, mark by hand, decide, give back, export, sum up."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chunkprefill_grading.sandbox.session import printable

if TYPE_CHECKING:
    from chunkprefill_grading.marking.results import Result
    from chunkprefill_grading.marking.run import Judging

Action = Callable[[argparse.Namespace], int | None]
INCOMPLETE = 3
MANY_AT_THE_TOP = 60  # refused files, each of which may be another student's
MANY = 6  # students of whom the same is said, from whom on it is said once


def main(argv: Sequence[str] | None = None) -> int:
    """0: done, whatever the submissions were. 1: it could not be done, with the reason. 2: wrong usage.

    3: done without those whose results are broken files, each of which is named.
    """
    args = parser().parse_args(argv)
    try:
        status = args.action(args) or 0
        broken = getattr(args, "broken", ())
        if broken:
            tell(
                f"{args.command}: done without {len(broken)} of the class, whose results are broken files: "
                "`run` makes them again"
            )
        return status or (INCOMPLETE if broken else 0)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, RuntimeError, OSError) as error:
        print(printable(f"chunkprefill-grade {args.command}: {error}", 4000), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was finished is kept, and the same command goes on", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="chunkprefill-grade", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, action: Action, words: str) -> argparse.ArgumentParser:
        each = commands.add_parser(name, help=words, description=words)
        each.set_defaults(action=action)
        return each

    _hand_out_and_collect(command)
    _run(command)
    _decide(command)
    _give_back(command)
    return made


def _hand_out_and_collect(command: Callable[..., argparse.ArgumentParser]) -> None:
    each = command("new", new, "draw a problem set: the students' notebook, its key, a solution")
    each.add_argument("name", help="PS1, PS2 or PS3")
    each.add_argument("--out", type=Path, required=True)
    each.add_argument("--secret", help="hexadecimal, 128 bits or more (default: one is drawn)")

    each = command("verify", verify, "say what this version of the package would do with a key")
    each.add_argument("key", type=Path)

    each = command("collect", collect, "bring zips of any learning system, and folders, together")
    each.add_argument("sources", nargs="+", type=Path)
    each.add_argument("--roster", type=Path, help="table of the class, to see who is missing")
    each.add_argument(
        "--name-column",
        action="append",
        default=[],
        metavar="TITLE",
        help="the roster's column of names; twice: first and last names",
    )
    each.add_argument("--id-column", default="", metavar="TITLE", help="the roster's column of numbers")
    each.add_argument("--email-column", default="", metavar="TITLE", help="the roster's column of addresses")
    each.add_argument(
        "--from",
        dest="layout",
        default="auto",
        metavar="SYSTEM",
        help="auto, moodle, canvas, gradescope, blackboard, brightspace, classroom or plain",
    )
    _add_encoding(each, "the roster")
    each.add_argument("--strip", type=int, metavar="N", help="folders at the top that hold everything")
    each.add_argument("--out", type=Path, required=True)


def _run(command: Callable[..., argparse.ArgumentParser]) -> None:
    each = command("run", run, "run and mark who is not marked yet")
    each.add_argument("submitted", type=Path)
    each.add_argument("--key", type=Path, required=True)
    each.add_argument("--out", type=Path, required=True)
    _add_how_to_run(each)
    each.add_argument("--shards", metavar="N/K", help="only part N of K, for a machine among several")
    each.add_argument("--dask", metavar="ADDRESS", help="on a Dask cluster, by its scheduler's address")

    each = command("merge", merge, "put the results of several parts together")
    each.add_argument("out", type=Path)
    each.add_argument("parts", nargs="+", type=Path)
    each.add_argument("--submitted", type=Path, help="the class, to see who is in no part")

    each = command("regrade", regrade, "run again, and take over the marks of one question")
    each.add_argument("--submitted", type=Path, default=Path("submitted"), help="default: %(default)s")
    _add_results(each)
    each.add_argument("--key", type=Path, required=True)
    each.add_argument("--question", required=True)
    each.add_argument("--student", action="append", default=[], help="only this one (more than once: these)")
    _add_who_and_why(each)
    _add_how_to_run(each)


def _add_how_to_run(each: argparse.ArgumentParser) -> None:
    each.add_argument("--jobs", type=_count, default=1, help="submissions at a time (default: %(default)s)")
    each.add_argument(
        "--unsafe-no-sandbox",
        action="store_true",
        help="run student code WITHOUT protection; every result says so",
    )


def _add_results(each: argparse.ArgumentParser) -> None:
    each.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="FOLDER",
        help="where the results are (default: %(default)s)",
    )


def _add_encoding(each: argparse.ArgumentParser, what: str) -> None:
    each.add_argument(
        "--encoding", default="", metavar="NAME", help=f"of {what}, such as cp1250 (default: it is found out)"
    )


def _add_who_and_why(each: argparse.ArgumentParser) -> None:
    each.add_argument("--why", required=True, help="the reason, which the log keeps")
    each.add_argument("--by", default="", help="who decides (default: the user of this machine)")


def _decide(command: Callable[..., argparse.ArgumentParser]) -> None:
    each = command("manual", manual, "written answers: export a sheet, fill it in, import it")
    each.add_argument("direction", choices=("export", "import"))
    each.add_argument("results", type=Path)
    each.add_argument("sheet", type=Path)
    each.add_argument("--by", default="", help="who marked (default: the user of this machine)")
    each.add_argument("--replace", action="store_true", help="put these points in place of another person's")
    _add_encoding(each, "the sheet")

    each = command("override", override, "give a question of a student other points, with a reason")
    each.add_argument("student", help="name, file name, number or address")
    each.add_argument("question", help="its name; 'rest': all that have no points yet")
    each.add_argument("points", help="a number, or 'back' to take an override back")
    _add_results(each)
    _add_who_and_why(each)

    each = command("excuse", excuse, "let a faulty question not count, for all or for one student")
    each.add_argument("question")
    _add_results(each)
    each.add_argument("--student", help="only this one")
    how = each.add_mutually_exclusive_group()
    how.add_argument("--full", action="store_true", help="pay it in full in place of leaving it out")
    how.add_argument("--back", action="store_true", help="let it count again")
    _add_who_and_why(each)

    each = command("late", late, "say who was late, by a deadline and a table of extensions")
    each.add_argument("submitted", type=Path)
    _add_results(each)
    each.add_argument("--due", required=True, metavar="DATE", help="such as '2026-03-01 23:59'")
    each.add_argument("--extensions", type=Path, help="table of names or addresses and 'due'")
    _add_encoding(each, "that table")
    each.add_argument("--grace", type=float, default=0.0, metavar="MINUTES", help="that are let pass")
    each.add_argument(
        "--penalty",
        default="",
        metavar="RULE",
        help="what it costs: '10%%/day' of the set's points, '2 points/day', '1%%/h, at most 50%%', '25%%' once "
        "(default: nothing)",
    )
    each.add_argument("--by", default="", help="who decides (default: the user of this machine)")

    each = command("log", history, "what people decided: who, when, what, why")
    each.add_argument("results", type=Path)


def _give_back(command: Callable[..., argparse.ArgumentParser]) -> None:
    from chunkprefill_grading.reports.gradebooks import KINDS

    each = command("feedback", feedback, "one HTML page a student")
    each.add_argument("results", type=Path)
    each.add_argument("--out", type=Path, required=True)
    each.add_argument(
        "--zip", choices=("moodle", "canvas"), help="also a zip for the upload of feedback files"
    )

    each = command("export", export, "scores to standard output")
    each.add_argument("results", type=Path)
    each.add_argument("--format", choices=("csv", *KINDS), default="csv")
    each.add_argument("--worksheet", type=Path, help="the learning system's own table, to be filled in")
    _add_encoding(each, "that table")
    each.add_argument("--assignment", default="", metavar="TITLE", help="the column of that table")
    each.add_argument("--id-column", default="", metavar="TITLE", help="its column of numbers")
    each.add_argument("--name-column", default="", metavar="TITLE", help="its column of names")
    each.add_argument("--grade-column", default="", metavar="TITLE", help="its column of grades")
    each.add_argument("--out", type=Path, help="into a file, as a spreadsheet reads it")

    each = command("summary", summary, "distribution, questions, common mistakes, a plot")
    each.add_argument("results", type=Path)
    each.add_argument("--plot", type=Path, help="where to (default: summary.png in the folder of results)")

    each = command("items", items, "item statistics of each question as CSV: difficulty, discrimination")
    each.add_argument("results", type=Path)
    each.add_argument("--out", type=Path)

    each = command("similarity", similarity, "same code up to names and layout, as CSV")
    each.add_argument("submitted", type=Path)
    each.add_argument(
        "--handout", type=Path, help="the notebook that was handed out: its code counts as no student's"
    )
    each.add_argument("--public", nargs="*", type=Path, default=[], help="public solutions: files or folders")
    each.add_argument(
        "--least", type=float, default=0.5, help="share from which a pair is told (%(default)s)"
    )
    each.add_argument("--out", type=Path)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 256")
    return int(text)


# --- saying things -----------------------------------------------------------------------------------


def tell(*words: str) -> None:
    """To the person, not into the output; names may hold what moves a cursor, or what no terminal shows."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    for line in words:
        text = printable(line, 2000).encode(encoding, "backslashreplace").decode(encoding)
        print(text, file=sys.stderr)


def put(text: str, out: Path | None = None, data: bytes | None = None) -> None:
    """A table to standard output, or into a file.

    A file is for a spreadsheet and begins with a byte order mark; a pipe or a terminal gets the text alone.
    """
    from chunkprefill_grading.reports.score_tables import BOM
    from chunkprefill_grading.submission.files import replace_file

    if out is not None:
        replace_file(out, data if data is not None else BOM + text)
        tell(f"wrote {out}")
        return
    raw = getattr(sys.stdout, "buffer", None)
    if raw is None:
        sys.stdout.write(text.encode("utf-8", "replace").decode())
        return
    sys.stdout.flush()
    is_file = _is_file(raw)
    if data is None or not is_file:
        data = (BOM if is_file else "").encode() + text.encode("utf-8", "backslashreplace")
    raw.write(data)
    raw.flush()


def _is_file(stream: Any) -> bool:
    """Whether output was redirected into an empty file."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode) and stream.tell() == 0
    except (OSError, ValueError, AttributeError):
        return False


def _results(args: argparse.Namespace) -> list[Result]:
    """The results of the command's folder with what people decided; and what is wrong with the log.

    Broken files are kept in `args.broken`: whatever the command does, it does without them, and says so.
    """
    from chunkprefill_grading.marking import settle

    found, args.broken = settle.read_folder(args.results)
    decisions = settle.decided(args.results)
    tell(*decisions.faults)
    if args.command != "late":
        tell(*settle.since_lateness(found, decisions))
    tell(*(f"{each}; THIS STUDENT IS LEFT OUT" for each in args.broken))
    return found


def _reason(args: argparse.Namespace) -> Any:
    from chunkprefill_grading.marking import log, settle

    return settle.Reason(args.by or log.who(), args.why)


# --- the commands ------------------------------------------------------------------------------------


def new(args: argparse.Namespace) -> None:
    """Write a problem set."""
    from chunkprefill_grading import problems

    for path in problems.new(args.name, args.out, args.secret):
        tell(f"wrote {path}")
    tell("Hand out the notebook alone. Anyone who has key.json has the answers.")


def verify(args: argparse.Namespace) -> int:
    """Say what would become of a key."""
    from chunkprefill_grading.problems import key

    good, words = key.verdict(args.key)
    for line in words:
        print(printable(line, 2000))
    return 0 if good else 1


def collect(args: argparse.Namespace) -> None:
    """Bring submissions together."""
    from chunkprefill_grading.submission.collect import NO_ROSTER, How
    from chunkprefill_grading.submission.collect import collect as gather
    from chunkprefill_grading.submission.roster import RosterColumns, read_roster

    roster = NO_ROSTER
    if args.roster:
        columns = RosterColumns(tuple(args.name_column), args.id_column, args.email_column, args.encoding)
        roster = read_roster(args.roster, columns)
    tell(*roster.notes)
    done = gather(args.sources, args.out, How(roster, args.layout, args.strip))
    taken = [student for student in done.students if student.file]
    tell(f"{len(taken)} notebooks of {len(done.students)} students in {args.out}")
    tell(*done.changes)
    tell(*_refusals(done.refused))
    tell(*(f"{s.student}: counts {s.source}, put aside {', '.join(s.aside)}" for s in taken if s.aside))
    tell(*(f"no notebook: {s.student}: {s.problem}" for s in done.students if not s.file))
    tell(*(f"missing: {name}" for name in done.missing))
    tell(*(f"not on the roster: {name}" for name in done.unknown))


def _refusals(refused: Sequence[Sequence[str]]) -> list[str]:
    """What was not taken; of many files of one folder, for one reason, the first ones and how many more."""
    same: dict[tuple[str, str], list[str]] = {}
    for entry, why in refused:
        folder, inside, _ = entry.replace("\\", "/").partition("/")
        same.setdefault((folder if inside else "", why), []).append(entry)
    lines = []
    for (folder, why), entries in same.items():
        most = MANY if folder else MANY_AT_THE_TOP
        lines += [f"refused: {entry}: {why}" for entry in entries[:most]]
        if (more := len(entries) - most) > 0:
            lines.append(f"refused: {more} more {f'in {folder}' if folder else 'at the top'}: {why}")
    return lines


def _warn(args: argparse.Namespace) -> None:
    if args.unsafe_no_sandbox:
        tell("WITHOUT A SANDBOX: student code can read your files, your keys and the other submissions.")


def run(args: argparse.Namespace) -> None:
    """Run and mark."""
    from chunkprefill_grading.marking import run as runs
    from chunkprefill_grading.marking.shards import WHOLE, read_shard
    from chunkprefill_grading.problems import key
    from chunkprefill_grading.submission.collect import read_list

    _warn(args)
    shard = read_shard(args.shards) if args.shards else WHOLE
    by = runs.Judging(key.read(args.key), safe=not args.unsafe_no_sandbox)
    if args.dask:
        made = _on_dask(args, by, shard)
    else:
        made = runs.run(args.submitted, args.out, by, jobs=args.jobs, shard=shard)
    listed = read_list(args.submitted)
    tell(*listed.changes)
    students = shard.part(listed.students)
    tell(f"{len(made)} graded now, {len(students) - len(made)} were graded before")
    tell(*_without_score(made))
    for stem in runs.left_over(args.out, students):
        tell(f"{stem}: a result in {args.out} without a submission in {args.submitted}")


def _without_score(made: list[Result]) -> list[str]:
    """Who has no score yet, and why; many of whom the same is to be said, in one line."""
    same: dict[tuple[str, str], list[str]] = {}
    for result in made:
        if result.status != "ok":
            same.setdefault((result.status, result.reason), []).append(result.student)
    lines = []
    for (status, reason), names in same.items():
        if len(names) >= MANY:
            shown = ", ".join(names[:3])
            lines.append(f"{len(names)} of them ({shown} and {len(names) - 3} more): {status}: {reason}")
        else:
            lines += [f"{name}: {status}: {reason}" for name in names]
    return lines


def _on_dask(args: argparse.Namespace, by: Judging, shard: Any) -> list[Result]:
    from chunkprefill_grading.marking import cluster

    try:
        from distributed import Client
    except ImportError:
        raise ValueError("--dask needs the package distributed: pip install distributed") from None
    with Client(args.dask) as client:
        return cluster.run_on(client, args.submitted, args.out, by, shard=shard)


def merge(args: argparse.Namespace) -> None:
    """Put parts together."""
    from chunkprefill_grading.marking import shards
    from chunkprefill_grading.submission.collect import read_list

    students = read_list(args.submitted).students if args.submitted else ()
    done = shards.merge(args.out, args.parts, students)
    tell(f"{done.added} results added to {args.out}, {done.same} were the same in several", *done.notes)


def regrade(args: argparse.Namespace) -> None:
    """One question anew."""
    from chunkprefill_grading.marking import regrade as again
    from chunkprefill_grading.marking import run as runs
    from chunkprefill_grading.marking.results import find
    from chunkprefill_grading.problems import key

    _warn(args)
    found = _results(args)
    only = {find(found, student).slug for student in args.student}
    by = runs.Judging(key.read(args.key), safe=not args.unsafe_no_sandbox)
    grade = partial(runs.run, args.submitted, by=by, jobs=args.jobs)
    reason = _reason(args)
    done = again.regrade(args.results, args.question, lambda out: grade(out=out), reason, only)
    tell(f"{args.question}: {done.n} marked anew, {len(done.changed)} changed", *done.changed, *done.notes)


def manual(args: argparse.Namespace) -> None:
    """Written answers out and in."""
    from chunkprefill_grading.marking import log, settle
    from chunkprefill_grading.reports import sheets
    from chunkprefill_grading.submission.spreadsheet import read_table

    found, decisions = _results(args), settle.decided(args.results)
    if args.direction == "export":
        put(sheets.written_answers(found, decisions), args.sheet)
        tell(f"{len(sheets.answers_of(found))} written answers in {args.sheet}")
        return
    by = args.by or log.who()
    table = read_table(args.sheet, args.encoding, [result.name for result in found])
    tell(*table.notes)
    try:
        done = sheets.import_points(args.results, found, decisions, table, by=by, replace=args.replace)
    except ValueError as error:
        raise ValueError(f"{args.sheet}: {error}") from None
    tell(f"{done.marked} answers marked, {done.open} without points")
    tell(*(f"no row of an answer, left out: {each}" for each in done.no_answers))
    tell(*(f"taken back: {each}" for each in done.taken_back))
    tell(*(f"kept, --replace puts yours in its place: {each}" for each in done.kept))


def override(args: argparse.Namespace) -> None:
    """Points by hand."""
    from chunkprefill_grading.marking import settle
    from chunkprefill_grading.marking.results import find

    points = None
    if args.points.strip().casefold() != "back":
        try:
            points = float(args.points.replace(",", "."))
        except ValueError:
            raise ValueError(f"points {args.points!r}: a number, or 'back'") from None
    result = find(_results(args), args.student)
    tell(*settle.override(args.results, result, args.question, points, _reason(args)))


def excuse(args: argparse.Namespace) -> None:
    """A faulty question."""
    from chunkprefill_grading.marking import settle
    from chunkprefill_grading.marking.results import find

    found = _results(args)
    whom = find(found, args.student) if args.student else None
    how = None if args.back else "full" if args.full else "drop"
    tell(*settle.excuse(args.results, found, args.question, how, _reason(args), whom))


def late(args: argparse.Namespace) -> None:
    """Who was late."""
    from chunkprefill_grading.marking import log, settle
    from chunkprefill_grading.submission import lateness
    from chunkprefill_grading.submission.collect import read_list

    _results(args)
    students = read_list(args.submitted).students
    due = lateness.moment(args.due)
    extensions: dict[str, float] = {}
    if args.extensions:
        extensions, unknown = lateness.read_extensions(args.extensions, students, due, args.encoding)
        tell(*(f"extension: {each}" for each in unknown))
    deadline = lateness.Deadline(due, 60 * args.grace, extensions)
    seconds = {student.slug: deadline.late_s(student) for student in students}
    if args.penalty:
        lateness.read_penalty(args.penalty)
    settle.keep_lateness(args.results, args.by or log.who(), deadline, seconds, args.penalty)
    n_late = sum(bool(each) for each in seconds.values())
    n_in_time = sum(each == 0 for each in seconds.values())
    tell(f"late: {n_late}, in time: {n_in_time}, extensions: {len(extensions)}")
    if args.penalty:
        tell(f"being late costs {args.penalty}; `late` without --penalty takes that back")
    for student in students:
        tell(*lateness.told(student, deadline))


def history(args: argparse.Namespace) -> None:
    """The log."""
    from chunkprefill_grading.marking import log, settle

    names = {result.slug: result.student for result in _results(args)}
    found = log.read(args.results)
    for event in found.events:
        print(printable(settle.shown(event, lambda slug: names.get(slug, slug)), 2000))
    tell(f"{len(found.events)} decisions")


def feedback(args: argparse.Namespace) -> None:
    """Pages for students."""
    from chunkprefill_grading.marking import settle
    from chunkprefill_grading.reports import student_pages as pages

    found, pack = _results(args), args.zip or ""
    paths = pages.write(found, args.out, pack=pack)
    tell(f"wrote {len(paths)} files into {args.out}", *(pages.not_packed(found, pack) if pack else ()))
    tell(pages.release(settle.last_deadline(args.results)))


def export(args: argparse.Namespace) -> None:
    """Scores, and nothing else, to standard output."""
    from chunkprefill_grading.reports import gradebooks, score_tables
    from chunkprefill_grading.submission.spreadsheet import read_table

    found = _results(args)
    if args.format == "csv":
        put(score_tables.scores(found), args.out)
        return
    titles = gradebooks.Titles(args.assignment, args.id_column, args.name_column, args.grade_column)
    if args.worksheet is None:
        table, notes = gradebooks.made(found, args.format, args.assignment or found[0].problem_set)
    else:
        try:
            worksheet = read_table(args.worksheet, args.encoding, [result.name for result in found])
            table, notes = gradebooks.filled(found, worksheet, args.format, titles)
            notes = [*worksheet.notes, *notes]
        except ValueError as error:
            words = str(error)
            raise ValueError(
                words if str(args.worksheet) in words else f"{args.worksheet}: {words}"
            ) from None
    put(table.text(), args.out, table.encoded())
    tell(*notes)


def summary(args: argparse.Namespace) -> None:
    """What became of the class."""
    from chunkprefill_grading.reports import class_summary as sums

    found = _results(args)
    sys.stdout.write(sums.text(found).encode("utf-8", "replace").decode())
    path = args.plot or args.results / "summary.png"
    try:
        sums.plot(found, path)
    except ImportError as error:
        tell(f"no plot: {error}")
    else:
        tell(f"wrote {path}")


def items(args: argparse.Namespace) -> None:
    """Item statistics."""
    from chunkprefill_grading.reports import class_summary as sums

    put(sums.items(_results(args)), args.out)


def similarity(args: argparse.Namespace) -> None:
    """Who shares code."""
    from chunkprefill_grading.reports import similarity as alike
    from chunkprefill_grading.submission.collect import files_of, read_list
    from chunkprefill_grading.submission.load import load

    students = read_list(args.submitted).students
    if not students:
        raise ValueError(f"{args.submitted}: no submissions here")
    codes = alike.codes_of(files_of(args.submitted, students))
    handed_out = alike.code_of("handout", load(args.handout).cells) if args.handout else None
    found = alike.pairs([*codes, *alike.read_public(args.public)], handed_out, least=args.least)
    put(alike.table(found), args.out)
    compared = {code.name for code in codes}
    tell(*(f"not compared, no notebook: {each.student}" for each in students if each.slug not in compared))
    tell(
        f"{len(codes)} submissions compared, {len(found)} pairs share code; look at them before you conclude"
    )


if __name__ == "__main__":
    sys.exit(main())

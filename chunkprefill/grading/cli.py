"""`chunkprefill-grade`: hand out, collect, run, mark by hand, give back, export, sum up."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from chunkprefill.grading.session import printable


def main(argv: Sequence[str] | None = None) -> int:
    """0: done, whatever the submissions were. 1: it could not be done, with the reason. 2: wrong usage."""
    args = parser().parse_args(argv)
    try:
        return args.action(args) or 0
    except (ValueError, RuntimeError, OSError) as error:
        print(f"chunkprefill-grade {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was finished is kept, and the same command goes on", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="chunkprefill-grade", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, action: Callable[[argparse.Namespace], int | None], words: str
    ) -> argparse.ArgumentParser:
        each = commands.add_parser(name, help=words, description=words)
        each.set_defaults(action=action)
        return each

    each = command("new", new, "draw a problem set: the students' notebook, its key, a solution")
    each.add_argument("name", help="PS1, PS2 or PS3")
    each.add_argument("--out", type=Path, required=True)
    each.add_argument("--secret", help="hexadecimal, 128 bits or more (default: one is drawn)")

    each = command("collect", collect, "bring Moodle zips, plain zips and folders together")
    each.add_argument("sources", nargs="+", type=Path)
    each.add_argument("--roster", type=Path, help="CSV of the class, to see who is missing")
    each.add_argument("--out", type=Path, required=True)

    each = command("run", run, "run and mark who is not marked yet")
    each.add_argument("submitted", type=Path)
    each.add_argument("--key", type=Path, required=True)
    each.add_argument("--out", type=Path, required=True)
    each.add_argument("--jobs", type=_count, default=1, help="submissions at a time (default: %(default)s)")
    each.add_argument("--unsafe-no-sandbox", action="store_true",
                      help="run student code WITHOUT protection; every result says so")  # fmt: skip

    each = command("manual", manual, "written answers: export a sheet, fill it in, import it")
    each.add_argument("direction", choices=("export", "import"))
    each.add_argument("results", type=Path)
    each.add_argument("sheet", type=Path)

    each = command("feedback", feedback, "one HTML page a student")
    each.add_argument("results", type=Path)
    each.add_argument("--out", type=Path, required=True)
    each.add_argument("--zip", choices=("moodle",), help="also a zip for Moodle's upload of feedback files")

    each = command("export", export, "scores to standard output")
    each.add_argument("results", type=Path)
    each.add_argument("--format", choices=("csv", "moodle"), default="csv")
    each.add_argument("--worksheet", type=Path, help="Moodle's grading worksheet, for --format moodle")

    each = command("summary", summary, "distribution, questions, common mistakes, a plot")
    each.add_argument("results", type=Path)
    each.add_argument("--plot", type=Path, help="where to (default: summary.png in the folder of results)")
    return made


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 256")
    return int(text)


def tell(*words: str) -> None:
    """To the person, not into the output; names may hold what moves a cursor."""
    for line in words:
        print(printable(line), file=sys.stderr)


def new(args: argparse.Namespace) -> None:
    """Write a problem set."""
    from chunkprefill.grading import problems

    for path in problems.new(args.name, args.out, args.secret):
        tell(f"wrote {path}")
    tell("Hand out the notebook alone. Whoever has key.json has the answers.")


def collect(args: argparse.Namespace) -> None:
    """Bring submissions together."""
    from chunkprefill.grading.collect import collect as gather
    from chunkprefill.grading.collect import read_roster

    roster = read_roster(args.roster) if args.roster else None
    done = gather(args.sources, args.out, roster)
    taken = [student for student in done.students if student.file]
    tell(f"{len(taken)} notebooks of {len(done.students)} students in {args.out}")
    tell(*(f"refused: {entry}: {why}" for entry, why in done.refused))
    tell(*(f"{s.student}: counts {s.source}, put aside {', '.join(s.aside)}" for s in taken if s.aside))
    tell(*(f"no notebook: {s.student}: {s.problem}" for s in done.students if not s.file))
    tell(*(f"missing: {name}" for name in done.missing))
    tell(*(f"not on the roster: {name}" for name in done.unknown))


def run(args: argparse.Namespace) -> None:
    """Run and mark."""
    from chunkprefill.grading import run as runs
    from chunkprefill.grading.collect import read_list
    from chunkprefill.grading.problems import key

    if args.unsafe_no_sandbox:
        tell("WITHOUT A SANDBOX: student code can read your files, your keys and the other submissions.")
    made = runs.run(
        args.submitted, args.out, key.read(args.key), jobs=args.jobs, safe=not args.unsafe_no_sandbox
    )
    students = read_list(args.submitted).students
    tell(f"{len(made)} graded now, {len(students) - len(made)} were graded before")
    tell(*(f"{result.student}: {result.status}: {result.reason}" for result in made if result.status != "ok"))
    for stem in runs.left_over(args.out, students):
        tell(f"{stem}: a result in {args.out} without a submission in {args.submitted}")


def manual(args: argparse.Namespace) -> None:
    """Written answers out and in."""
    from chunkprefill.grading import results, tables

    found = results.read_all(args.results)
    if args.direction == "export":
        sheet = tables.written_answers(found, results.read_points(args.results))
        results.replace_file(args.sheet, sheet)
        n = sum(len(result.written) for result in found if result.status in ("ok", "needs manual"))
        tell(f"{n} written answers in {args.sheet}")
        return
    marked, still_open = tables.import_points(args.results, found, args.sheet)
    tell(f"{marked} answers marked, {still_open} without points")


def feedback(args: argparse.Namespace) -> None:
    """Pages for students."""
    from chunkprefill.grading import feedback as pages
    from chunkprefill.grading import results

    paths = pages.write(results.read_all(args.results), args.out, moodle=args.zip == "moodle")
    tell(f"wrote {len(paths)} files into {args.out}")


def export(args: argparse.Namespace) -> None:
    """Scores, and nothing else, to standard output."""
    from chunkprefill.grading import results, tables

    found = results.read_all(args.results)
    if args.format == "csv":
        sys.stdout.write(tables.scores(found))
        return
    if args.worksheet is None:
        raise ValueError("--format moodle needs --worksheet FILE: Moodle's grading worksheet")
    text, notes = tables.worksheet(found, args.worksheet)
    sys.stdout.write(text)
    tell(*notes)


def summary(args: argparse.Namespace) -> None:
    """What became of the class."""
    from chunkprefill.grading import results
    from chunkprefill.grading import summary as sums

    found = results.read_all(args.results)
    sys.stdout.write(sums.text(found))
    path = args.plot or args.results / "summary.png"
    try:
        sums.plot(found, path)
    except ImportError as error:
        tell(f"no plot: {error}")
    else:
        tell(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())

"""What became of a class: distribution, questions, common mistakes, and a picture of it."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chunkprefill_grading.marking.mark import Mark
from chunkprefill_grading.marking.results import Result
from chunkprefill_grading.marking.settle import BY_HAND, OPEN
from chunkprefill_grading.reports.score_tables import csv_text
from chunkprefill_grading.sandbox.session import printable

N_BINS = 10
N_MISTAKES = 10
ITEMS = (
    *("question", "n", "open", "mean", "max", "difficulty", "discrimination", "upper_lower"),
    *("full", "zero", "no_answer"),
)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?", re.I)


def bins(results: Sequence[Result]) -> list[int]:
    """Submissions with a score, by tenths of the maximum; full marks are in the last."""
    tenths = [0] * N_BINS
    for result in results:
        if result.score is not None and result.max_score:
            tenths[min(N_BINS - 1, max(0, int(N_BINS * result.score / result.max_score)))] += 1
    return tenths


def judged(results: Sequence[Result], question: str) -> list[Mark]:
    """The marks of a question that stand, also of those whose written answer waits for a person."""
    return [mark for result in results if (mark := result.mark(question)) and counts(result, mark)]


def counts(result: Result, mark: Mark) -> bool:
    """Whether a mark stands: in a result with a score all do but the excused."""
    if result.status not in ("ok", "needs manual") or mark.status == "excused":
        return False
    return result.status == "ok" or mark.status not in OPEN


def _names(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(mark.question for result in results for mark in result.marks))


def questions(results: Sequence[Result]) -> list[tuple[str, float, float, int, int, int]]:
    """(question, mean points, most, with full marks, without an answer, marked) of what is judged."""
    rows = []
    for name in _names(results):
        marks = judged(results, name)
        if not marks:
            continue
        full = sum(mark.points >= mark.max_points for mark in marks)
        silent = sum(mark.status == "no answer" for mark in marks)
        mean = statistics.fmean(mark.points for mark in marks)
        rows.append((name, mean, float(marks[0].max_points), full, silent, len(marks)))
    return rows


def kind_of(mark: Mark) -> str:
    """What kind of mistake a mark tells of: its numbers, names and places aside, which differ each time."""
    words = mark.reason if mark.status == "ok" and mark.reason not in ("", "wrong") else ""
    words = words or mark.comment or mark.reason
    words = words.partition(" (code cell")[0]
    return " ".join(_NUMBER.sub("#", _QUOTED.sub("…", words)).split())


def mistakes(results: Sequence[Result]) -> list[tuple[int, str, str]]:
    """(how many, question, what is said of it) by kinds of lost points, the most common first."""
    found: Counter[tuple[str, str]] = Counter()
    shown: dict[tuple[str, str], Counter[str]] = {}
    for result in results:
        for mark in result.marks:
            judged_so = mark.status in ("bad answer", "raised") or (
                mark.status == "ok" and not mark.comment.startswith(BY_HAND)
            )
            lost = mark.points < mark.max_points and judged_so
            if lost and (kind := kind_of(mark)):
                found[mark.question, kind] += 1
                words = (mark.comment or mark.reason).partition(" (code cell")[0]
                shown.setdefault((mark.question, kind), Counter())[words] += 1
    rows = []
    for (question, kind), n in found.items():
        same = shown[question, kind]
        rows.append((n, question, next(iter(same)) if len(same) == 1 else kind))
    return sorted(rows, key=lambda row: (-row[0], row[1], row[2]))[:N_MISTAKES]


def items(results: Sequence[Result]) -> str:
    """Item statistics as CSV.

    difficulty: mean points over the most, 1 for what everybody solved. discrimination: the correlation of a
    question's points with those of all others. upper_lower: the difficulty in the best 27% less that in
    the weakest 27%. Blank where there are too few, or all are equal.
    """
    rows: list[list[Any]] = [list(ITEMS)]
    whole = [result for result in results if result.status in ("ok", "needs manual")]
    for name in _names(results):
        pairs = []
        n_open = n_silent = 0
        for result in whole:
            mark = result.mark(name)
            if mark is None or mark.status == "excused":
                continue
            if not counts(result, mark):
                n_open += 1
                continue
            n_silent += mark.status == "no answer"
            rest = math.fsum(other.points for other in result.marks if other.question != name)
            pairs.append((mark.points, rest, mark.max_points))
        points = [pair[0] for pair in pairs]
        most = max((pair[2] for pair in pairs), default=0.0)
        mean = statistics.fmean(points) if points else None
        rows.append(
            [
                name,
                len(points),
                n_open,
                mean,
                most,
                mean / most if mean is not None and most else None,
                _correlation(points, [pair[1] for pair in pairs]),
                _upper_lower(pairs),
                sum(each >= most for each in points),
                sum(each == 0 for each in points),
                n_silent,
            ]
        )
    return csv_text(rows)


def _correlation(a: list[float], b: list[float]) -> float | None:
    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return statistics.correlation(a, b)


def _upper_lower(pairs: list[tuple[float, float, float]]) -> float | None:
    n = round(0.27 * len(pairs))
    if n < 2 or not pairs[0][2]:
        return None
    ranked = sorted(pairs, key=lambda pair: pair[0] + pair[1])
    low, high = (statistics.fmean(p[0] / p[2] for p in part) for part in (ranked[:n], ranked[-n:]))
    return high - low


def text(results: Sequence[Result]) -> str:
    """The summary for a terminal."""
    scored = [result.score for result in results if result.score is not None]
    lines = [f"{results[0].problem_set}: {len(results)} submissions, {len(scored)} with a score"]
    for status, n in sorted(Counter(result.status for result in results).items()):
        lines.append(f"  {n:4d}  {status}")
    if late := sum(bool(result.late_s) for result in results):
        cost = math.fsum(result.late_points for result in results)
        lines.append(f"  {late:4d}  late" + (f", which costs them {cost:g} points in all" if cost else ""))
    if scored:
        middle, most = statistics.median(scored), results[0].max_score
        lines.append(f"\nScores: median {middle:g}, mean {statistics.fmean(scored):.4g}, of {most:g}")
        tenths = bins(results)
        for i, n in enumerate(tenths):
            left, right = most * i / N_BINS, most * (i + 1) / N_BINS
            bar = "#" * -(-40 * n // max(1, *tenths))
            lines.append(f"  {left:6.4g} to {right:6.4g}  {n:4d}  {bar}".rstrip())
    if rows := questions(results):
        lines.append("\nQuestions: mean points, full marks, no answer (of what is judged)")
        for name, mean, top, full, silent, n in rows:
            lines.append(f"  {name:24} {mean:6.2f} of {top:g}  {full:4d} of {n} full  {silent:4d} unanswered")
    if common := mistakes(results):
        lines.append("\nCommon mistakes")
        lines += [f"  {n:4d}  {question}: {printable(words)[:200]}" for n, question, words in common]
    if closed := [result for result in results if result.status != "ok"]:
        lines.append("\nWithout a score")
        lines += [f"  {printable(r.student)}: {r.status}: {printable(r.reason)[:200]}" for r in closed]
    if any(result.sandbox != "bubblewrap" for result in results):
        lines.append(
            "\nWARNING: some of these ran without a sandbox; their answers may have been tampered with"
        )
    return "\n".join(lines) + "\n"


def plot(results: Sequence[Result], path: Path) -> None:
    """Two pictures in one file: scores by tenths, and each question's share of its points."""
    from matplotlib.figure import Figure  # a second of import that only a picture needs

    rows = questions(results)
    figure = Figure(figsize=(9, 0.5 * max(6, len(rows)) + 1), layout="constrained")
    left, right = figure.subplots(1, 2)
    most = results[0].max_score or 1.0
    edges = [most * i / N_BINS for i in range(N_BINS)]
    left.bar(
        edges, bins(results), width=0.9 * most / N_BINS, align="edge", color="#0072b2", edgecolor="black"
    )
    left.set(xlabel="score (points)", ylabel="submissions", title=f"{results[0].problem_set}: scores")
    shares = [mean / top if top else 0.0 for _, mean, top, *_ in rows]
    right.barh([row[0] for row in rows], shares, color="#e69f00", edgecolor="black")
    right.set(xlabel="mean share of the points", title="questions", xlim=(0, 1))
    right.invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None} if path.suffix == ".png" else None)

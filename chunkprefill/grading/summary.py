"""What became of a class: distribution, questions, common mistakes, and a picture of it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from chunkprefill.grading.results import Result
from chunkprefill.grading.session import printable

N_BINS = 10
N_MISTAKES = 10


def bins(results: Sequence[Result]) -> list[int]:
    """Submissions with a score, by tenths of the maximum; full marks are in the last."""
    counts = [0] * N_BINS
    for result in results:
        if result.score is not None:
            counts[min(N_BINS - 1, max(0, int(N_BINS * result.score / result.max_score)))] += 1
    return counts


def questions(results: Sequence[Result]) -> list[tuple[str, float, float, int, int, int]]:
    """(question, mean points, most, with full marks, without an answer, marked) of those with a score."""
    scored = [result for result in results if result.score is not None]
    rows = []
    for name in dict.fromkeys(mark.question for result in scored for mark in result.marks):
        marks = [mark for result in scored for mark in result.marks if mark.question == name]
        full = sum(mark.points >= mark.max_points for mark in marks)
        silent = sum(mark.status == "no answer" for mark in marks)
        mean = statistics.fmean(mark.points for mark in marks)
        rows.append((name, mean, float(marks[0].max_points), full, silent, len(marks)))
    return rows


def mistakes(results: Sequence[Result]) -> list[tuple[int, str, str]]:
    """(how many, question, what is said of it) of answers that lost points, the most common first."""
    counts: Counter[tuple[str, str]] = Counter()
    for result in results:
        for mark in result.marks:
            lost = mark.points < mark.max_points and mark.status in ("ok", "bad answer", "raised")
            if words := mark.comment or mark.reason:
                counts[mark.question, words.partition(" (code cell")[0]] += lost
    rows = [(n, question, words) for (question, words), n in counts.items() if n]
    return sorted(rows, key=lambda row: (-row[0], row[1], row[2]))[:N_MISTAKES]


def text(results: Sequence[Result]) -> str:
    """The summary for a terminal."""
    scored = [result.score for result in results if result.score is not None]
    lines = [f"{results[0].problem_set}: {len(results)} submissions, {len(scored)} with a score"]
    for status, n in sorted(Counter(result.status for result in results).items()):
        lines.append(f"  {n:4d}  {status}")
    if scored:
        middle, most = statistics.median(scored), results[0].max_score
        lines.append(f"\nScores: median {middle:g}, mean {statistics.fmean(scored):.4g}, of {most:g}")
        counts = bins(results)
        for i, n in enumerate(counts):
            left, right = most * i / N_BINS, most * (i + 1) / N_BINS
            bar = "#" * -(-40 * n // max(counts))
            lines.append(f"  {left:6.4g} to {right:6.4g}  {n:4d}  {bar}".rstrip())
        lines.append("\nQuestions: mean points, full marks, no answer (of those with a score)")
        for name, mean, top, full, silent, n in questions(results):
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
    most = results[0].max_score
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

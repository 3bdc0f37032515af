"""PS2's second question (a variant of the card Q3): documents and chats on one server, true or false."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np

from chunkprefill.metrics import waits as metrics
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill, PrefillFirst
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.simulate import simulate
from chunkprefill_course.forms.feedback import counted
from chunkprefill_grading.problems.sheet import Answers, Judgement, Question, truths_right
from chunkprefill_grading.problems.texts import fill

Statement = tuple[str, bool]
N_STATEMENTS = 10


@dataclass(frozen=True)
class Situation:
    """Chats that decode, documents that come, chats behind them; run whole, in chunks, or shortest first."""

    n_chats: int
    n_documents: int
    document: int  # tokens
    n_late: int
    budget: int

    @cached_property
    def requests(self) -> list[Request]:
        """Chats at 0 s, documents at 0.2 s, late chats from 0.25 s on."""
        rows = [(f"chat{i}", 0.0, 60 + 10 * i, 60) for i in range(self.n_chats)]
        rows += [(f"doc{i}", 0.2, self.document, 8) for i in range(self.n_documents)]
        rows += [(f"late{i}", 0.25 + 0.01 * i, 50 + 10 * i, 8) for i in range(self.n_late)]
        return [Request(*row) for row in rows]

    @cached_property
    def whole(self) -> Trace:
        """Whole prompts first."""
        return simulate(self.requests, PrefillFirst(2 * self.document))

    @cached_property
    def chunked(self) -> Trace:
        """Decodes first, chunks by arrival."""
        return simulate(self.requests, ChunkedPrefill(self.budget))

    @cached_property
    def shortest(self) -> Trace:
        """Decodes first, chunks to the prompt with the least to go."""
        return simulate(self.requests, ChunkedPrefill(self.budget, order="shortest"))

    def gap(self, trace: Trace) -> float:
        """Largest time between tokens of the chats that decode, ms."""
        return 1e3 * float(np.nanmax(metrics.largest_tbt(trace)[: self.n_chats]))

    def first(self, trace: Trace, who: str) -> float:
        """Latest first token of a class, ms."""
        mine = [str(request.rid).startswith(who) for request in self.requests]
        return 1e3 * float(metrics.ttft(trace)[np.array(mine)].max())

    def share(self, trace: Trace) -> float:
        """Share of the steps in which a chat that decodes gets a token."""
        with_chats = sum(
            any(str(chunk.rid).startswith("chat") for chunk in step.batch) for step in trace.steps
        )
        return with_chats / len(trace.steps)

    def rows(self, trace: Trace) -> int:
        """Tasks of the documents' prompts that the scheduler handed out."""
        return sum(
            str(chunk.rid).startswith("doc") and chunk.start < self.document
            for step in trace.steps
            for chunk in step.batch
        )


def statements(rng: random.Random, scene: Situation) -> Iterator[Statement]:
    """Each with its truth, which is looked up in the runs, or counted.

    Every one compares a number of the scene with a drawn one, so that each form of words is now true and now
    false: what a sentence says in one draw tells nothing of the next.
    """

    def coin() -> bool:
        return rng.random() < 0.5

    def below(what: str, value: float, unit: str = "ms") -> Statement:
        bound = value * (rng.uniform(1.3, 1.9) if coin() else rng.uniform(0.4, 0.75))
        said = f"{bound:.0f}"
        return f"{what} is below {said} {unit}.", value < float(said)

    def at_least(words: str, value: float, most: float = inf) -> Statement:
        off = 0.25 * rng.uniform(0.3, 1)
        bound = value * (1 - off) if coin() else min(value * (1 + off), (value + most) / 2)
        said = f"{bound:.2f}"
        return words.replace("$", said), value >= float(said)

    def near(words: str, value: float, wrong: Sequence[float]) -> Statement:
        claimed = value if coin() else rng.choice(wrong)
        low, high = f"{claimed * rng.uniform(0.93, 0.98):.0f}", f"{claimed * rng.uniform(1.02, 1.07):.0f}"
        said = words.replace("$", f"at least {int(low):,} and at most {int(high):,}")
        return said, float(low) <= value <= float(high)

    whole, chunked, shortest = scene.whole, scene.chunked, scene.shortest
    n, tasks = scene.document, scene.rows(chunked)
    late = "the latest first token of the chats that came behind the documents, counted from their arrival,"
    yield below("With A, the largest time between tokens of the chats that decode", scene.gap(whole))
    yield below("With B, the largest time between tokens of the chats that decode", scene.gap(chunked))
    yield below(f"With C, {late}", scene.first(shortest, "late"))
    yield at_least(
        f"With B, {late} takes at least $ times as long as with A.",
        scene.first(chunked, "late") / scene.first(whole, "late"),
    )
    yield at_least(
        "With B, the last of the documents has its first token after at least $ times as long as with A.",
        scene.first(chunked, "doc") / scene.first(whole, "doc"),
    )
    yield near(
        "With B, the scheduler hands out $ tasks for the documents' prompts.",
        tasks,
        (0.75 * tasks, 1.3 * tasks, 1.6 * tasks),
    )
    yield near(
        "With B, the prompt of one document comes to $ pairs of a query and a key that it sees, in one head.",
        n * (n + 1) / 2,
        (n * (n + 1), n * scene.budget, n * n / 4),
    )
    yield near(
        "With B, the finished prompt of one document takes $ MiB of cache, at 128 KiB a token.",
        n / 8,
        (n / 4, n / 16, scene.budget / 8),
    )
    yield at_least(
        "With A, the chats that decode get tokens in at least $ of all steps, 1.00 being all.",
        scene.share(whole),
        most=1.0,
    )
    yield at_least(
        "With C, the documents' prompts take at least $ times as many tasks as with B.",
        scene.rows(shortest) / tasks,
    )
    yield at_least(
        "With C, the largest time between tokens of the chats that decode is at least $ times that with B.",
        scene.gap(shortest) / scene.gap(chunked),
    )


def statements_question(rng: random.Random) -> Question:
    """A scene and ten statements on it, under drawn names."""
    document = rng.randrange(6000, 12001, 100)
    scene = Situation(
        rng.randrange(4, 11),
        rng.randrange(1, 4),
        document,
        rng.randrange(4, 9),
        rng.choice([384, 512, 640, 768]),
    )
    kept = rng.sample(list(statements(rng, scene)), N_STATEMENTS)
    right = {f"s{number}": truth for number, (_, truth) in zip(rng.sample(range(100, 1000), len(kept)), kept)}
    statement = dict(zip(right, (words for words, _ in kept)))

    def judge(answers: Answers) -> Judgement:
        """4 points, one less for each statement that is judged wrongly or not at all."""
        return truths_right(answers.value("statements"), right, 4)

    text = fill(
        "statements",
        n_chats=scene.n_chats,
        n_documents=counted(scene.n_documents, "document"),
        document=f"{document:,}",
        n_late=scene.n_late,
        whole=2 * document,
        budget=scene.budget,
        listed="\n".join(f"- `{name}`: {words}" for name, words in statement.items()),
    )
    names = ", ".join(f'"{name}": None' for name in right)
    return Question(
        name="statements",
        title="Documents and chats",
        kind="truths",
        text=text,
        table=(("all statements judged rightly; each one that is wrong or left out costs a point", 4),),
        starter=f"statements = {{{names}}}",
        solution=f"statements = {right!r}".replace("'", '"'),
        form={"kind": "truths", "names": list(right)},
        judge=judge,
    )

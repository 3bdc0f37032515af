"""PS2's second question (a variant of the card Q3): documents and chats on one server, true or false."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chunkprefill.analysis import metrics
from chunkprefill.exercises.feedback import counted
from chunkprefill.grading.problems.sheet import Answers, Question, Verdict, truths_right
from chunkprefill.scheduling.core import Request
from chunkprefill.scheduling.policies import ChunkedPrefill, PrefillFirst
from chunkprefill.scheduling.trace import Trace
from chunkprefill.simulation.simulate import simulate

Statement = tuple[str, bool]
N_STATEMENTS = 8


@dataclass(frozen=True)
class Scene:
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

    def rows(self, trace: Trace) -> int:
        """Tasks of the documents' prompts that the scheduler handed out."""
        return sum(
            str(chunk.rid).startswith("doc") and chunk.start < self.document
            for step in trace.steps for chunk in step.batch
        )  # fmt: skip


def statements(rng: random.Random, scene: Scene) -> Iterator[Statement]:
    """Each with its truth, which is looked up in the runs, or counted; numbers are drawn true or false."""

    def coin() -> bool:
        return rng.random() < 0.5

    def below(what: str, ms: float) -> Statement:
        true = coin()
        bound = ms * ((1.4 + 0.6 * rng.random()) if true else (0.4 + 0.3 * rng.random()))
        return f"{what} is below {bound:.0f} ms.", ms < float(f"{bound:.0f}")

    whole, chunked, shortest = scene.whole, scene.chunked, scene.shortest
    yield below("With A, the largest time between tokens of the chats that decode", scene.gap(whole))
    yield below("With B, the largest time between tokens of the chats that decode", scene.gap(chunked))
    yield below("With C, the latest first token of the chats that came behind the documents, counted from "
                "their arrival,", scene.first(shortest, "late"))  # fmt: skip
    ratio = scene.first(chunked, "late") / scene.first(whole, "late")
    yield ("Going from A to B halves the latest first token of the chats that came behind the documents.",
           ratio <= 0.5)  # fmt: skip
    n, wrong = scene.rows(chunked), scene.n_documents * (scene.document // (4 * scene.budget))
    claimed = n if coin() else wrong
    yield (f"With B, the scheduler hands out at least {max(2, claimed - 2)} and at most {claimed + 2} tasks "
           "for the documents' prompts.", abs(n - claimed) <= 2)  # fmt: skip
    later = scene.first(chunked, "doc") > scene.first(whole, "doc")
    sign = coin()
    when = "later" if sign else "sooner"
    yield f"The last of the documents has its first token {when} with B than with A.", later is sign
    yield rng.choice([
        ("B computes fewer pairs of query and key for a document than A.", False),
        ("A and B compute equally many pairs of query and key for a document.", True),
    ])  # fmt: skip
    yield rng.choice([
        ("With B, a document's finished cache takes as many bytes as with A.", True),
        ("With B, a document's finished cache takes fewer bytes than with A.", False),
    ])  # fmt: skip
    yield rng.choice([
        ("With B, the chats that decode get a token in every step that runs.", True),
        ("With A, the chats that decode get a token in every step that runs.", False),
    ])  # fmt: skip
    yield rng.choice([
        ("With C, the documents' prompts take as many tasks as with B, 20% more or less.",
         abs(scene.rows(shortest) - n) <= 0.2 * n),
        ("With C, the documents' prompts take at least twice as many tasks as with B.",
         scene.rows(shortest) >= 2 * n),
        ("With C, the chats that decode wait at least twice as long for a token as with B.",
         scene.gap(shortest) >= 2 * scene.gap(chunked)),
    ])  # fmt: skip


def statements_question(rng: random.Random) -> Question:
    """A scene and eight of ten statements on it."""
    document = rng.randrange(6000, 12001, 100)
    scene = Scene(
        rng.randrange(4, 11),
        rng.randrange(1, 4),
        document,
        rng.randrange(4, 9),
        rng.choice([384, 512, 640, 768]),
    )
    drawn = list(statements(rng, scene))
    kept = rng.sample(drawn, N_STATEMENTS)
    right = {f"s{i}": truth for i, (_, truth) in enumerate(kept, 1)}

    def judge(answers: Answers) -> Verdict:
        """4 points, one less for each statement that is judged wrongly or not at all."""
        return truths_right(answers.value("statements"), right, 4)

    b = f"ChunkedPrefill({scene.budget})"
    listed = "\n".join(f"- `s{i}`: {text}" for i, (text, _) in enumerate(kept, 1))
    text = (
        f"One server answers {scene.n_chats} chats: they arrive at 0 s, with prompts of 60, 70, … tokens "
        f"and 60 "
        f"tokens of output each. At 0.2 s come {counted(scene.n_documents, 'document')} of {document:,} "
        f"tokens with 8 "
        f"tokens "
        f"of output each, and from 0.25 s on, every 10 ms, one of {scene.n_late} late chats with prompts of "
        f"50, 60, "
        "… tokens and 8 of output. The machine is `cp.Roofline()`, scheduling is free, memory never runs "
        "out. "
        f"Three policies: **A** is `cp.PrefillFirst({2 * document})`, **B** is `cp.{b}`, **C** is "
        f'`cp.{b[:-1]}, order="shortest")`. True or false? You may run it: `cp.simulate(requests, policy)`.'
        f"\n\n{listed}"
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

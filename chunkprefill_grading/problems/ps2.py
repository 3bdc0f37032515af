"""PS2, scheduling: plan by hand what runs next, judge a trade-off, decide under four promises."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

from chunkprefill_course.forms.playback import Playback
from chunkprefill_grading.problems import answer_forms
from chunkprefill_grading.problems.draw import stamp, stream
from chunkprefill_grading.problems.ps2_decide import decide_question, setup_code
from chunkprefill_grading.problems.ps2_load import loads, service
from chunkprefill_grading.problems.ps2_statements import statements_question
from chunkprefill_grading.problems.sheet import Answers, Judgement, Question, Sheet, refused, tally


def plan_question(rng: random.Random) -> Question:
    """The card Q2 with drawn numbers: the short prompt does not fit into one iteration."""
    budget, n = rng.randrange(100, 8200), rng.randrange(6, 9)  # the first rows hang on it alone
    arrival = rng.randrange(2, 5)
    short = rng.randrange(budget + 2, 2 * budget - 1)
    cached = budget * rng.randrange(1, 4)
    long = cached + budget * n + rng.randrange(budget, 20 * budget)
    none = ("", "", "")
    playback = Playback(
        id="plan",
        title="",
        prompt="",
        n_long=long,
        n_cached=cached,
        n_short=short,
        arrival=arrival,
        budget=budget,
        n_iterations=n,
        wrong=(),
        hints=none,
    )

    def judge(answers: Answers) -> Judgement:
        """2 points up to the iteration in which the short request comes, 2 for the rest."""
        rows, why = plan_rows(answers.value("plan"), n)
        if why:
            return Judgement(0, why)
        played = playback.play(rows)
        kept = len(played.batches) - (played.rule not in ("", "early", "contract"))  # a broken row ran, too
        comment = f"Played: {played.said}" if played.rule else ""
        if not played.rule and len(rows) < n:
            comment = f"{len(rows)} of {n} iterations are planned."
        parts = [(2.0, kept >= arrival, comment), (2.0, kept >= n, "" if kept < arrival else comment)]
        return tally(parts, ("until the short request comes", "after it came"))

    text = (
        f"`long` is a document of {long:,} tokens; {cached} of them are cached. Before iteration {arrival} "
        f"a user "
        f"sends `short`, a prompt of {short} tokens. An iteration has room for {budget} tokens in all. Plan "
        f"the "
        f"first {n} iterations: `short` shall have its first token as early as it can, and then a token in "
        f"every "
        "iteration; whatever room that leaves belongs to `long`. An answer is a list with a dict for each "
        f"iteration: the tokens of each request that runs, such as `[{{'long': 1, 'short': 2}}, …]`."
    )
    rows = ",\n".join(f"    {row!r}".replace("'", '"') for row in playback.solution)
    return Question(
        name="plan",
        title="A short request arrives",
        kind="plan",
        text=text,
        table=(
            (f"the iterations up to {arrival}, in which the short request comes, keep every rule", 2),
            ("so do all that follow", 2),
        ),
        starter="plan = None",
        solution=f"plan = [\n{rows},\n]",
        form={"kind": "rows", "names": ["long", "short"], "n": n},
        judge=judge,
    )


def plan_rows(answer: Any, n: int) -> tuple[list[dict[str, int]], str]:
    """The rows of a plan, and "" or why it is none. NoAnswer where there is none."""
    given = answer_forms.read(answer, {"kind": "rows", "names": ["long", "short"], "n": n})
    return given.value or [], "" if given.value else refused(given).comment


def sheet(secret: str) -> Sheet:
    """PS2 as drawn from a secret."""
    shown = partial(stream, secret, "PS2", "shown")
    s = service(shown("service"))
    return Sheet(
        name="PS2",
        stamp=stamp("PS2", secret),
        title="Problem set 2: scheduling",
        intro="You plan a few iterations by hand, judge what a change of policy does, and write what "
        "decides so that four promises are kept on workloads that it has not seen. It goes with chapters 3 to 5.",
        setup=setup_code(s),
        questions=(
            plan_question(shown("plan")),
            statements_question(shown("statements")),
            decide_question(
                shown("interface"),
                s,
                loads(stream(secret, "PS2", "hidden", "loads"), s),
                loads(shown("loads"), s),
            ),
        ),
    )

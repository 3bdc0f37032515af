"""PS2, scheduling: plan by hand what runs next, judge a trade-off, write a policy of four promises."""

from __future__ import annotations

import inspect
import random
from functools import partial
from typing import Any

from chunkprefill.exercises.playback import Playback
from chunkprefill.grading.problems.draw import stream
from chunkprefill.grading.problems.ps2_load import (
    BOUNDS,
    DOCUMENTS,
    GIVEN_UP,
    WHOLE,
    Endless,
    Load,
    Service,
    loads,
    service,
)
from chunkprefill.grading.problems.ps2_policy import Owed
from chunkprefill.grading.problems.ps2_statements import statements_question
from chunkprefill.grading.problems.sheet import Answers, Question, Sheet, Verdict, kind_of, plainly, tally
from chunkprefill.grading.session import NoAnswer, Refused, SessionEnded
from chunkprefill.scheduling.core import ScheduleError

# A cell of the notebook: it shows what happened, and judges nothing.
TRIAL = """\
# Workloads to try it on; the hidden ones are others. (name, arrival in s, prompt tokens, output tokens)
stream = [
{stream}
]
row = [
{row}
]


def try_it(policy, rows):
    requests = [cp.Request(*row) for row in rows]
    trace = cp.simulate(
        requests, policy, cost=lambda batch: seconds(batch.totals().chunks, batch.totals().n_decodes)
    )
    first = cp.ttft(trace).tolist()
    chats = [t for r, t in zip(requests, first) if r.n_prompt <= {chat}]
    documents = [t for r, t in zip(requests, first) if r.n_prompt > {chat}]
    print(f"largest time between tokens: {{max(cp.tbt(trace)) * 1e3:.1f}} ms")
    print(f"latest first token: {{max(chats):.2f}} s of a chat, {{max(documents):.2f}} s of a document")
    print(f"everybody is served after {{trace.steps[-1].end:.2f}} s\\n")


for rows in (stream, row):
    try_it(cp.ChunkedPrefill(256), rows)  # put Policy() here
"""
SAID = {
    "tbt": "Time between tokens",
    "chats": "First tokens of chats",
    "documents": "First tokens of documents",
    "throughput": "The whole run",
}


def plan_question(rng: random.Random) -> Question:
    """The card Q2 with drawn numbers: the short prompt does not fit into one iteration."""
    budget, n = rng.randrange(12, 61), rng.randrange(5, 8)
    arrival = rng.randrange(2, 4)
    short = rng.randrange(budget + 2, 2 * budget - 1)
    cached = budget * rng.randrange(1, 4)
    long = cached + budget * n + rng.randrange(budget, 20 * budget)
    none = ("", "", "")
    playback = Playback(
        id="plan", title="", prompt="", n_long=long, n_cached=cached, n_short=short, arrival=arrival,
        budget=budget, n_iterations=n, wrong=(), hints=none,
    )  # fmt: skip

    def judge(answers: Answers) -> Verdict:
        """2 points up to the iteration in which the short request comes, 2 for the rest."""
        rows, why = plan_rows(answers.value("plan"), n)
        if why:
            return Verdict(0, why)
        played = playback.play(rows)
        kept = len(played.batches) - (played.rule not in ("", "early", "contract"))  # a broken row ran, too
        comment = f"Played: {played.said}" if played.rule else ""
        if not played.rule and len(rows) < n:
            comment = f"{len(rows)} of {n} iterations are planned."
        parts = [(2.0, kept >= arrival, comment), (2.0, kept >= n, "" if kept < arrival else comment)]
        return tally(parts, ("until the short request comes", "after it came"))

    text = (
        f"`long` is a document of {long:,} tokens; {cached} of them are cached. Before iteration {arrival} "
        f"somebody "
        f"sends `short`, a prompt of {short} tokens. An iteration has room for {budget} tokens in all. Plan "
        f"the "
        f"first {n} iterations: `short` shall have its first token as early as it can, and then a token in "
        f"every "
        "iteration; whatever room that leaves belongs to `long`. An answer is a list with a dict for each "
        f"iteration: the tokens of each request that runs, such as `[{{'long': {budget}}}, …]`."
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
    """The rows of a plan, and "" or why it is none."""
    if not isinstance(answer, list) or len(answer) > n:
        return [], f"A list of {n} dicts was asked for, this is a {kind_of(answer)}."
    for t, row in enumerate(answer, 1):
        if not isinstance(row, dict) or not all(name in ("long", "short") for name in row):
            return [], f"Iteration {t} is no dict of the tokens of `long` and `short`."
        if not all(type(tokens) is int and tokens >= 0 for tokens in row.values()):
            return [], f"Iteration {t}: tokens are whole numbers of at least 0."
    return answer, ""


def _rows(load: Load) -> str:
    """Requests as lines of tuples."""
    rows = [f"({r.rid}, {r.arrival}, {r.n_prompt}, {r.n_output})," for r in load.requests]
    return "\n".join("    " + " ".join(rows[i : i + 4]) for i in range(0, len(rows), 4))


def broken_rule(error: ScheduleError) -> str:
    """Which rule of the contract a plan broke, without the numbers of a hidden workload."""
    rules = {
        "pending": "a request was given more tokens than it has pending, or fewer than one",
        "empty plan": "a plan did nothing while there was work",
        "evict": "it evicted somebody who holds no cache, or for ever",
        "whole number": "tokens were no whole numbers",
        "no such request": "it planned for a request that had not arrived",
        "has finished": "it planned for a request that has finished",
    }
    return next((rule for words, rule in rules.items() if words in str(error)), "a rule of the contract")


def judge_policy(answers: Answers, hidden: list[Load]) -> Verdict:
    """3 points for each promise that holds in all hidden workloads; a run that ends early keeps none."""
    missed: dict[str, list[float]] = {name: [] for name in BOUNDS}
    for load in hidden:
        try:
            reached = load.run(answers.policy("Policy", ()))
        except (SessionEnded, NoAnswer):
            raise
        except Refused as refused:
            return _ended(plainly(refused))
        except ScheduleError as error:
            return _ended(broken_rule(error))
        except Endless:
            return _ended(
                f"it was given up when it had taken {GIVEN_UP} times as long as the course's own policy"
            )
        for name, right in load.kept(reached).items():
            if not right:
                missed[name].append(getattr(reached, name) / getattr(load.limits, name))
    parts = []
    for name, over in missed.items():
        worst = f"by a factor of {max(over, default=1):.2f} at worst"
        how = f"in {len(over)} of {len(hidden)} hidden workloads, {worst}"
        parts.append((3.0, not over, f"{SAID[name]}: over the limit {how}."))
    return tally(parts, [SAID[name].lower() for name in missed])


def _ended(why: str) -> Verdict:
    """Nothing is left to judge."""
    return Verdict(0, f"A run on one of the hidden workloads did not come to its end: {why}.", (why,))


def policy_question(s: Service, hidden: list[Load], public: list[Load]) -> Question:
    """Write `Policy`: judged outside, on workloads that nobody has seen."""
    text = (
        "Write a class `Policy` with a method `schedule(self, state)` that returns a `cp.Plan`. It is built "
        "without arguments, and run on hidden workloads with the machine above. Prompts of at most "
        f"{s.chat} tokens are **chats**, longer ones **documents**; the longest has {s.document:,} tokens. "
        "Memory never runs out. Four promises, 3 points each, each to be kept on *every* hidden workload:\n\n"
        "1. **Time between tokens.** No two tokens of one request are more than "
        f"{s.tbt * 1e3:g} ms apart (2% more is let pass).\n"
        f"2. **Chats.** Every chat has its first token within {s.ttft:g} s of its arrival, however many "
        "documents wait.\n"
        f"3. **Documents.** While a document waits, documents are owed {s.owed:.0%} of the time that a step "
        f"of {s.tbt * 1e3:g} ms has left when its fixed part and its decodes are paid, even if chats keep "
        "coming. Beyond that chats go first, and within each class whoever came first. The latest first "
        f"token of a document may take at most {DOCUMENTS:g} times as long as with the course's own policy, "
        "which does just that.\n"
        f"4. **The whole run.** Everybody is served within {WHOLE:g} times what the course's own policy "
        "needs.\n\nA plan that breaks the contract on any hidden workload, or a run that takes "
        f"{GIVEN_UP} times as long, earns nothing for this question. A policy sees `state.now`, "
        "`state.waiting`, `state.running`, and of each sequence `rid`, `arrival`, `n_prompt`, `known`, "
        "`cached`, `pending` and `decoding`. It sees neither output lengths nor who is still to come, and "
        "runs in a process of its own, one state at a time."
    )
    constants = f"TBT, TTFT, CHAT, OWED = {s.tbt}, {s.ttft}, {s.chat}, {s.owed}"
    source = inspect.getsource(Owed)
    solution = (
        f"from dataclasses import dataclass\nfrom typing import Any\n\nfrom chunkprefill import "
        f"Plan\n\n{constants}"
        f"\n\n\n{source}\n\ndef Policy():\n    return Owed(TBT, BASE, TOKEN, PAIR, DECODE, CHAT, OWED)"
    )
    trial = TRIAL.format(chat=s.chat, **{load.name: _rows(load) for load in public})
    return Question(
        name="Policy",
        title="A policy that keeps four promises",
        kind="policy",
        text=text,
        table=tuple((f"{SAID[name].lower()}: kept on every hidden workload", 3) for name in BOUNDS),
        starter=f"{constants}\n\n\nclass Policy:\n    def schedule(self, state):\n        raise "
        f"NotImplementedError",
        solution=solution,
        form={"kind": "policy"},
        judge=lambda answers: judge_policy(answers, hidden),
        public=trial,
    )


def setup(s: Service) -> str:
    """The machine as code, for the notebook."""
    m = s.machine
    return (
        f"BASE = {m.base}  # s: the fixed part of a step\n"
        f"TOKEN = {m.token}  # s for each token of a chunk\n"
        f"PAIR = {m.pair}  # s for each query-key pair of a chunk\n"
        f"DECODE = {m.decode}  # s for each decode\n\n\n"
        "def seconds(chunks, n_decodes):\n"
        '    """Seconds of a step that runs chunks [(cached, length), ...] beside n_decodes decodes."""\n'
        "    tokens = sum(length for _, length in chunks)\n"
        "    pairs = sum(length * (cached + length / 2) for cached, length in chunks)\n"
        "    return BASE + TOKEN * tokens + PAIR * pairs + DECODE * n_decodes"
    )


def sheet(secret: str) -> Sheet:
    """PS2 as drawn from a secret."""
    shown = partial(stream, secret, "PS2", "shown")
    s = service(shown("service"))
    return Sheet(
        name="PS2",
        title="Problem set 2: scheduling",
        intro="You plan a few iterations by hand, judge what a change of policy does, and write a policy "
        "that keeps "
        "four promises on workloads that it has not seen. It goes with chapters 3 to 5.",
        setup=setup(s),
        questions=(
            plan_question(shown("plan")),
            statements_question(shown("statements")),
            policy_question(s, loads(stream(secret, "PS2", "hidden", "loads"), s), loads(shown("loads"), s)),
        ),
    )

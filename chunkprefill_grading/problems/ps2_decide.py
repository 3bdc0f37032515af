"""PS2's third question: decide who gets how many tokens, asked for in a form that the secret draws."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from chunkprefill.scheduling.core import Plan, ScheduleError
from chunkprefill_grading.problems import answer_forms
from chunkprefill_grading.problems.ps2_load import (
    BOUNDS,
    DOCUMENTS,
    GIVEN_UP,
    WHOLE,
    BoundedWorkload,
    Endless,
    Service,
)
from chunkprefill_grading.problems.sheet import Answers, Judgement, Question, tally
from chunkprefill_grading.problems.texts import fill
from chunkprefill_grading.sandbox.session import BadAnswer, NoAnswer, Refused, SessionEnded
from chunkprefill_grading.sandbox.wire import FORMS

POINTS = {"tbt": 1.0, "chats": 3.0, "documents": 4.0, "throughput": 4.0}
SAID = {
    "tbt": "Time between tokens",
    "chats": "First tokens of chats",
    "documents": "First tokens of documents",
    "throughput": "The whole run",
}
ARGUMENTS = ("prompts", "n_decodes", "now")
#: what a row says of a prompt: one of each pair, in a drawn order
FIELDS = {
    "name": "its name, a whole number",
    "n_prompt": "tokens of the whole prompt",
    "arrival": "s, when it came",
    "waited": "s since it came",
    "cached": "tokens of it that are cached",
    "pending": "tokens of it that are still to run, at least 1",
    "begun": "1 where a part of it has run, else 0",
    "rank": "how many of these prompts came before it",
}
#: the last two say nothing that the others do not: they vary what stands where
CHOICES = (("name",), ("n_prompt",), ("arrival", "waited"), ("cached", "pending"), ("begun",), ("rank",))
RETURNS = {
    "list": "a list with a whole number for each row, in the order of the rows: its tokens in this step, or 0",
    "dict": "a dict of the prompts that run in this step: their tokens by their names",
    "pairs": "a list of pairs `(tokens, name)` of the prompts that run in this step",
}


@dataclass(frozen=True)
class Interface:
    """How `decide` is called, and what it returns."""

    signature: tuple[str, ...]
    fields: tuple[str, ...]
    returns: str  # of RETURNS


def interface(rng: random.Random) -> Interface:
    """One of 51,840."""
    fields = [rng.choice(pair) for pair in CHOICES]
    signature = rng.sample(ARGUMENTS, len(ARGUMENTS))
    return Interface(tuple(signature), tuple(rng.sample(fields, len(fields))), rng.choice(list(RETURNS)))


class Decisions:
    """A policy that asks `decide`; every decode runs in every step."""

    def __init__(self, answers: Answers, form: Interface) -> None:
        self.answers, self.form = answers, form

    def schedule(self, state: Any) -> Plan:
        """The plan, or BadAnswer."""
        tokens = {seq.rid: 1 for seq in state.running if seq.decoding}
        seqs = [seq for seq in (*state.running, *state.waiting) if not seq.decoding]
        seqs.sort(key=lambda seq: seq.rid)  # names are drawn: who relies on the order of rows is found out
        rows = [self.row(seq, seqs, state.now) for seq in seqs]
        sent = {"prompts": rows, "n_decodes": len(tokens), "now": state.now}
        back = self.answers.call("decide", [sent[name] for name in self.form.signature])
        for name, n in self.pairs(back, [seq.rid for seq in seqs]):
            tokens[name] = n
        return Plan(tokens)

    def row(self, seq: Any, seqs: list[Any], now: float) -> list[Any]:
        """What is told of a prompt among all that wait."""
        told = {
            "name": seq.rid,
            "n_prompt": seq.n_prompt,
            "arrival": seq.arrival,
            "waited": now - seq.arrival,
            "cached": seq.cached,
            "pending": seq.pending,
            "begun": int(seq.cached > 0),
            "rank": sum(other.arrival < seq.arrival for other in seqs),
        }
        return [told[name] for name in self.form.fields]

    def pairs(self, back: Any, names: list[Any]) -> list[tuple[Any, int]]:
        """(name, tokens) of the prompts that run, from an answer in the drawn form."""
        rows: list[Any]
        if self.form.returns == "list":
            rows = list(zip(names, back)) if isinstance(back, list) and len(back) == len(names) else [None]
        elif self.form.returns == "dict":
            rows = list(back.items()) if isinstance(back, dict) else [None]
        else:
            rows = (
                [row[::-1] if isinstance(row, list) else None for row in back]
                if isinstance(back, list)
                else [None]
            )
        known, made = set(names), []
        for row in rows:
            if not isinstance(row, list | tuple) or len(row) != 2:
                raise BadAnswer("decide", FORMS["decision"])
            name, n = map(answer_forms.as_whole, row)
            if name not in known or n is None or n < 0:
                raise BadAnswer("decide", FORMS["decision"])
            known.remove(name)
            if n:
                made.append((name, n))
        return made


def judge_decide(answers: Answers, hidden: list[BoundedWorkload], form: Interface) -> Judgement:
    """Points for each promise that holds in all hidden workloads, the later ones only with the first.

    A run that ends early keeps none.
    """
    missed: dict[str, list[float]] = {name: [] for name in BOUNDS}
    for load in hidden:
        try:
            reached = load.run(Decisions(answers, form))
        except (SessionEnded, NoAnswer):
            raise
        except Refused as refused:
            return _ended(refused.why)
        except ScheduleError as error:
            return _ended(broken_rule(error))
        except Endless:
            return _ended(f"it was given up at {GIVEN_UP} times the time of the course's own policy")
        for name, right in load.kept(reached).items():
            if not right:
                missed[name].append(getattr(reached, name) / getattr(load.limits, name))
    parts = []
    for name, over in missed.items():
        why = f"{SAID[name]}: over the limit in {len(over)} of {len(hidden)} hidden workloads, {far(over)}."
        if not over and missed["tbt"]:
            why = f"{SAID[name]}: kept, and it counts only with the first promise."
        parts.append((POINTS[name], not over and not missed["tbt"], why))
    return tally(parts, [SAID[name].lower() for name in missed])


def far(over: list[float]) -> str:
    """How far, in three steps: an exact factor would tell of hidden workloads whatever a program likes."""
    worst = max(over, default=1.0)
    return (
        "by less than a tenth" if worst < 1.1 else "by less than half" if worst < 1.5 else "by more than half"
    )


def _ended(why: str) -> Judgement:
    """Nothing is left to judge."""
    return Judgement(0, f"A run on one of the hidden workloads did not come to its end: {why}.", (why,))


def broken_rule(error: ScheduleError) -> str:
    """Which rule of the contract a plan broke, without the numbers of a hidden workload."""
    rules = {
        "pending": "a request was given more tokens than it has pending, or fewer than one",
        "empty plan": "nothing ran while there was work",
    }
    return next((rule for words, rule in rules.items() if words in str(error)), "a rule of the contract")


def decide_question(
    rng: random.Random, s: Service, hidden: list[BoundedWorkload], public: list[BoundedWorkload]
) -> Question:
    """Write `decide`: judged outside, on workloads that no student has seen."""
    form = interface(rng)
    signature = ", ".join(form.signature)
    constants = f"TBT, TTFT, CHAT, OWED = {s.tbt}, {s.ttft}, {s.chat}, {s.owed}"
    text = fill(
        "decide",
        signature=signature,
        chat=s.chat,
        document=f"{s.document:,}",
        row=", ".join(form.fields),
        fields="\n".join(f"  - `{name}`: {FIELDS[name]}" for name in form.fields),
        returns=RETURNS[form.returns],
        tbt=f"{s.tbt * 1e3:g}",
        ttft=f"{s.ttft:g}",
        owed=f"{s.owed:.0%}",
        documents=f"{DOCUMENTS:g}",
        whole=f"{WHOLE:g}",
        given_up=GIVEN_UP,
    )
    shown = {load.name: _rows(load) for load in public}
    adapter = fill(
        "adapter", row=", ".join(_ROW[name] for name in form.fields), call=signature, plan=_PLAN[form.returns]
    )
    return Question(
        name="decide",
        title="Decide, and keep four promises",
        kind="policy",
        text=text,
        table=tuple(
            (f"{SAID[name].lower()}: kept on every hidden workload", POINTS[name]) for name in BOUNDS
        ),
        starter=f"{constants}\n\n\ndef decide({signature}):\n    raise NotImplementedError",
        solution=f"{constants}\n\n\n{solution(s, form)}",
        form={
            "kind": "decisions",
            "signature": list(form.signature),
            "fields": list(form.fields),
            "returns": form.returns,
        },
        judge=lambda answers: judge_decide(answers, hidden, form),
        public=fill("trial", adapter=adapter, chat=s.chat, stream=shown["stream"], row=shown["row"]),
    )


def _rows(load: BoundedWorkload) -> str:
    """Requests as lines of tuples."""
    rows = [f"({r.rid}, {r.arrival}, {r.n_prompt}, {r.n_output})," for r in load.requests]
    return "\n".join("    " + " ".join(rows[i : i + 4]) for i in range(0, len(rows), 4))


_ROW = {
    "name": "s.rid",
    "n_prompt": "s.n_prompt",
    "arrival": "s.arrival",
    "waited": "now - s.arrival",
    "cached": "s.cached",
    "pending": "s.pending",
    "begun": "int(s.cached > 0)",
    "rank": "sum(other.arrival < s.arrival for other in seqs)",
}
_PLAN = {
    "list": "{s.rid: n for s, n in zip(seqs, back) if n}",
    "dict": "dict(back)",
    "pairs": "{name: n for n, name in back}",
}
_PRICES = {
    "plain": "TOKEN * n + PAIR * n * (cached + n / 2)",
    "tiles": "TOKEN * TILE * -(-n // TILE) + PAIR * n * (cached + n / 2)",
    "launches": "LAUNCH + TOKEN * n + PAIR * n * (cached + n / 2)",
}


def form_of(s: Service) -> str:
    """Which form the machine's prices have."""
    return "tiles" if s.machine.tile > 1 else "launches" if s.machine.launch else "plain"


def solution(s: Service, form: Interface) -> str:
    """`decide` in the drawn form."""
    return fill(
        "solution",
        price=_PRICES[form_of(s)],
        signature=", ".join(form.signature),
        fields=", ".join(form.fields),
        age="-waited" if "waited" in form.fields else "arrival",
        cached="cached" if "cached" in form.fields else "n_prompt - pending",
        returned={
            "list": "[given.get(row[NAME], 0) for row in prompts]".replace(
                "NAME", str(form.fields.index("name"))
            ),
            "dict": "given",
            "pairs": "[(n, name) for name, n in given.items()]",
        }[form.returns],
    )


def setup_code(s: Service) -> str:
    """The machine as code, for the notebook."""
    m, kind = s.machine, form_of(s)
    more = {
        "plain": "",
        "tiles": f"TILE = {m.tile}  # tokens: a chunk pays TOKEN for whole tiles\n",
        "launches": f"LAUNCH = {m.launch}  # s for each chunk\n",
    }[kind]
    return fill(
        "machine", base=m.base, token=m.token, pair=m.pair, decode=m.decode, more=more, price=_PRICES[kind]
    )

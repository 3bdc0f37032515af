"""PS3's case (a variant of the card Q6): a slow server's records, its fault, and a fix that is replayed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import Any

import numpy as np

from chunkprefill.analysis.events import Events
from chunkprefill.analysis.overtime import tokens_by_kind
from chunkprefill.exercises import clinic
from chunkprefill.exercises.clinic.server import WORDS
from chunkprefill.grading.problems.draw import pick
from chunkprefill.grading.problems.sheet import Answers, Question, Verdict, as_number, kind_of, numbers_right
from chunkprefill.scheduling.core import ScheduleError

N_RECORDS = 500  # steps that are shown of a run
ASKED = {
    "step_p50_ms": ("step_p50", "GPU time of a step, P50, ms"),
    "step_p99_ms": ("step_p99", "GPU time of a step, P99, ms"),
    "prompt_steps": ("prompt_steps", "share of the steps that carry prompt tokens, 0 to 1"),
    "prompt_tokens": ("prompt_tokens", "prompt tokens in a step that carries any, P50"),
    "prompt_step_tokens": ("prompt_step_tokens", "all tokens in a step that carries prompt tokens, P50"),
    "decodes": ("decodes", "decodes in a step that has any, mean"),
    "cpu_step_ms": ("cpu_step", "CPU time before a step, P50, ms"),
    "gpu_idle": ("gpu_idle", "share of time in which the GPU waits for the CPU, 0 to 1: a step begins with "
    "its "
                 "CPU time, and its GPU time follows"),
}  # fmt: skip
COUNTS = {"token_budget": (16, 65_536), "chunk": (16, 65_536), "n_blocks": (16, 1_000_000)}
TOLERANCE = 0.03


@dataclass(frozen=True)
class Records:
    """A clinic's case, and what a student is shown of it."""

    case: clinic.Case

    @cached_property
    def rows(self) -> list[tuple[float, float, int, int]]:
        """Of every k-th step: GPU ms, CPU ms, decodes, prompt tokens."""
        e = Events.of(self.case.trace)
        kinds = tokens_by_kind(e)
        gpu, cpu = 1e3 * (e.end - e.start), 1e3 * (e.dispatched - e.scheduled)
        prompts = kinds["prefill"] + kinds["recompute"]
        every = max(1, len(gpu) // N_RECORDS)
        columns = (gpu.round(2), cpu.round(3), kinds["decode"], prompts)
        picked = [np.asarray(column)[::every].tolist() for column in columns]
        return [(g, c, int(d), int(p)) for g, c, d, p in zip(*picked)]

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The numbers that are asked for, from these records alone."""
        gpu, cpu, decodes, prompts = (np.array(column, float) for column in zip(*self.rows))
        carry = prompts > 0
        return {
            "step_p50_ms": float(np.quantile(gpu, 0.5)),
            "step_p99_ms": float(np.quantile(gpu, 0.99)),
            "prompt_steps": float(carry.mean()),
            "prompt_tokens": float(np.quantile(prompts[carry], 0.5)),
            "prompt_step_tokens": float(np.quantile((prompts + decodes)[carry], 0.5)),
            "decodes": float(decodes[decodes > 0].mean()),
            "cpu_step_ms": float(np.quantile(cpu, 0.5)),
            "gpu_idle": float(cpu.sum() / (cpu.sum() + gpu.sum())),
        }

    def given(self) -> str:
        """The records as a cell, with what else is known as comments."""
        lines = [" ".join(f"({g:g}, {c:g}, {d}, {p})," for g, c, d, p in self.rows[i : i + 4])
                 for i in range(0, len(self.rows), 4)]  # fmt: skip
        settings = {
            name: getattr(self.case.settings, name) for name in COUNTS
        }  # how it schedules, steps tell
        return (
            "# (GPU time in ms, CPU time before it in ms, decodes, prompt tokens), a step each\n"
            "steps = [\n"
            + "\n".join(f"    {line}" for line in lines)
            + f"\n]\n\nsettings = {settings!r}".replace("'", '"')
        )

    def dashboard(self) -> str:
        """What the engine itself reports: every row but those that are asked for."""
        asked = {row for row, _ in ASKED.values()}
        board, out = self.case.dashboard, []
        for row in clinic.ROWS:
            if row not in asked and not isnan(board.values[row]):
                bound = f"; promised: {board.promise(row)}" if row in board.bounds else ""
                out.append(f"| {board.words(row)}{bound} | {board.say(row)} |")
        return "| the engine reports | |\n|---|---|\n" + "\n".join(out)


def vars_of(settings: clinic.Settings) -> dict[str, Any]:
    """Settings by name."""
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def fixed(case: clinic.Case, answer: Any) -> Verdict:
    """5 points for a change of one setting under which every promise is kept; 2 for half of the way."""
    now = vars_of(case.settings)
    changed, why = change(now, answer)
    if why:
        return Verdict(0, why)
    try:
        replay = case.replay(**changed)
    except (ScheduleError, ValueError):
        return Verdict(0, "With this setting the server could never serve some request.", ("it cannot run",))
    if replay.restored:
        return Verdict(5)
    before, after = (
        max(board.values[row] / bound for row, bound in board.bounds.items()) - 1
        for board in (replay.before, replay.after)
    )
    moved = f"the promise that fares worst was missed by {before:.0%} before, and is by {after:.0%} now"
    if after <= before / 2:
        return Verdict(2, f"Replayed: it helps, and not enough; {moved}.", ("helps, and not enough",))
    return Verdict(0, f"Replayed: it does not mend it; {moved}.", ("does not mend it",))


def change(now: dict[str, Any], answer: Any) -> tuple[dict[str, Any], str]:
    """The one setting that an answer changes, and "" or why it is none."""
    if not isinstance(answer, dict):
        return {}, f"A dict with one setting was asked for, this is a {kind_of(answer)}."
    if strange := [name for name in answer if name not in now]:
        return {}, f"There is no setting {str(strange[0])[:30]!r}."
    changed = {name: value for name, value in answer.items() if value != now[name]}
    if len(changed) != 1:
        return {}, f"One setting is to be changed, this changes {len(changed)}."
    ((name, value),) = changed.items()
    if name in COUNTS:
        least, most = COUNTS[name]
        if as_number(value) is None or value != int(value) or not least <= value <= most:
            return {}, f"`{name}` is a whole number from {least} to {most:,}."
        return {name: int(value)}, ""
    words = WORDS[name]
    return ({name: value}, "") if value in words else ({}, f"`{name}` is one of {', '.join(words)}.")


def drawn(seed: str, fault: str) -> clinic.Case:
    """A case that one change mends, looked up and not believed: full points must be within reach."""
    for attempt in range(20):
        case = clinic.case(f"{seed} {attempt}", fault)
        changes = case.changes(case.right_fix)
        if len(changes) == 1 and fixed(case, changes).points == 5:
            return case
    raise RuntimeError(f"no case of {fault} that one change of settings mends, in 20 draws")


def case_questions(shown: Callable[[str], random.Random]) -> list[Question]:
    """Numbers, fault and fix of one drawn case."""
    rng = shown("case")
    case = drawn(f"{rng.getrandbits(128):032x}", rng.choice(list(clinic.FAULTS)))
    records = Records(case)
    letters = "abcdefghi"
    dealt = dict(zip(letters, pick(rng, list(clinic.CAUSES), len(clinic.CAUSES))))
    (right,) = [letter for letter, cause in dealt.items() if cause == case.cause]

    def fault(answers: Answers) -> Verdict:
        """1 point: to name it is the least part of a diagnosis."""
        answer = answers.value("fault")
        if not isinstance(answer, str) or answer.strip().lower() not in dealt:
            return Verdict(
                0, f"One of the letters {letters[0]} to {letters[-1]} was asked for.", ("no letter",)
            )
        if answer.strip().lower() == right:
            return Verdict(1)
        return Verdict(0, "The records and the engine's report speak against it.", ("another fault",))

    numbers = "\n".join(f"- `{name}`: {words}" for name, (_, words) in ASKED.items())
    about = case.about().replace("\n", "\n- ")
    text = (
        f"A server does not keep its promises:\n\n- {about}\n\n{records.dashboard()}\n\nThe cell below has "
        f"{len(records.rows)} of its steps, taken evenly over the run. Percentiles are those of "
        f"`numpy.quantile`, "
        f"without options; {TOLERANCE:.0%} off is near enough. Fill in, from these steps:\n\n{numbers}"
    )
    right_numbers = {name: float(f"{value:.6g}") for name, value in records.numbers.items()}
    changes = case.changes(case.right_fix)
    settings = ", ".join(f"`{name}`" for name in vars_of(case.settings))
    return [
        Question(
            name="report",
            title="A slow server: its numbers",
            kind="numbers",
            text=text,
            given=records.given(),
            table=tuple((f"`{name}`", 0.5) for name in ASKED),
            starter="report = {\n" + "".join(f'    "{name}": None,\n' for name in ASKED) + "}",
            solution="report = {\n" + "".join(f'    "{n}": {v},\n' for n, v in right_numbers.items()) + "}",
            form={"kind": "numbers", "names": list(ASKED)},
            judge=lambda answers: numbers_right(
                answers.value("report"), records.numbers, 0.5, tolerance=TOLERANCE
            ),
        ),
        Question(
            name="fault",
            title="A slow server: its fault",
            kind="choice",
            text="Which of these is it?\n\n"
            + "\n".join(f"- `{letter}`: {clinic.CAUSES[cause]}" for letter, cause in dealt.items()),
            table=(("the fault", 1),),
            starter="fault = None",
            solution=f'fault = "{right}"',
            form={"kind": "choice", "of": list(dealt)},
            judge=fault,
        ),
        Question(
            name="fix",
            title="A slow server: the fix",
            kind="fix",
            text=f"Change **one** setting of {settings}, as a dict such as `{{'n_blocks': 5000}}`. The same "
            "requests are served again on the same machine with your change. `first` is who goes first, "
            "`decodes` or `prompts`; `order` is the order of prompts, `arrival` or `shortest`; `inputs` is "
            "how "
            "the CPU builds a step, `at once` or `row by row`; `chunk` is the most prompt tokens a step.",
            table=(
                ("the worst of the broken promises comes at least half of the way back", 2),
                ("every promise is kept", 3),
            ),
            starter="fix = None",
            solution=f"fix = {changes!r}".replace("'", '"'),
            form={"kind": "settings", "names": list(vars_of(case.settings))},
            judge=lambda answers: fixed(case, answers.value("fix")),
        ),
    ]  # fmt: skip

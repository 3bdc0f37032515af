"""PS3's case (a variant of the card Q6): a slow server's records, its fault, and a fix that is replayed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import Any

import numpy as np

from chunkprefill.metrics.events import Events
from chunkprefill.metrics.overtime import tokens_by_kind
from chunkprefill.scheduling.core import ScheduleError
from chunkprefill_course import clinic
from chunkprefill_course.clinic.server import WORDS
from chunkprefill_grading.problems import answer_forms
from chunkprefill_grading.problems.draw import labels, pick
from chunkprefill_grading.problems.sheet import Answers, Judgement, Question, chosen, numbers_right, refused
from chunkprefill_grading.problems.texts import fill

N_RECORDS = 500  # steps that are shown of a run
#: What may be asked of the records: the row of the dashboard that tells it, and what it is a statistic of.
ASKED = {
    "step_ms": ("step_p50", "GPU time of a step, ms"),
    "slow_step_ms": ("step_p99", "GPU time of a step, ms"),
    "prompt_steps": ("prompt_steps", "share of the steps that carry prompt tokens, 0 to 1"),
    "prompt_tokens": ("prompt_tokens", "prompt tokens in a step that carries any"),
    "prompt_step_tokens": ("prompt_step_tokens", "all tokens in a step that carries prompt tokens"),
    "decodes": ("decodes", "decodes in a step that has any"),
    "cpu_step_ms": ("cpu_step", "CPU time before a step, ms"),
    "gpu_idle": (
        "gpu_idle",
        "share of time in which the GPU waits for the CPU, 0 to 1: a step begins with its CPU time, and its "
        "GPU time follows",
    ),
}
COUNTS = {"token_budget": (16, 65_536), "chunk": (16, 65_536), "n_blocks": (16, 1_000_000)}
TOLERANCE = 1e-4  # relative: two of eight numbers of another draw are not within it by chance


@dataclass(frozen=True)
class Records:
    """A clinic's case, and what a student is shown of it."""

    case: clinic.Case
    levels: tuple[float, float, float] = (0.5, 0.99, 0.5)  # quantiles that are asked for

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

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers that are asked for, from these records alone."""
        gpu, cpu, decodes, prompts = (np.array(column, float) for column in zip(*self.rows))
        carry = prompts > 0
        return {
            "step_ms": float(np.quantile(gpu, self.levels[0])),
            "slow_step_ms": float(np.quantile(gpu, self.levels[1])),
            "prompt_steps": float(carry.mean()),
            "prompt_tokens": float(prompts[carry].mean()),
            "prompt_step_tokens": float((prompts + decodes)[carry].mean()),
            "decodes": float(decodes[decodes > 0].mean()),
            "cpu_step_ms": float(np.quantile(cpu, self.levels[2])),
            "gpu_idle": float(cpu.sum() / (cpu.sum() + gpu.sum())),
        }

    def words(self, name: str) -> str:
        """What `name` asks for."""
        statistics = {"prompt_tokens": "mean", "prompt_step_tokens": "mean", "decodes": "mean"}
        for quantile, level in zip(("step_ms", "slow_step_ms", "cpu_step_ms"), self.levels):
            statistics[quantile] = f"the {level:g} quantile"
        return ", ".join(filter(None, (ASKED[name][1], statistics.get(name, ""))))

    def given(self) -> str:
        """The records as a cell, with what else is known as comments."""
        lines = [
            " ".join(f"({g:g}, {c:g}, {d}, {p})," for g, c, d, p in self.rows[i : i + 4])
            for i in range(0, len(self.rows), 4)
        ]
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


def fixed(case: clinic.Case, answer: Any, labelled: dict[str, str] | None = None) -> Judgement:
    """5 points for a change of one setting under which every promise is kept; 2 for half of the way.

    labelled: settings by the labels of the answer; None: by their own names.
    """
    now = vars_of(case.settings)
    changed, why = change(now, answer, labelled or {name: name for name in now})
    if why:
        return Judgement(0, why)
    try:
        replay = case.replay(**changed)
    except (ScheduleError, ValueError):
        return Judgement(
            0, "With this setting the server could never serve some request.", ("it cannot run",)
        )
    if replay.restored:
        return Judgement(5)
    before, after = (
        max(board.values[row] / bound for row, bound in board.bounds.items()) - 1
        for board in (replay.before, replay.after)
    )
    moved = f"the promise that fares worst was missed by {before:.0%} before, and is by {after:.0%} now"
    if after <= before / 2:
        return Judgement(2, f"Replayed: it helps, and not enough; {moved}.", ("helps, and not enough",))
    return Judgement(0, f"Replayed: it does not mend it; {moved}.", ("does not mend it",))


def change(now: dict[str, Any], answer: Any, labelled: dict[str, str]) -> tuple[dict[str, Any], str]:
    """The one setting that an answer changes, and "" or why it is none. labelled: settings by label."""
    given = answer_forms.read(answer, settings_form(labelled))
    if given.value is None:
        return {}, refused(given).comment
    named = {labelled[label]: value for label, value in given.value.items()}
    changed = {name: value for name, value in named.items() if value != now[name]}
    if len(changed) != 1:
        return {}, f"One setting is to be changed, this changes {len(changed)}."
    return changed, ""


def settings_form(labelled: dict[str, str]) -> dict[str, Any]:
    """How a fix is read: its settings by their labels, and what each may be."""
    return {
        "kind": "settings",
        "names": list(labelled),
        "ranges": {label: list(COUNTS[name]) for label, name in labelled.items() if name in COUNTS},
        "words": {label: list(WORDS[name]) for label, name in labelled.items() if name in WORDS},
    }


def drawn(seed: str, fault: str) -> clinic.Case:
    """A case that one change mends, looked up and not believed: full points must be within reach."""
    for attempt in range(20):
        case = clinic.case(f"{seed} {attempt}", fault)
        changes = case.changes(case.right_fix)
        if len(changes) == 1 and fixed(case, changes).points == 5:
            return case
    raise RuntimeError(f"no case of {fault} that one change of settings mends, in 20 draws")


ABOUT = {
    "first": "who goes first",
    "order": "the order of prompts",
    "inputs": "how the CPU builds a step",
    "launching": "how the CPU launches a step's kernels",
    "token_budget": "the most tokens of a step",
    "chunk": "the most prompt tokens of a step",
    "n_blocks": "blocks of the cache",
}


def case_questions(shown: Callable[[str], random.Random]) -> list[Question]:
    """Numbers, fault and fix of one drawn case."""
    rng = shown("case")
    case = drawn(f"{rng.getrandbits(128):032x}", rng.choice(list(clinic.FAULTS)))
    levels = [round(rng.uniform(*span), 2) for span in ((0.25, 0.75), (0.9, 0.99), (0.25, 0.75))]
    records = Records(case, (levels[0], levels[1], levels[2]))
    return [
        report_question(records),
        fault_question(rng, case),
        fix_question(rng, case),
    ]


def report_question(records: Records) -> Question:
    """Eight numbers, from the records alone."""
    right = {name: float(f"{value:.7g}") for name, value in records.numbers.items()}
    text = fill(
        "report",
        about=records.case.about().replace("\n", "\n- "),
        dashboard=records.dashboard(),
        n_records=len(records.rows),
        tolerance=f"{TOLERANCE:.2%}",
        asked="\n".join(f"- `{name}`: {records.words(name)}" for name in ASKED),
    )
    return Question(
        name="report",
        title="A slow server: its numbers",
        kind="numbers",
        text=text,
        given=records.given(),
        table=tuple((f"`{name}`", 0.5) for name in ASKED),
        starter="report = {\n" + "".join(f'    "{name}": None,\n' for name in ASKED) + "}",
        solution="report = {\n" + "".join(f'    "{name}": {v},\n' for name, v in right.items()) + "}",
        form={"kind": "numbers", "names": list(ASKED)},
        judge=lambda answers: numbers_right(
            answers.value("report"), records.numbers, 0.5, tolerance=TOLERANCE
        ),
    )


def fault_question(rng: random.Random, case: clinic.Case) -> Question:
    """Which cause it is: a label of the draw's own."""
    causes = pick(rng, list(clinic.CAUSES), len(clinic.CAUSES))
    dealt = dict(zip(labels(rng, len(causes)), causes))
    (right,) = [label for label, cause in dealt.items() if cause == case.cause]

    def fault(answers: Answers) -> Judgement:
        """1 point: to name it is the least part of a diagnosis."""
        answer, why = chosen(answers.value("fault"), list(dealt))
        if why:
            return Judgement(0, why, ("no label",))
        if answer == right:
            return Judgement(1)
        return Judgement(0, "The records and the engine's report speak against it.", ("another fault",))

    listed = "\n".join(f"- `{label}`: {clinic.CAUSES[cause]}" for label, cause in dealt.items())
    return Question(
        name="fault",
        title="A slow server: its fault",
        kind="choice",
        text=f"Which of these is it? Answer with its label.\n\n{listed}",
        table=(("the fault", 1),),
        starter="fault = None",
        solution=f'fault = "{right}"',
        form={"kind": "choice", "of": list(dealt)},
        judge=fault,
    )


def fix_question(rng: random.Random, case: clinic.Case) -> Question:
    """One setting to change, by a label of the draw's own; it is replayed."""
    names = pick(rng, list(vars_of(case.settings)), len(vars_of(case.settings)))
    settings = dict(zip(labels(rng, len(names)), names))
    label_of = {name: label for label, name in settings.items()}
    changes = {label_of[name]: value for name, value in case.changes(case.right_fix).items()}
    return Question(
        name="fix",
        title="A slow server: the fix",
        kind="fix",
        text=fill("fix", rows="\n".join(_setting(label, name) for label, name in settings.items())),
        table=(
            ("the worst of the broken promises comes at least half of the way back", 2),
            ("every promise is kept", 3),
        ),
        starter="fix = None",
        solution=f"fix = {changes!r}".replace("'", '"'),
        form=settings_form(settings),
        judge=lambda answers: fixed(case, answers.value("fix"), settings),
    )


def _setting(label: str, name: str) -> str:
    """A row of the table of settings."""
    if name in COUNTS:
        least, most = COUNTS[name]
        values = f"a whole number from {least} to {most:,}"
    else:
        values = " or ".join(f"`{word}`" for word in WORDS[name])
    return f"| `{label}` | {ABOUT[name]} (`{name}`) | {values} |"

"""What is said to a diagnosis: the evidence against a wrong one, and the replay of a fix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import isnan
from typing import Any, Protocol

from chunkprefill_course.clinic.faults import CAUSES, FIX_FOR, HEALTHY, NOTHING, REMEDIES, TELLING
from chunkprefill_course.clinic.replay import Replay
from chunkprefill_course.clinic.rows import ROWS, Dashboard, say
from chunkprefill_course.clinic.server import Settings
from chunkprefill_course.forms.feedback import Feedback


class JudgedCase(Protocol):
    """What a verdict asks of a case: see `clinic.Case`."""

    @property
    def cause(self) -> str: ...
    @property
    def causes(self) -> tuple[str, ...]: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def dashboard(self) -> Dashboard: ...
    @property
    def mended(self) -> Dashboard: ...
    def tells(self) -> tuple[str, ...]: ...
    def changes(self, fix: str) -> dict[str, object]: ...
    def replay(self, **changes: Any) -> Replay: ...


def check(case: JudgedCase, cause: object, evidence: object, fix: object) -> Feedback:
    """See `Case.check`."""
    if cause is None or cause is ...:
        return Feedback(ok=None, message=f"Name a cause: one of {_keys(CAUSES)}.")
    causes = [cause] if isinstance(cause, str) else _names(cause) or [_short(cause)]
    if unknown := [each for each in causes if each not in CAUSES]:
        said = f"There is no cause {_short(unknown[0])}; name one of {_keys(CAUSES)}."
        return Feedback(ok=None, message=said)
    if others := [each for each in causes if each not in case.causes]:
        return Feedback(ok=False, message=against(case, others[0]))
    if set(causes) != set(case.causes):
        alone = _idle_fix(case, FIX_FOR[causes[0]])
        said = f"That is one of two things that are wrong. {alone} What else is it? Name both."
        return Feedback(ok=None, message=said)
    rows = _names(evidence)
    if rows is None:
        return Feedback(
            ok=None,
            message="That is the cause. Which rows of the dashboard show it? Name them "
            "by their keys, such as `evidence=['step_p50']`.",
        )
    if wrong := evidence_against(case, rows):
        return Feedback(ok=False, message=f"That is the cause, but not the evidence for it: {wrong}")
    shown = " ".join(f"`{row}`: {case.dashboard.words(row)}, {case.dashboard.say(row)}." for row in rows)
    if unshown := [each for each in case.causes if not set(rows) & set(TELLING[each])]:
        return Feedback(
            ok=None, message=f"{shown} That shows one of the two. Which row shows `{unshown[0]}`?"
        )
    if fix is None or fix is ...:
        return Feedback(
            ok=None,
            message=f"That is the cause, and these rows show it. {shown} Now choose a "
            f"fix: one of {_keys(REMEDIES)}, or settings of your own.",
        )
    return _fixed(case, shown, fix)


def _fixed(case: JudgedCase, shown: str, fix: object) -> Feedback:
    try:
        if isinstance(fix, Mapping):
            changes = {str(name): value for name, value in fix.items()}
        else:
            changes = {}
            for each in _names(fix) or [_short(fix)]:
                changes |= case.changes(each)
        replay = case.replay(**changes)
    except (ValueError, TypeError) as error:
        return Feedback(ok=None, message=f"That is the cause, and the rows show it. But the fix: {error}.")
    if replay.restored:
        if case.cause == HEALTHY and changes:
            return Feedback(
                ok=False, message=f"Nothing is wrong here, and the promises are kept without it. {shown}"
            )
        return Feedback(ok=True, message=f"{shown} {result(replay)}")
    return Feedback(
        ok=False,
        message=f"The cause is right, and the rows show it. The fix does not mend it. {result(replay)}",
    )


def result(replay: Replay) -> str:
    """The promises before and after, in a sentence each."""
    after, said = replay.after, []
    for row in after.bounds:
        moved = f"{replay.before.say(row)} before, {after.say(row)} after"
        said.append(f"{after.words(row)}: {moved}, promised {after.promise(row)}")
    return f"Replayed with {replay.words}: {'; '.join(said)}."


def against(case: JudgedCase, cause: str) -> str:
    """Why it is not this: numbers of this case, and what its fix would come to."""
    board = case.dashboard
    if case.cause == HEALTHY:
        rows = (f"{board.words(row)} {board.say(row)}, promised {board.promise(row)}" for row in board.bounds)
        kept = "; ".join(rows)
        return f"Look at the promises first. {kept}. {_harmless(board, TELLING[cause][0])}"
    if cause == HEALTHY:
        row = max(board.broken, key=lambda row: board.values[row] / board.bounds[row])
        return f"A promise is broken: {board.words(row)} is {board.say(row)}, promised {board.promise(row)}."
    return f"{_REASONS[cause](board)} {_idle_fix(case, FIX_FOR[cause])}"


def _harmless(b: Dashboard, row: str) -> str:
    if isnan(b.values[row]):
        return f"And there are no {b.long} here."
    return f"`{row}` is {b.say(row)}. Odd or not, it breaks no promise."


def _idle_fix(case: JudgedCase, fix: str) -> str:
    """What the fix for another cause comes to here."""
    changes = case.changes(fix)
    if all(getattr(case.settings, name) == value for name, value in changes.items()):
        return "Its fix would change nothing: the server is set so already."
    try:
        replay = case.replay(**changes)
    except ValueError as error:
        return f"Its fix is none here: {error}."
    row = replay.worst
    told = f"{replay.after.words(row)} {replay.after.say(row)}, promised {replay.after.promise(row)}"
    return f"And its fix, replayed ({replay.words}), leaves: {told}."


def _small_chunk(b: Dashboard) -> str:
    v = b.values
    if v["prompt_tokens"] >= 0.5 * v["twice"]:
        return (
            f"A step with prompts carries {b.say('prompt_tokens')} prompt tokens, and on this machine "
            f"{b.say('twice')} take twice as long as one: the weights are read for many tokens at a time."
        )
    if v["budget_full"] > 0.5:
        return (
            f"Prompts get few tokens a step, {b.say('prompt_tokens')}, but it is the token budget that "
            f"is full, in {b.say('budget_full')} of the steps, with {b.say('decodes')} decodes in it."
        )
    return (
        f"Prompts do come in small pieces, {b.say('prompt_tokens')} tokens a step, but only "
        f"{b.say('prompt_steps')} of the steps carry any: prompts do not queue up for want of larger ones."
    )


def _large_budget(b: Dashboard) -> str:
    v, bound = b.values, b.bounds["tbt_p99"]
    if v["step_p99"] <= bound:
        return (
            f"Steps are short enough: 99 of 100 take at most {b.say('step_p99')}, and {say(bound, 's')} is "
            "promised between tokens."
        )
    return (
        f"The longest steps take {b.say('step_p99')}, and {say(bound, 's')} is promised: not far off. Steps "
        f"with prompts have {b.say('prompt_step_tokens')} tokens; look at what a tenth fewer would take, "
        f"{b.say('again_less')} in place of {b.say('again')}."
    )


def _prefill_first(b: Dashboard) -> str:
    return (
        f"Decodes that are ready do run: {b.say('left_out')} of them sat out a step, and "
        f"{b.say('all_left_out')} of the steps left all of them out."
    )


def _small_pool(b: Dashboard) -> str:
    return (
        f"{b.say('evictions')} requests lost their cache, {b.say('recomputed')} of the tokens were computed "
        f"again, and at most {b.say('blocks_peak')} of the blocks were in use."
    )


def _long_head(b: Dashboard) -> str:
    v = b.values
    if isnan(v["ttft_long_p90"]):
        return (
            f"There are no {b.long} in this load that anybody could stand behind; its {b.short} get their "
            f"first token after {b.say('ttft_short_p90')} (P90)."
        )
    if v["ttft_short_p90"] <= b.bounds["ttft_short_p90"]:
        return (
            f"The {b.short} get their first token in time: P90 {b.say('ttft_short_p90')}, promised "
            f"{b.promise('ttft_short_p90')}."
        )
    return (
        f"The {b.short} wait whether or not one of the {b.long} stands before them: "
        f"{b.say('ttft_behind')} behind one, {b.say('ttft_not_behind')} otherwise (P50)."
    )


def _budget_below(b: Dashboard) -> str:
    return (
        f"A step has {b.say('decodes')} decodes on average, and in {b.say('decodes_fill')} of the steps they "
        "take three quarters of the token budget or more: there is room for prompts."
    )


def _slow_inputs(b: Dashboard) -> str:
    return (
        f"The CPU takes {b.say('cpu_step')} before a step that runs {b.say('step_p50')}, and the GPU is idle "
        f"for {b.say('gpu_idle')} of the time in which there is work."
    )


def _launch_bound(b: Dashboard) -> str:
    return (
        f"The CPU launches a step's kernels in {b.say('launch')}, and the step takes {b.say('step_p50')}: "
        "the next kernel is there before the GPU is done with the last."
    )


def _tiles(b: Dashboard) -> str:
    v = b.values
    if isnan(v["again_less"]) or v["again_less"] > 0.9 * v["again"]:
        return (
            f"A tenth fewer tokens would save nothing worth speaking of: {b.say('again_less')} in place of "
            f"{b.say('again')} for the same step. No tile has been started for the sake of a few tokens."
        )
    return (
        f"A typical step would get shorter with a tenth fewer tokens, {b.say('again_less')} in place "
        f"of {b.say('again')}, but only {b.say('budget_full')} of the steps fill the token budget."
    )


_REASONS = {
    "chunk-too-small": _small_chunk,
    "budget-too-large": _large_budget,
    "prefill-first": _prefill_first,
    "pool-too-small": _small_pool,
    "long-head": _long_head,
    "budget-below-decodes": _budget_below,
    "slow-inputs": _slow_inputs,
    "launch-bound": _launch_bound,
    "tile-unfriendly": _tiles,
}


def evidence_against(case: JudgedCase, rows: list[str]) -> str:
    """Which of the rows named do not show the cause, and why; "" if they do."""
    board, telling = case.dashboard, case.tells()
    for row in rows:
        if row not in ROWS:
            return f"there is no row `{row[:40]}`; the dashboard has {_keys(ROWS)}."
        if isnan(board.values[row]):
            return f"`{row}` does not apply to this load."
        if row not in telling and not _moved(board.values[row], case.mended.values[row]):
            after = case.mended.say(row)
            return f"`{row}` is {board.say(row)} here, and {after} when the fault is gone. It does not tell."
    if not any(row in telling for row in rows):
        named = ", ".join(f"`{row}` {board.say(row)}" for row in rows)
        return f"{named} says that something is wrong, and not what. Other causes move it too."
    return ""


def _moved(before: float, after: float) -> bool:
    """Whether a row is clearly another one once the fault is gone."""
    return abs(before - after) > 0.2 * max(abs(before), abs(after)) and abs(before - after) > 1e-4


def _names(given: object) -> list[str] | None:
    """The rows, causes or fixes named; None for none."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Iterable):
        return None
    found: list[Any] = []
    with suppress(Exception):  # a reader's own class
        for name in given:
            found.append(name if isinstance(name, str) else _short(name))
            if len(found) > len(ROWS):  # an endless one
                break
    return found or None


def _keys(of: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in of)


def _short(value: object) -> str:
    try:
        return repr(value)[:40]
    except Exception:  # a reader's own class
        return type(value).__name__


assert set(_REASONS) | {HEALTHY} == set(CAUSES) == set(TELLING) and NOTHING in REMEDIES

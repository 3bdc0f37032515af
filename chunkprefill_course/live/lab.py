"""The laboratory: requests, a policy, a machine; what comes of them. JSON in, pictures and tables out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from html import escape
from itertools import pairwise
from typing import Any

import chunkprefill as cp
from chunkprefill.configs import DEVICES, MODELS
from chunkprefill.plots.timeline import timeline_picture
from chunkprefill.servers.client import clean
from chunkprefill_course.live import advice
from chunkprefill_course.live.pasted_requests import MOST, LabError, read_requests, short
from chunkprefill_course.live.programs import FILE, Printed, alone, raised, said_by

MOST_STEPS = 200_000  # of a run
MOST_BOXES = 6000  # that a picture holds: the rest of a longer run is in the numbers
ROWS = 14  # requests that a timeline shows
USUAL = {"token_budget": 512, "max_tokens": 8192, "rate": 1.0}  # what an exercise's policy is made with
POLICIES = ("ChunkedPrefill", "PrefillFirst", "Alternate", "SerialChunks", "RequestLevel", "VllmV1")


def drawn(n_chats: int, rate: float, n_documents: int, tokens: int, seed: int) -> str:
    """A workload as text: chats at `rate` a second, documents of `tokens` tokens spread among them."""
    if not (1 <= n_chats + n_documents <= MOST and rate > 0 and tokens >= 1):
        raise LabError(
            f"{n_chats} chats and {n_documents} documents at {rate}/s: 1 to {MOST} requests, a rate above 0"
        )
    draw, at, lines = random.Random(seed), 0.0, ["name, arrival, prompt, output"]
    rows = []
    for i in range(n_chats):
        rows.append((at, f"chat {i + 1}", draw.randint(40, 900), draw.randint(20, 240)))
        at += draw.expovariate(rate)
    for i in range(n_documents):
        rows.append((at * (i + 0.5) / n_documents, f"document {i + 1}", tokens, draw.randint(40, 120)))
    lines += [f"{name}, {arrival:.4f}, {prompt}, {output}" for arrival, name, prompt, output in sorted(rows)]
    return "\n".join(lines)


def _only_class(names: Mapping[str, Any]) -> type:
    """The one class of the reader's code that has a method `schedule`."""
    found = [one for one in names.values() if isinstance(one, type) and one.__module__ == "__main__"]
    found = [one for one in found if callable(getattr(one, "schedule", None))]
    if not found:
        raise LabError("your code defines neither `policy` nor a class with a method `schedule(state)`")
    if len(found) > 1:
        several = " and ".join(one.__name__ for one in found)
        raise LabError(
            f"your code defines {several}: say which with a line such as `policy = {found[0].__name__}()`"
        )
    return found[0]


def _filled(kind: type) -> Any:
    """An instance; a dataclass of an exercise gets the usual values for the fields that have no default."""
    asked = fields(kind) if is_dataclass(kind) else ()
    needed = [one.name for one in asked if one.default is MISSING and one.default_factory is MISSING]
    if unknown := [name for name in needed if name not in USUAL]:
        raise LabError(
            f"{kind.__name__} needs {', '.join(unknown)}: make it yourself, as in `policy = {kind.__name__}(…)`"
        )
    return kind(**{name: USUAL[name] for name in needed})


def policy_of(choice: Mapping[str, Any]) -> Any:
    """A policy by name and arguments, or by the reader's code: `policy`, `Policy`, or its one class that schedules."""
    if source := choice.get("code"):
        names: dict[str, Any] = {"__name__": "__main__", "cp": cp}
        exec(compile(source, FILE, "exec"), names)
        made = names.get("policy") or names.get("Policy") or _only_class(names)
        made = _filled(made) if isinstance(made, type) else made
        if not callable(getattr(made, "schedule", None)):
            raise LabError(f"{type(made).__name__} has no method `schedule(state)`")
        return made
    name = choice.get("name", "ChunkedPrefill")
    if name not in POLICIES:
        raise LabError(f"no policy {name!r}; there are {', '.join(POLICIES)}")
    given = {key: value for key, value in dict(choice.get("args", {})).items() if value not in (None, "")}
    if name == "ChunkedPrefill":
        given.setdefault("token_budget", 512)
    return getattr(cp, name)(**given)


class TellsProgress:
    """A policy that tells how far the run is; it decides nothing itself."""

    def __init__(self, policy: Any, tell: Callable[[str], Any], n_requests: int) -> None:
        self.policy, self.tell, self.n_requests = policy, tell, n_requests
        self.steps, self.told = 0, time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def schedule(self, state: Any) -> Any:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise LabError(
                f"{state.now:,.1f} s and {MOST_STEPS:,} steps, and the requests are not served yet: stopped"
            )
        if self.steps % 64 == 0 and time.monotonic() - self.told > 0.25:
            self.told = time.monotonic()
            here = len(state.running) + len(state.waiting)
            self.tell(
                f"{self.steps:,} steps, {state.now:.1f} s served, {here} of {self.n_requests} requests in the server."
            )
        return self.policy.schedule(state)


def run(experiment: Mapping[str, Any], tell: Callable[[str], Any] = lambda words: None) -> dict[str, Any]:
    """Serve the experiment's requests. Returns html (timeline and table) and numbers, or `wrong`: one line."""
    policy = experiment.get("policy") or {}
    code = str(policy.get("code") or "") if isinstance(policy, Mapping) else ""
    try:
        if not isinstance(policy, Mapping) or not isinstance(experiment.get("machine") or {}, Mapping):
            raise LabError("an experiment is {requests, policy: {name, args} or {code}, machine: {…}}")
        with alone(Printed()):
            return _run(experiment, tell)
    except LabError as error:
        return {"wrong": str(error)}
    except BaseException as error:
        if code:  # whatever happened, the reader's line is the place to look
            return {"wrong": raised(error, code, "")["text"]}
        known = isinstance(error, cp.ScheduleError | ValueError | TypeError)
        return {"wrong": str(error)[:500] if known else f"{type(error).__name__}: {said_by(error)}"[:500]}


def _run(experiment: Mapping[str, Any], tell: Callable[[str], Any]) -> dict[str, Any]:
    requests, kinds = read_requests(str(experiment.get("requests", "")))
    machine = dict(experiment.get("machine") or {})
    price = cp.price(
        str(machine.get("model", "llama-3-8b")),
        str(machine.get("device", "h100")),
        dtype=str(machine.get("dtype", "bf16")),
        tp=int(_number(machine, "tp", 1, (1, 64), whole=True)),
    )
    blocks = int(_number(machine, "blocks", 0, (1, 10**9), whole=True))
    pool = cp.BlockPool(blocks) if blocks else None
    us = {key: 1e-6 * _number(machine, key, 0.0, (0.0, 1e9)) for key in ("step_us", "request_us")}
    scheduling = (
        cp.SchedulerCost(us["step_us"], us["request_us"], us["request_us"]) if any(us.values()) else None
    )
    policy = policy_of(experiment.get("policy") or {})
    tell("Serving.")
    trace = cp.simulate(
        requests,
        TellsProgress(policy, tell, len(requests)),
        price,
        pool,
        scheduling=scheduling,
        overlap=bool(machine.get("overlap")),
    )
    tell("Drawing.")
    numbers = measured_of(trace, kinds)
    label = clean(experiment.get("label") or type(policy).__name__, 60)
    shown = requests if len(requests) <= ROWS else sorted(requests, key=lambda r: -r.n_prompt)[: ROWS // 2]
    if len(shown) < len(requests):
        shown = sorted({*shown, *requests[: ROWS - len(shown)]}, key=lambda r: r.arrival)
    part = only(trace, [request.rid for request in shown])
    words = "" if len(shown) == len(requests) else f" {len(shown)} of {len(requests)} requests are drawn."
    until = drawn_until(part)
    if until:
        words += f" The first {until:.3g} s are drawn."
    lines = cp.request_timelines(part).values()
    marked = [line for line in lines if not until or line.longest_gap[1] <= until]
    worst = [max(marked, key=lambda line: line.longest).rid] if marked else []
    picture = timeline_picture(
        {label: part},
        caption="Each box is a step that the request took part in, as wide as it took." + words,
        mark=worst,
        until=until,
    )
    table = table_of(numbers)
    return {
        "html": picture._repr_html_()
        + table._repr_html_()
        + f"<p><small>Priced by {escape(str(price))}.</small></p>",
        "numbers": numbers["rows"],
        "text": f"{trace.steps[-1].end:.2f} s served in {len(trace.steps)} steps. {table}",
    }


def _number(
    machine: Mapping[str, Any], name: str, usual: float, bounds: tuple[float, float], whole: bool = False
) -> float:
    """A number of the machine, or what is usual where it says nothing. LabError names it and its bounds."""
    given = machine.get(name)
    if given in (None, ""):
        return usual
    try:
        value = float(str(given))
    except ValueError:
        raise LabError(f"{name}: {short(given)!r} is no number") from None
    low, high = bounds
    if not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise LabError(f"{name}: {short(given)}; {kind} from {low:,} to {high:,} is possible")
    return value


def drawn_until(trace: cp.Trace) -> float | None:
    """Where a picture of MOST_BOXES boxes ends, s; None where it holds them all."""
    for offset, end in zip(trace.columns["offset"][1:], trace.columns["end"]):
        if offset > MOST_BOXES:
            return end
    return None


def only(trace: cp.Trace, rids: Sequence[Any]) -> cp.Trace:
    """A trace with these requests alone: same steps, same times, other rows left out."""
    wanted = set(rids)
    part = cp.Trace([request for request in trace.requests if request.rid in wanted], label=trace.label)
    for step in trace.steps:
        rows = [chunk for chunk in step.batch if chunk[0] in wanted]
        if rows:
            rids, starts, lengths, emits = zip(*rows)
            gone = tuple(rid for rid in step.batch.preempted if rid in wanted)
            times = (step.scheduled, step.dispatched, step.start, step.end)
            part.record(cp.Batch(rids, starts, lengths, emits, gone), times, step.blocks_used)
    return part


def measured_of(trace: cp.Trace, kinds: Mapping[Any, str]) -> dict[str, Any]:
    """TTFT, time between tokens and tokens a second, by class: [class, n, numbers in s]."""
    tokens: dict[Any, list[float]] = {request.rid: [] for request in trace.requests}
    evicted = 0
    for step in trace.steps:
        evicted += len(step.batch.preempted)
        for rid, _, _, emits in step.batch:
            if emits:
                tokens[rid].append(step.end)
    rows, largest = (
        [],
        {rid: max((b - a for a, b in pairwise(t)), default=0.0) for rid, t in tokens.items()},
    )
    for kind in dict.fromkeys(kinds.values()):
        mine = [r for r in trace.requests if kinds[r.rid] == kind]
        first = sorted(tokens[r.rid][0] - r.arrival for r in mine)
        gaps = sorted(b - a for r in mine for a, b in pairwise(tokens[r.rid]))
        rows.append(
            [
                kind,
                len(mine),
                quantile(first, 0.5),
                first[-1],
                quantile(gaps, 0.5),
                quantile(gaps, 0.99),
                gaps[-1] if gaps else 0.0,
            ]
        )
    end = trace.steps[-1].end
    n_tokens = sum(len(times) for times in tokens.values())
    return {"rows": rows, "gaps": largest, "tokens_s": n_tokens / end, "evicted": evicted, "end": end}


def quantile(values: Sequence[float], q: float) -> float:
    """Of sorted values, with straight lines between them, as numpy has it; 0 of none."""
    if not values:
        return 0.0
    at = q * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (at - low) * (values[high] - values[low])


def table_of(numbers: Mapping[str, Any]) -> cp.Table:
    """The numbers of a run, by class."""

    def ms(seconds: float) -> str:
        return f"{1e3 * seconds:,.0f} ms" if seconds >= 0.01 or not seconds else f"{1e3 * seconds:.1f} ms"

    header = ("class", "n", "TTFT, median", "TTFT, longest", "TBT, median", "TBT, P99", "TBT, longest")
    rows = [(kind, n, *map(ms, times)) for kind, n, *times in numbers["rows"]]
    caption = (
        f"{numbers['tokens_s']:,.0f} tokens/s, {numbers['evicted']} evictions, {numbers['end']:.2f} s in all"
    )
    return cp.Table(header=header, rows=rows, caption=caption)


def options() -> dict[str, Any]:
    """What the page's form offers: made when the book is built."""
    policies = {}
    for name in POLICIES:
        given = []
        for field in fields(getattr(cp, name)):
            default = None if field.default.__class__.__name__ == "_MISSING_TYPE" else field.default
            given.append([field.name, default])
        policies[name] = given
    return {
        "models": list(MODELS),
        "devices": list(DEVICES),
        "policies": policies,
        "most": MOST,
        "scenarios": SCENARIOS,
        "advice": advice.form(),
    }


SCENARIOS = {
    "A document among chats": "name, arrival, prompt, output\nchat 1, 0.0, 200, 60\nchat 2, 0.016, 200, 60\n"
    "document, 0.1, 8192, 24\nchat 3, 0.16, 200, 60\nchat 4, 0.22, 200, 60",
    "Two documents at once": "name, arrival, prompt, output\nchat 1, 0.0, 300, 80\nchat 2, 0.02, 120, 80\n"
    "document 1, 0.1, 12000, 20\ndocument 2, 0.12, 12000, 20\nchat 3, 0.2, 80, 40",
    "Many small ones": drawn(24, 40.0, 0, 1, 1),
    "Chats and documents": drawn(60, 12.0, 4, 6000, 2),
}

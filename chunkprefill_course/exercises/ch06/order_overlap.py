"""Exercise: two steps of an engine, in the order in which the device waits least; played on a real state."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from html import escape

from chunkprefill.plots.style import Canvas
from chunkprefill.scheduling.core import Batch, Request
from chunkprefill.scheduling.policies import ChunkedPrefill
from chunkprefill.scheduling.state import State
from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.order import Broken, Card, Order

CHUNK = 4  # tokens
PLAN, LAUNCH, RUN, READ = 3, 1, 6, 1  # ms
BEST = PLAN + LAUNCH + 2 * RUN + READ  # ms: the device never waits once it has begun
SOONEST = {  # ms
    "plan 1": 0,
    "launch 1": PLAN,
    "plan 2": PLAN + LAUNCH,
    "launch 2": 2 * PLAN + LAUNCH,
    "read 1": PLAN + LAUNCH + RUN,
    "read 2": PLAN + LAUNCH + 2 * RUN,
}
LAST = 24  # ms: end of the picture's axis


def _begin() -> State:
    state = State()
    state.arrive(Request("prompt", 0.0, n_prompt=2 * CHUNK, n_output=2))
    return state


@dataclass(eq=False)
class ProcessorAndDevice:
    """A processor that does one thing after the other, and a device that runs what it is handed, in order."""

    state: State = field(default_factory=_begin)
    batches: dict[int, Batch] = field(default_factory=dict)  # planned
    ran: dict[int, tuple[int, int]] = field(default_factory=dict)  # launched: begin and end on the device, ms
    read: set[int] = field(default_factory=set)
    clock: int = 0  # ms on the processor
    boxes: list[tuple[str, int, int]] = field(default_factory=list)  # what the processor did, from, to

    def work(self, name: str, ms: int) -> None:
        self.boxes.append((name, self.clock, self.clock + ms))
        self.clock += ms

    @property
    def idle(self) -> int:
        """ms for which the device stood still between the two steps."""
        return self.ran[2][0] - self.ran[1][1] if len(self.ran) == 2 else 0


def plan(k: int, bench: ProcessorAndDevice) -> None:
    """Ask the policy for step k and carry the plan out: real decisions, real positions."""
    if k == 2:
        if 1 not in bench.batches:
            raise Broken("step 2 begins where step 1 ends, and step 1 is not planned yet")
        bench.state.commit(bench.batches[1])  # what it will have emitted is known, what the token says is not
    bench.batches[k] = bench.state.apply(bench.state.ask(ChunkedPrefill(CHUNK), 0.0))
    bench.work(f"plan {k}", PLAN)


def launch(k: int, bench: ProcessorAndDevice) -> None:
    """Hand step k to the device, which begins when it is free."""
    if k not in bench.batches:
        raise Broken(f"it is not decided yet who runs in step {k}")
    if k == 2 and 1 not in bench.ran:
        raise Broken("step 2 reads positions 0–3, and step 1, which writes them, has not been handed over")
    bench.work(f"launch {k}", LAUNCH)
    begin = max(bench.clock, bench.ran[1][1] if k == 2 else 0)
    bench.ran[k] = (begin, begin + RUN)


def read(k: int, bench: ProcessorAndDevice) -> None:
    """Wait for step k's result and hand it out."""
    if k not in bench.ran:
        raise Broken(f"there is no result of step {k}: it has not been launched")
    if k == 2 and 1 not in bench.read:
        raise Broken("results are handed out in order, and that of step 1 has not been read")
    bench.clock = max(bench.clock, bench.ran[k][1])
    bench.work(f"read {k}", READ)
    bench.read.add(k)


def said(bench: ProcessorAndDevice) -> str:
    """How things stand."""
    words = [f"The processor is at {bench.clock} ms."]
    for k, (begin, end) in bench.ran.items():
        first = bench.batches[k].start[0]
        words.append(f"Step {k} (tokens {first}–{first + CHUNK - 1}) runs from {begin} to {end} ms.")
    if len(bench.ran) == 2:
        words.append(f"Between the two the device is idle for {bench.idle} ms.")
    return " ".join(words)


def picture(bench: ProcessorAndDevice) -> str:
    """Two lanes to scale: what the processor did, and what the device ran."""
    left, unit, tall = 110, 13, 34
    canvas = Canvas(132, width=left + unit * LAST)
    device = [(str(k), begin, end) for k, (begin, end) in bench.ran.items()]
    for y, name, boxes, fill in (
        (14, "processor", bench.boxes, "scheduling"),
        (58, "device", device, "prefill"),
    ):
        canvas.text(left - 10, y + 22, name, anchor="end")
        canvas.line(left, y + tall, left + unit * LAST, y + tall, width=1, opacity=0.5)
        for words, begin, end in boxes:
            canvas.rect(left + unit * begin + 1, y, unit * (end - begin) - 2, tall, fill, radius=2)
            letter = words[0].upper() + words[-1] if fill == "scheduling" else words
            if end - begin > 1:
                canvas.text(left + unit * (begin + end) / 2, y + 23, letter, anchor="middle", fill="#fff")
    for ms in range(0, LAST + 1, 10):
        canvas.text(left + unit * ms, 116, f"{ms}", anchor="middle" if ms else "start")
    canvas.text(0, 116, "time, ms")
    done = (
        ", ".join(f"{words} from {begin} to {end} ms" for words, begin, end in bench.boxes) or "nothing yet"
    )
    ran = ", ".join(f"step {k} from {begin} to {end} ms" for k, begin, end in device) or "nothing yet"
    svg = canvas.svg.replace(
        "<svg ", f'<svg role="img" aria-label="{escape(f"Processor: {done}. Device: {ran}.")}" ', 1
    )
    return f'<div style="max-width:{canvas.width:.0f}px">{svg}</div>'


def memory(bench: ProcessorAndDevice) -> str:
    """What came at another time than it should have: the same steps in another order leave other times."""
    return " ".join(f"{name} at {begin}" for name, begin, _ in bench.boxes if begin != SOONEST[name])


def finish(bench: ProcessorAndDevice) -> str:
    """It works. Could it have been done sooner?"""
    if bench.clock == BEST:
        return ""
    late = bench.ran[1][0] - PLAN - LAUNCH
    why = f"the device is idle for {bench.idle} ms between the steps" if bench.idle else ""
    begins = f"the device begins {late} ms later than it could" if late else ""
    reads = "the first result was ready while the processor did something else" if not (why or begins) else ""
    cause = " and ".join(filter(None, (begins, why, reads)))
    return f"This works, and takes {bench.clock} ms where {BEST} are enough: {cause}."


def _card(kind: str, k: int, words: str) -> Card:
    act = {"plan": plan, "launch": launch, "read": read}[kind]
    return Card(f"{kind}{k}", words, partial(act, k))


order_overlap = Order(
    id="order-overlap",
    title="Keep the device busy",
    prompt=prose("order-overlap"),
    start=ProcessorAndDevice,
    steps=(
        _card("plan", 1, "Plan step 1: decide who runs, take the blocks"),
        _card("launch", 1, "Launch step 1: hand its inputs to the device"),
        _card("plan", 2, "Plan step 2"),
        _card("launch", 2, "Launch step 2; if step 1 still runs, it queues behind it"),
        _card("read", 1, "Wait for step 1, read its result"),
        _card("read", 2, "Wait for step 2, read its result"),
    ),
    said=said,
    picture=picture,
    finish=finish,
    memory=memory,
    hints=(
        "What can the processor do in the 6 ms in which the device runs step 1?",
        "Which chunk comes next does not depend on what the model says. So step 2 can be planned before "
        "step 1 has been read.",
        "Launch step 1 as soon as it is planned, and let step 2 queue behind it before you wait.",
    ),
    minutes=5,
    level="analyse",
)

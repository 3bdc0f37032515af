"""Exercise (the card C2): put chunks and decoding steps of two sequences in an order that stalls no sequence."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from chunkprefill.plots.grid import task
from chunkprefill.scheduling.core import Plan, Request
from chunkprefill.scheduling.core import Sequence as Seq
from chunkprefill.scheduling.state import State
from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.boards import Cell, board
from chunkprefill_course.forms.order import Broken, Card, Order

CHUNK = 4  # tokens
ONE = Request(1, 0, n_prompt=12, n_output=2)  # P₁₁ P₁₂ P₁₃ D₁₁
TWO = Request(2, 0, n_prompt=4, n_output=3)  # P₂₁ D₂₁ D₂₂; it comes while P₁₁ runs
TASKS = {1: (("P", 1), ("P", 2), ("P", 3), ("D", 1)), 2: (("P", 1), ("D", 1), ("D", 2))}


def _begin() -> State:
    state = State()
    state.arrive(ONE)
    return state


@dataclass(eq=False)
class Server:
    """One task at a time, checked by the loop's own contract."""

    state: State = field(default_factory=_begin)
    done: list[tuple[int, str, int]] = field(default_factory=list)  # sequence, P or D, number
    waited: dict[int, int] = field(default_factory=dict)  # chunks since a sequence could decode, and did not
    newcomer: int = 0  # chunks that ran between the arrival of sequence 2 and its own prompt

    def live(self) -> dict[int, Seq]:
        return {int(seq.rid): seq for seq in chain(self.state.running, self.state.waiting)}


def act(sequence: int, kind: str, k: int, server: Server) -> None:
    """Run one task, if the caches are ready for it and no sequence has waited too long."""
    name, seq = task(kind, sequence, k), server.live().get(sequence)
    if seq is None:
        raise Broken(f"sequence {sequence} has not arrived yet: it arrives while P₁₁ runs")
    if kind == "P" and seq.cached != (k - 1) * CHUNK:
        missing = f"{seq.cached}–{(k - 1) * CHUNK - 1}"
        raise Broken(f"{name} reads positions {missing}, which are not in the cache yet")
    if kind == "D" and (not seq.decoding or seq.generated != k):
        maker = task("D", sequence, k - 1) if k > 1 else task("P", sequence, seq.n_prompt // CHUNK)
        raise Broken(f"{name} feeds back a token, and {maker} has not emitted it yet")
    others = [rid for rid, each in server.live().items() if each.decoding and rid != sequence]
    for rid in others if kind == "P" else ():
        if server.waited[rid]:
            waits = f"sequence {rid} could have decoded and has waited for one chunk"
            raise Broken(f"{waits}, {name} would be a second")
    length = min(seq.pending, CHUNK) if kind == "P" else 1
    server.state.commit(server.state.apply(Plan({sequence: length})))
    server.done.append((sequence, kind, k))
    if (sequence, kind, k) == (1, "P", 1):
        server.state.arrive(TWO)
    elif kind == "P" and sequence == 1 and server.state.waiting.get(2):
        server.newcomer += 1
    for rid in others if kind == "P" else ():
        server.waited[rid] += 1
    server.waited[sequence] = 0


def said(server: Server) -> str:
    """How things stand."""
    live, done = server.live(), {(s, k, n) for s, k, n in server.done}
    words = []
    for rid in (1, 2):
        seq = live.get(rid)
        if seq is None:
            words.append(f"Sequence {rid} {'has finished' if (rid, 'P', 1) in done else 'has not arrived'}.")
        elif not seq.decoding:
            words.append(f"Sequence {rid} has {seq.cached} of {seq.known} tokens cached.")
        else:
            ready = "could decode" + (" and has waited for one chunk" if server.waited[rid] else "")
            words.append(f"Sequence {rid} {ready}.")
    if (2, "P", 1) in done and server.newcomer:
        chunks = "one chunk" if server.newcomer == 1 else f"{server.newcomer} chunks"
        words.append(f"Its prompt waited behind {chunks} of sequence 1.")
        words.append("That is allowed: the rule protects requests that decode, not requests that arrive.")
    elif (2, "P", 1) in done and not live:
        words.append("Sequence 2 was admitted as soon as it arrived.")
    return " ".join(words)


def picture(server: Server) -> str:
    """Each sequence's tasks: done, next, or still to come."""
    rows: list[tuple[str, list[Cell]]] = []
    for rid, tasks in TASKS.items():
        n_done, there = sum(s == rid for s, _, _ in server.done), rid == 1 or (1, "P", 1) in server.done
        cells: list[Cell] = []
        for i, (kind, k) in enumerate(tasks):
            look = "next" if there and i == n_done else "empty"
            if i < n_done:
                look = "prefill" if kind == "P" else "decode"
            cells.append((look, task(kind, rid, k)))
        rows.append((f"sequence {rid}", cells))
    return board(rows, title="Tasks done")


def memory(server: Server) -> str:
    """Who has waited, and behind how many chunks the newcomer stood."""
    waiting = (f"{rid} waited" for rid, n in sorted(server.waited.items()) if n)
    return " ".join([*waiting, *([f"behind {server.newcomer}"] if server.newcomer else [])])


def finish(server: Server) -> str:
    """Did everybody finish?"""
    left = ", ".join(map(str, server.live()))
    return f"Sequence {left} has not finished." if left else ""


def _card(sequence: int, kind: str, k: int, words: str) -> Card:
    key, name = f"{kind}{sequence}{k}".lower(), task(kind, sequence, k)
    return Card(key, f"{name}: {words}", partial(act, sequence, kind, k))


order_pd = Order(
    id="order-pd",
    title="Who runs next: chunks and decoding steps",
    prompt=prose("order-pd"),
    start=Server,
    steps=(
        _card(1, "P", 1, "the first chunk of sequence 1"),
        _card(2, "P", 1, "the whole prompt of sequence 2"),
        _card(1, "P", 2, "the second chunk of sequence 1"),
        _card(2, "D", 1, "the first decoding step of sequence 2"),
        _card(1, "P", 3, "the last chunk of sequence 1"),
        _card(2, "D", 2, "the second decoding step of sequence 2"),
        _card(1, "D", 1, "the first decoding step of sequence 1"),
    ),
    said=said,
    picture=picture,
    finish=finish,
    memory=memory,
    hints=(
        "Within one sequence the order is fixed. What you choose is how the two sequences interleave.",
        "After which task can D₂₁ run? Count the chunks of sequence 1 that you put between the two.",
        "Once P₂₁ has run, at least every second task must be a decoding step of sequence 2, until "
        "sequence 2 has finished.",
    ),
)

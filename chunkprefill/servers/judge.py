"""From the times of tokens to a verdict: how a server schedules, with the evidence, or `unknown` and why.

A client sees who gets a token when. Three things follow from that, each under a condition; where the condition
does not hold, the verdict is `unknown`:

- *Do chats that decode go on while a document is prefilled?* If their one long silence covers the document's
  prefilling from end to end, prompts go first (or the whole document fits into one step: to a client it is
  the same). If they get tokens in between, it is prefilled in chunks.
- *Does a newcomer wait for the document?* If its first token comes long before the document's, newcomers
  pass; if never before, they are served by arrival.
- *How many tokens a step?* A chat gets one token a step, so that its gaps while the document is prefilled
  count the document's chunks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from statistics import median
from typing import Protocol

from chunkprefill.configs import table
from chunkprefill.measure import measured
from chunkprefill.servers.stream import Stream


class Seen(Protocol):
    """What a verdict is made of; a `ProbeRecord` is one."""

    @property
    def engine(self) -> str: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def streams(self) -> tuple[Stream, ...]: ...
    @property
    def rounds(self) -> tuple[str, ...]: ...
    def of(self, round: str, kind: str) -> list[Stream]: ...


#: name: what it means, in a sentence.
VERDICTS = {
    "prompts first": "Chats fall silent until the document is prefilled: prompts go before decodes, or the "
    "whole document fits into one step.",
    "stall-free by arrival": "Chats go on between the document's chunks; a newcomer waits until the document "
    "is prefilled.",
    "newcomers pass": "Chats go on between the document's chunks, and a newcomer's first token does not wait "
    "for the document.",
    "unknown": "The probe cannot tell.",
}
UNKNOWN = "unknown"
ENOUGH = 6.0  # usual gaps that the document's prefilling must last
# Of the document's prefilling in one silence: one step from here, several up to here.
WHOLE, PARTLY = 0.9, 0.8
DISTURBED = 1.3  # times the usual gap: a step that carried some of the document
PASSED, WAITED = 0.5, 0.9  # of the time until the document's first token that a newcomer waited
ROOM = 4  # tokens of a chat until the document is prefilled: in fewer steps no newcomer could have passed
MANY = 6  # steps of a document, from which on one is let off
AT_ONCE = 0.03  # of an answer's time, in which all of its tokens came
STANDS_OUT = 4.0  # times the median gap of the prefilling: more than chunks of equal size differ
SEVERAL = 1.5  # tokens an event, from which on an event is not a step
BURST = 0.15  # of the mean gap: a smaller one is no gap


@dataclass(frozen=True)
class StepTokens:
    """Tokens of the document in a step: between `low` and `high`; `likely` is one number to say.

    high is infinite where the document went in one step.
    """

    low: float
    high: float

    @property
    def likely(self) -> float:
        """The power of two that lies between, if just one does; else the middle."""
        if not math.isfinite(self.high):
            return self.low
        powers = [2.0**k for k in range(4, 20) if self.low <= 2.0**k <= self.high]
        return powers[0] if len(powers) == 1 else (self.low + self.high) / 2

    def __str__(self) -> str:
        if not math.isfinite(self.high):
            return f"at least {self.low:,.0f} tokens a step"
        if self.high - self.low < 1:
            return f"about {self.likely:,.0f} tokens a step"
        return f"about {self.likely:,.0f} tokens a step (between {self.low:,.0f} and {self.high:,.0f})"


@dataclass(frozen=True)
class Verdict:
    """What a probe says about a server. name: a key of `VERDICTS`.

    evidence: numbers that speak for it, or say why it is unknown
    step:     tokens a step, decodes and chunks together; None where it cannot be told
    change:   what would change it, in the engine's own flags
    unseen:   what no probe of this kind can know
    """

    name: str
    evidence: tuple[str, ...]
    step: StepTokens | None = None
    change: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether there is a verdict at all."""
        return self.name != UNKNOWN

    @property
    def _said(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return ("Because", self.evidence), ("To change it", self.change), ("Not seen", self.unseen)

    def __str__(self) -> str:
        lines = [f"verdict: {self.name}. {VERDICTS[self.name]}"]
        if self.step:
            lines.append(f"a step: {self.step}")
        for title, said in self._said:
            lines += [f"{title.lower()}: {line}" for line in said]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        step = f" <br>A step: {escape(str(self.step))}." if self.step else ""
        out = f"<p><strong>Verdict: {escape(self.name)}.</strong> {escape(VERDICTS[self.name])}{step}</p>"
        for title, said in self._said:
            if said:
                rows = "".join(f"<li>{escape(line)}</li>" for line in said)
                out += f"<p>{title}:</p><ul>{rows}</ul>"
        return out


UNSEEN = (
    "whether a chunk and the decodes share a step or take turns: a client sees the same gaps",
    "what other clients' requests did to these times; probe a quiet server",
    "memory: blocks, evictions and prefix hits stand in the server's own metrics alone",
)

ELSEWHERE = (
    "whether newcomers passed on the document's own machine or were sent to another behind this address"
)


def usual_gap(probe: Seen) -> float:
    """The median gap of the early chats, s, where no document was running; 0 if there is none."""
    gaps = [gap for s in probe.of("without", "chat") for gap in s.gaps]
    if len(gaps) < 8:
        for name in probe.rounds:
            starts = [s.sent for s in probe.of(name, "document")]
            for s in probe.of(name, "chat"):
                before = [t for t in s.tokens if t < min(starts, default=math.inf)]
                gaps += [b - a for a, b in pairwise(before)]
    return median(gaps) if len(gaps) >= 4 else 0.0


def tokens_an_event(probe: Seen) -> float:
    """Tokens that an event carries on average, by the server's counts: of the stream where it is most."""
    streams = [s for s in probe.streams if len(s.tokens) >= 4 and len(s.counts) == len(s.tokens)]
    return max((sum(s.counts) / len(s.counts) for s in streams), default=1.0)


def in_bursts(stream: Stream) -> bool:
    """Whether tokens came together in bursts of three and more: something on the way keeps them back."""
    gaps = stream.gaps
    if len(gaps) < 12:
        return False
    mean, whole = sum(gaps) / len(gaps), stream.tokens[-1] - stream.sent
    if mean * len(gaps) < AT_ONCE * whole:
        return True
    apart = sum(gap > BURST * mean for gap in gaps)
    return stream.reads < len(stream.tokens) / 3 or apart < len(gaps) / 3


class _Doubt(Exception):
    """Why a round, or a whole probe, says nothing."""


@dataclass(frozen=True)
class _Round:
    """What one round says: whether chats fall silent, and if not, whether newcomers pass."""

    freezes: bool
    evidence: tuple[str, ...]
    passes: bool | None = None
    n_steps: tuple[int, int] | None = None  # of the document's prefilling, at least and at most


def judge(probe: Seen) -> Verdict:
    """The verdict. Rounds that contradict each other, or say nothing, make it `unknown`."""
    rounds, doubts = [], []
    try:
        usual = _checked_gap(probe)
    except _Doubt as doubt:
        return _unknown(str(doubt))
    for name in probe.rounds:
        try:
            rounds.append(_read(probe, name, usual))
        except _Doubt as doubt:
            doubts.append(str(doubt))
    if doubts:
        return _unknown(*dict.fromkeys(doubts))
    evidence = rounds[-1].evidence
    if len({r.freezes for r in rounds}) > 1:
        return _unknown("one round says that chats fall silent, another that they go on", *evidence)
    step = _tokens_a_step(probe, rounds)
    if (each := tokens_an_event(probe)) > SEVERAL:
        step = None
        said = (
            f"an event brings {each:.2g} tokens on average: several steps handed over at once, or several "
            "tokens that one step guessed right, so that events do not count steps"
        )
        if rounds[0].freezes:
            return _unknown(f"{said}, and a silence may hide some", *evidence)
        evidence = (*evidence, said)
    if rounds[0].freezes:
        return Verdict("prompts first", evidence, step, _changes(probe.engine, "prompts first"), UNSEEN)
    if len({r.passes for r in rounds}) > 1:
        return _unknown("newcomers passed the document in one round and not in another", *evidence)
    name = "newcomers pass" if rounds[0].passes else "stall-free by arrival"
    unseen = (*UNSEEN, ELSEWHERE) if rounds[0].passes else UNSEEN
    return Verdict(name, evidence, step, _changes(probe.engine, name), unseen)


def _changes(engine: str, verdict: str) -> tuple[str, ...]:
    """What would change a verdict, in flags where the engine, such as `vLLM 0.32.0`, is known."""
    words = {
        row["engine"]: tuple(row["change"]) for row in table("changes.json") if row["verdict"] == verdict
    }
    return words.get(engine.lower().partition(" ")[0], words[""])


def _unknown(*why: str) -> Verdict:
    return Verdict(UNKNOWN, tuple(why), unseen=UNSEEN)


def _checked_gap(probe: Seen) -> float:
    """The usual gap, s. `_Doubt` where the rounds need not be looked at."""
    chats = [s for s in probe.streams if s.kind == "chat"]
    if not probe.rounds:
        raise _Doubt(f"no round with a document was run{f': {probe.notes[-1]}' if probe.notes else ''}")
    buffered = [s for s in probe.of("without", "chat") or chats if in_bursts(s)]
    if buffered:
        raise _Doubt(
            f"the stream is buffered: {len(buffered[0].tokens)} tokens came in bursts. A proxy or gateway "
            "keeps them back, or the engine hands over several steps at once; their times say nothing"
        )
    usual = usual_gap(probe)
    if not usual and any(len(s.gaps) >= 8 for s in chats):
        raise _Doubt(
            "the stream is buffered: of the chats' tokens every second one or more came together with another. "
            "A proxy or gateway keeps them back; their times say nothing"
        )
    if not usual:
        raise _Doubt("too few tokens of the early chats came to know their usual gap")
    return usual


def _read(probe: Seen, name: str, usual: float) -> _Round:
    """What one round says. `_Doubt` where it says nothing."""
    documents, chats, late = probe.of(name, "document"), probe.of(name, "chat"), probe.of(name, "late")
    for stream in (*documents, *chats, *late):
        if stream.error:
            raise _Doubt(f"{stream.name}: {stream.error}")
    if len(documents) != 1:
        raise _Doubt(f"{name} has {len(documents)} documents; one is needed")
    if not chats:
        raise _Doubt(f"{name} has no early chat")
    document = documents[0]
    if document.ttft is None:
        raise _Doubt("the document's first token did not come in time")
    sent, first = document.sent, document.tokens[0]
    lasted = first - sent
    gone = [s for s in chats if s.ended is not None and s.ended <= first]
    if gone:
        raise _Doubt(
            f"{len(gone)} of {len(chats)} early chats ended before the document's first token: it may "
            "have waited for a seat (max_num_seqs, or request-level scheduling), or the answers were short"
        )
    if lasted < ENOUGH * usual:
        raise _Doubt(
            f"the document's first token came after {measured(lasted)}, only {lasted / usual:.2g} "
            "times the usual gap: give a longer document (or the server has it cached)"
        )
    if any(not s.tokens or s.tokens[-1] < first for s in chats):
        raise _Doubt("an early chat got no token after the document's first one")
    if any(len(s.tokens) < 2 or s.tokens[0] >= first for s in chats):
        raise _Doubt("an early chat had fewer than 2 tokens, or none before the document's first one")
    if any(_caught_up(s.tokens, usual) for s in chats):
        raise _Doubt(
            "after the chats' longest silence several of their tokens came at once: the network or this "
            "machine held them back, and their times say little; probe again from a quiet machine"
        )
    silent = [_silence(s.tokens, sent, first, usual) for s in chats]
    share = median(silent)
    longest = max(gap for s in chats for gap in s.gaps)
    evidence = [
        f"the document's first token came after {measured(lasted)}, {lasted / usual:.3g} times the usual gap "
        f"of {measured(usual)}",
        f"the chats' longest silence was {measured(longest)}: one gap covers {share:.0%} of that time",
    ]
    if min(silent) >= WHOLE:
        together, said = _together(chats, document, usual)
        return _Round(True, (*evidence, said), n_steps=(1, 1) if together else None)
    if max(silent) > PARTLY:
        raise _Doubt(
            f"one silence covers {share:.0%} of the document's prefilling, more than chunks of equal "
            "size would and less than the whole of it: give a longer document"
        )
    counts = [_steps(s.tokens, sent, first, usual) for s in chats]
    if any(count is None for count in counts):
        raise _Doubt(
            "the chats' gaps did not grow while the document was prefilled: it ran elsewhere (another "
            "replica, a prefill server), was cached, or its chunks are too small to be seen"
        )
    if (apart := max(_stands_out(s.tokens, sent, first) for s in chats)) > STANDS_OUT:
        raise _Doubt(
            f"one silence is {apart:.2g} times as long as the chats' other gaps while the document was "
            "prefilled, which chunks of equal size would not do: probe again from a quiet machine"
        )
    least, most = min(c[0] for c in counts if c), max(c[1] for c in counts if c)
    said = f"{least}" if least == most else f"{least} to {most}"
    evidence.append(f"chats got tokens in between: {said} steps carried the document")
    passes, said = _newcomers(probe, name, usual)
    return _Round(False, (*evidence, said), passes, (least, most))


def _caught_up(tokens: Sequence[float], usual: float) -> bool:
    """Whether tokens that were due during the longest silence came in a burst at its end."""
    gaps = [b - a for a, b in pairwise(tokens)]
    longest = max(range(len(gaps)), key=gaps.__getitem__)
    after = gaps[longest + 1 : longest + 4]
    return gaps[longest] > 3 * usual and sum(gap < 0.2 * usual for gap in after) >= 2


def _silence(tokens: Sequence[float], sent: float, first: float, usual: float) -> float:
    """The longest gap's share of the document's prefilling, counted from where the gaps begin to be long.

    The request has a way to go and a step may be under way: gaps as usual after its arrival, up to a fifth of
    the time, are no part of its prefilling.
    """
    during = [(a, b) for a, b in pairwise(tokens) if b > sent and a < first]
    begin = next((a for a, b in during if b - a > 2 * usual), sent)
    begin = max(begin, sent)
    if begin - sent > 0.2 * (first - sent):
        begin = sent
    under_way = next((b for a, b in during if a < sent), sent)
    if begin == sent and under_way - sent <= 3 * usual:  # the step under way is not the document's
        begin = under_way
    if first <= begin:
        return 1.0
    return max((min(b, first) - max(a, begin)) / (first - begin) for a, b in during if b > begin)


def _together(chats: Sequence[Stream], document: Stream, usual: float) -> tuple[bool, str]:
    """Whether the chats' tokens after their silence came in the same step as the document's first one."""
    after = median(min(abs(t - document.tokens[0]) for t in s.tokens) for s in chats)
    if after < 0.25 * usual:
        return True, (
            "the chats' next tokens came together with the document's first: one step held them all, so that "
            f"its token budget is at least the document's {document.n_prompt:,} tokens"
        )
    said = f"the chats' next tokens came {measured(after)} after the document's first"
    if after > 0.7 * usual:
        return False, f"{said}, in a later step: the prompt's steps left the decodes out, whatever their size"
    return False, f"{said}: it is not clear whether in the same step"


def _steps(tokens: Sequence[float], sent: float, first: float, usual: float) -> tuple[int, int] | None:
    """Steps that carried some of the document, at least and at most: the long ones among a chat's gaps.

    None where the gaps did not grow. A step counts as long from the geometric mean of the usual gap and the
    median one on; those near it are what lies between the two counts. The last step always carries some of
    the document, however little: it hands over both its first token and the chats' next one, so that a chat's
    token may be here a little after it.
    """
    near = 0.5 * usual
    gaps = [b - a for a, b in pairwise(tokens) if sent < b and b <= first + near and a < first - near]
    if len(gaps) < 2 or median(gaps) < DISTURBED * usual:
        return None
    edge = math.sqrt(usual * median(gaps))
    least, most = (1 + sum(gap > share * edge for gap in gaps[:-1]) for share in (1.15, 0.85))
    return least, most


def _stands_out(tokens: Sequence[float], sent: float, first: float) -> float:
    """The longest gap of a document's prefilling, as a multiple of the median one."""
    gaps = [b - a for a, b in pairwise(tokens) if b > sent and a < first]
    return max(gaps) / max(median(gaps), 1e-9)


def _newcomers(probe: Seen, name: str, usual: float) -> tuple[bool, str]:
    """Whether newcomers passed the document in the round `name`, and the evidence. `_Doubt` where it cannot be told.

    A newcomer that waited says something only if it could have passed: if the document still had steps to go
    (`ROOM`), and if a seat was free. One that gets its first token after the document's *last* waited for its
    seat, as far as a client can tell.
    """
    (document,), chats, late = probe.of(name, "document"), probe.of(name, "chat"), probe.of(name, "late")
    first = document.tokens[0]
    alone = [s.ttft for s in probe.of("without", "late") if s.ttft is not None]
    if not alone:
        raise _Doubt("no late chat was answered in the round without a document")
    usually, shares, waits, crowded = max(alone), [], [], False
    for stream in late:
        left = first - stream.sent
        if left < max(ENOUGH * usual, 0.2 * (first - document.sent)) or left < 3 * usually:
            continue
        if stream.ttft is None:
            raise _Doubt(f"{stream.name}: its first token did not come in time")
        share = stream.ttft / left
        steps = median(sum(stream.sent < t < first for t in chat.tokens) for chat in chats)
        if share > PASSED and steps < ROOM:
            crowded = True
            continue
        if share >= WAITED and len(document.tokens) > 2 and stream.tokens[0] >= document.tokens[-1]:
            raise _Doubt(
                f"{stream.name} got its first token after the document's last one: it may have waited for the "
                "document's seat (max_num_seqs), and not for its prefilling"
            )
        shares.append(share)
        waits.append(stream.ttft)
        behind = stream.tokens[0] - first
        if behind > max(0.5 * (first - document.sent), 10 * usually):
            raise _Doubt(
                f"{stream.name} waited {measured(behind)} longer than the document: something else holds it, "
                "a seat or other clients"
            )
    if crowded and not shares:
        raise _Doubt(
            f"the document had fewer than {ROOM} steps to go when the late chats came, too few for one of them "
            "to pass it: give a longer document"
        )
    if not shares:
        raise _Doubt(
            "no late chat came early enough to tell whether it waits for the document (a late chat's first "
            f"token takes {measured(usually)} without it)"
        )
    said = f"late chats' first tokens came after {', '.join(map(measured, waits))}"
    if max(shares) <= PASSED:
        return True, f"{said}, long before the document's"
    if min(shares) >= WAITED:
        return False, f"{said}, with or after the document's"
    raise _Doubt(f"{said}: some waited for the document and some did not")


def _tokens_a_step(probe: Seen, rounds: Sequence[_Round]) -> StepTokens | None:
    """From the documents' sizes and the steps that carried them."""
    low, high = 0.0, math.inf
    for name, each in zip(probe.rounds, rounds):
        if each.n_steps is None:  # prompts go first, in pieces of any size
            return None
        (document,) = probe.of(name, "document")
        least, most = each.n_steps
        n_decodes = len(probe.of(name, "chat"))
        low = max(low, document.n_prompt / most + n_decodes)
        whole = least - 1 - (least >= MANY)  # among many steps one may be a hitch, no chunk
        high = min(high, document.n_prompt / whole + n_decodes if whole else math.inf)
    if not low:
        return None
    if low > high:  # rounds that are a step apart
        low, high = high, low
    return StepTokens(low, high)

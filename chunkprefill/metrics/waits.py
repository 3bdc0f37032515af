"""Waiting, request by request and token by token: each metric is one function of a trace."""

from __future__ import annotations

from math import nan

import numpy as np

from chunkprefill.metrics.events import Events
from chunkprefill.scheduling.trace import Trace
from chunkprefill.whole import as_real, briefly

Source = Trace | Events


def ttft(source: Source) -> np.ndarray:
    """[requests] s; nan for a request that emitted nothing. See DEFINITIONS."""
    e = Events.of(source)
    return e.by_request(e.first_tokens, e.ended[e.first_tokens]) - e.arrivals


def latency(source: Source) -> np.ndarray:
    """[requests] s; nan for a request that emitted nothing. See DEFINITIONS."""
    e = Events.of(source)
    last = e.tokens[-1:] if len(e.tokens) < 2 else e.tokens[np.concatenate((~e.follows, [True]))]
    return e.by_request(last, e.ended[last]) - e.arrivals


def tbt(source: Source) -> np.ndarray:
    """[tokens that are not a request's first] s, by request, in order. See DEFINITIONS."""
    e = Events.of(source)
    return np.diff(e.ended[e.tokens])[e.follows]


def largest_tbt(source: Source) -> np.ndarray:
    """[requests] s: each request's longest silence between two tokens; nan for one of a single token."""
    e = Events.of(source)
    out, gaps = np.full(len(e.arrivals), nan), tbt(e)
    owner = e.request[e.tokens[e.decoded]]
    if len(owner):
        begins = np.flatnonzero(np.concatenate(([True], owner[1:] != owner[:-1])))
        out[owner[begins]] = np.maximum.reduceat(gaps, begins)
    return out


def tpot(source: Source) -> np.ndarray:
    """[requests] s; nan for a request of fewer than two tokens. See DEFINITIONS."""
    e = Events.of(source)
    n = e.token_counts
    return np.where(n > 1, (latency(e) - ttft(e)) / np.maximum(n - 1, 1), nan)


def normalized_latency(source: Source) -> np.ndarray:
    """[requests] s a token. See DEFINITIONS."""
    e = Events.of(source)
    return latency(e) / np.maximum(e.token_counts, 1)


def scheduling_delay(source: Source) -> np.ndarray:
    """[requests] s; nan for a request that never ran. See DEFINITIONS."""
    e = Events.of(source)
    return e.by_request(e.first, e.start[e.step[e.first]]) - e.arrivals


def stalls(source: Source) -> np.ndarray:
    """[tokens that are not a request's first] s, like `tbt`: how much of each gap passed in others' steps:
    from the end of the step that last ran the request to the end of the one before it runs again.
    """
    e = Events.of(source)
    row = 1 + np.flatnonzero(e.same & (e.step[1:] - e.step[:-1] > 1))  # its request sat out a step or more
    before, after = e.tokens[e.decoded - 1], e.tokens[e.decoded]
    out = np.zeros(len(after))
    gap = np.searchsorted(after, row)  # a gap may hold several rows: recomputation after a preemption
    inside = gap < len(after)
    inside[inside] = before[gap[inside]] < row[inside]  # not so before the first token
    row, gap = row[inside], gap[inside]
    np.add.at(out, gap, np.maximum(e.end[e.step[row] - 1] - e.ended[row - 1], 0.0))
    return out


def interference(source: Source) -> np.ndarray:
    """[tokens that are not a request's first] s, like `tbt`; nan where the trace has no decode-only step."""
    e = Events.of(source)
    seconds, c = e.end - e.start, e.trace.columns
    alone = np.concatenate(([0], np.cumsum(np.asarray(c["emits"]) & (np.asarray(c["length"]) == 1))))
    n_decodes = np.diff(alone[np.asarray(c["offset"]).astype(np.int64)])
    firsts = e.first_tokens
    np.subtract.at(n_decodes, e.step[firsts[e.length[firsts] == 1]], 1)  # a prompt's last token is no decode
    pure = (n_decodes == e.n_rows) & (e.n_rows > 0)
    if not pure.any():
        return np.full(len(e.decoded), nan)
    order = np.flatnonzero(pure)[np.argsort(n_decodes[pure], kind="stable")]
    sizes, at = np.unique(n_decodes[order], return_index=True)
    medians = [float(np.median(part)) for part in np.split(seconds[order], at[1:])]
    extra = np.maximum(seconds - np.interp(n_decodes, sizes, medians), 0.0)
    return np.where(pure, 0.0, extra)[e.step[e.tokens[e.decoded]]]


def check_bound(name: str, bound: float) -> None:
    """ValueError unless `bound` is a number of seconds of at least 0; an infinite one allows any wait."""
    if (number := as_real(bound)) is None or not number >= 0:
        raise ValueError(f"{name} is {briefly(bound)}: a number of seconds, at least 0, is needed")


def goodput(source: Source, *, ttft_bound: float, tbt_bound: float) -> float:
    """Requests a second that met both bounds (s); `math.inf` asks for one alone. See DEFINITIONS."""
    e = Events.of(source)
    check_bound("ttft_bound", ttft_bound)
    check_bound("tbt_bound", tbt_bound)
    met = (ttft(e) <= ttft_bound) & ~(largest_tbt(e) > tbt_bound)
    return float(met.sum()) / duration(e) if duration(e) else 0.0


def duration(source: Source) -> float:
    """s. See DEFINITIONS."""
    e = Events.of(source)
    return float(e.end[-1] - e.arrivals.min()) if len(e.end) else 0.0

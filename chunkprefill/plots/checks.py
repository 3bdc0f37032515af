"""Refuse in one line what cannot be drawn, before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chunkprefill.scheduling.trace import Trace
from chunkprefill.whole import as_real, briefly, needed

MOST_CELLS = 20_000  # of one picture: more cannot be told apart, and make a page of many megabytes


def few_enough(n_cells: int, what: str) -> None:
    """ValueError where a picture would have more than `MOST_CELLS`."""
    if n_cells > MOST_CELLS:
        raise ValueError(f"{what} are {n_cells:,} cells, and a picture can show {MOST_CELLS:,}")


def runs(traces: Any, *, steps: bool = True) -> None:
    """ValueError unless `traces` is {title: Trace} with at least one entry, and each (`steps`) ran a step."""
    if not isinstance(traces, Mapping):
        raise ValueError(f"traces is {briefly(traces)}: {{title: trace}} is needed")
    if not traces:
        raise ValueError("no traces to draw: {title: trace} is empty")
    for title, trace in traces.items():
        ran(trace, f"trace {title!r}", steps=steps)


def ran(trace: Trace, name: str = "the trace", *, steps: bool = True) -> None:
    """ValueError for what is no trace, and for one without a step, where `steps` are needed."""
    needed(name, trace, Trace)
    if steps and not len(trace.steps):
        raise ValueError(f"{name} has no steps: nothing ran")


def ends_after(until: float | None) -> None:
    """ValueError for an axis that would end at 0 s or before."""
    if until is not None and ((end := as_real(until)) is None or not 0 < end < math.inf):
        raise ValueError(f"until={until!r}: the axis ends after 0 s")


def one_of(name: str, value: Any, known: Iterable[Any]) -> None:
    """ValueError, with the names there are, for an unknown one."""
    known = list(known)
    if value not in known:
        raise ValueError(f"no {name} {value!r}; there are {', '.join(map(str, known))}")


def amounts(name: str, values: Iterable[Any]) -> list[float]:
    """`values` as finite numbers of at least 0, one or more of them."""
    given = list(values)
    if not given:
        raise ValueError(f"{name} has 0 numbers, at least 1 needed")
    numbers = []
    for value in given:
        number = as_real(value)
        if number is None or not 0 <= number < math.inf:
            raise ValueError(f"{name} has {value!r}: a finite number of at least 0 is needed")
        numbers.append(float(number))
    return numbers


def a_word_each(name: str, words: Sequence[str], n: int) -> None:
    """ValueError unless there is one word for each of `n`, or none at all."""
    if len(words) not in (0, n):
        raise ValueError(f"{name} has {len(words)} words for {n}")

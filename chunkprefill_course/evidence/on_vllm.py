"""Evidence recorded on vLLM itself, on a CPU: what its clients saw, under its own settings.

Each function reads the recording that travels with the package, and says so in its setting; ValueError where
there is none. A run was made once, so every verdict rests on a difference of more than twice or on which token
came first, never on a few per cent. Each could fail: vLLM decided, not this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chunkprefill_course.evidence.evidence import Evidence, Number
from chunkprefill_course.vllm_recording import vllm_number, vllm_rows, vllm_where


def _column(settings: str) -> Mapping[str, Any]:
    """vLLM's own column of a recorded run."""
    rows = vllm_rows((settings,))
    if not rows:
        raise ValueError("no run of vLLM is recorded with this package")
    return rows[settings]["columns"]["vLLM"]


def _seconds(settings: str, what: str) -> float:
    """A measure of that column, s."""
    seconds = vllm_number(_column(settings), what)
    if seconds is None:
        raise ValueError(f"{settings}: {what!r} was not recorded")
    return float(seconds)


def _at(settings: str, rid: str) -> float:
    """s from the start of the run: when a request's first token came."""
    return float(_column(settings)["first_s"][rid])


def _number(label: str, seconds: float) -> Number:
    return Number(label, float(f"{seconds:.3g}"), "s", "recorded")


def _setting(words: str) -> str:
    return f"{words}. One run each: {vllm_where()}."


def vllm_bounds_gaps(*, changed: bool = False) -> Evidence:
    """Does a smaller budget bound what chats wait while a document comes? changed: one that holds all of it.

    It would fail if vLLM let prompts go before decodes, whatever their chunks.
    """
    small = "budget 4096" if changed else "budget 256"
    whole, chunks = _seconds("chunked prefill off", "gap"), _seconds(small, "gap")
    return Evidence(
        claim="vllm-bounds-gaps",
        holds=chunks < 0.5 * whole,
        setting=_setting("Two chats decode, a document of 3,500 tokens arrives"),
        numbers=(
            _number("chats' longest gap, chunked prefill off", whole),
            _number(f"chats' longest gap, {small}", chunks),
        ),
        otherwise="give a budget that holds the whole document; chunked prefill stays on.",
    )


def vllm_newcomers(*, changed: bool = False) -> Evidence:
    """Does a chat that comes behind the document wait for it? changed: with a threshold on long prompts.

    It would fail if vLLM let a short prompt into an iteration before the long one is done.
    """
    settings = "budget 256, threshold 128" if changed else "budget 256"
    behind = _seconds(settings, "behind")
    return Evidence(
        claim="vllm-newcomers",
        holds=behind >= 0,
        setting=_setting(f"A document of 3,500 tokens arrives at 1.0 s, a chat of 64 at 1.3 s; {settings}"),
        numbers=(
            _number("the document's first token, at", _at(settings, "document")),
            _number("the late chat's first token, at", _at(settings, "late")),
        ),
        otherwise="cap what one prompt gets of an iteration: --long-prefill-token-threshold 128.",
    )


def vllm_priority(*, changed: bool = False) -> Evidence:
    """Does priority let a chat pass the document that waits, and only that? changed: by arrival.

    It would fail on either side: if the chat interrupted the first document, or waited for the second.
    """
    settings = "two documents, by arrival" if changed else "two documents, by priority"
    one, two, late = (_at(settings, rid) for rid in ("document 1", "document 2", "late"))
    return Evidence(
        claim="vllm-priority",
        holds=one <= late < one + 0.5 * (two - one),
        setting=_setting(
            f"Two documents of 3,500 tokens arrive at 1.0 and 1.1 s, an urgent chat at 1.3 s; {settings}"
        ),
        numbers=(
            _number("the first document's first token, at", one),
            _number("the late chat's", late),
            _number("the second document's", two),
        ),
        otherwise="serve by arrival, not by priority.",
    )


def vllm_threshold(*, changed: bool = False) -> Evidence:
    """Does a cap on one prompt's share let a chat in beside a document? changed: no cap.

    It would fail if the cap left room that the scheduler does not offer to the queue.
    """
    settings = "budget 256" if changed else "budget 256, threshold 128"
    late, document = _seconds(settings, "late"), _seconds(settings, "document")
    return Evidence(
        claim="vllm-threshold",
        holds=late < 0.25 * document,
        setting=_setting(f"A chat of 64 tokens arrives 0.3 s behind a document of 3,500; {settings}"),
        numbers=(
            _number("the late chat's first token after", late),
            _number("the document's first token after", document),
            _number("chats' longest gap", _seconds(settings, "gap")),
        ),
        otherwise="set no threshold.",
    )


def vllm_prefix(*, changed: bool = False) -> Evidence:
    """Does a document that is asked about again need prefilling again? changed: without the prefix cache.

    What counts is how long the second question waits for its first token by itself: since it was sent, or since
    the first one's came, where the recording sent it while the document was being read. It would fail if vLLM
    read the document twice.
    """
    settings = "the document again, no prefix cache" if changed else "the document again, prefix cache"
    once, own = _seconds(settings, "document"), _seconds(settings, "own")
    sent = _at(settings, "again") - _seconds(settings, "again")
    when = "while it is being read" if sent < _at(settings, "document") else "when that has been answered"
    return Evidence(
        claim="vllm-prefix",
        holds=own < 0.1 * once,
        setting=_setting(
            f"The same document of 3,500 tokens arrives at 1.0 and, {when}, at {sent:.1f} s; {settings}"
        ),
        numbers=(
            _number("the first one's first token, at", _at(settings, "document")),
            _number("the second one's, at", _at(settings, "again")),
        ),
        otherwise="switch the prefix cache off.",
    )

"""`chunkprefill advise` as a form: a model, a device, a load and promises; the budget to set, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from chunkprefill.configs import find_device, find_model
from chunkprefill.servers.advise import BUDGETS, Advice, Mix, Place, Promise, Row, table_rows
from chunkprefill.simulation.layout import Layout
from chunkprefill_course.forms.feedback import code_block

MOST = 1000  # requests that a page simulates, once for each budget
USUAL = {"model": "llama-3-8b", "device": "h100", "n": 120, "promises": "tbt p99 50ms\nttft chats p99 2s"}


def form() -> dict[str, Any]:
    """What the form begins with."""
    mix = Mix()
    load = {name: getattr(mix, name) for name in ("chats_per_s", "chat", "documents_per_s", "document")}
    return USUAL | load | {"most": MOST}


def advised(wanted: Mapping[str, Any], tell: Callable[[str], Any] = lambda words: None) -> dict[str, Any]:
    """The advice as text and html, or `wrong`: one line that names what cannot be."""
    try:
        found = _advice(wanted, tell)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        return {"wrong": str(error)[:500]}
    table, text = found.table(), str(found)
    rest = text.removeprefix(str(table)).strip()
    head = (
        f"Set a budget of {found.best:,} tokens a step." if found.best else "No budget keeps every promise."
    )
    html = f"<p><strong>{escape(head)}</strong></p>{table._repr_html_()}{code_block(rest)}"
    return {"text": text, "html": html, "best": found.best}


def _advice(wanted: Mapping[str, Any], tell: Callable[[str], Any]) -> Advice:
    load = Mix(
        float(wanted["chats_per_s"]),
        (_count(wanted, "chat_prompt"), _count(wanted, "chat_output")),
        float(wanted["documents_per_s"]),
        (_count(wanted, "document_prompt"), _count(wanted, "document_output")),
        _count(wanted, "n"),
    )
    if load.n > MOST:
        raise ValueError(f"{load.n:,} requests, a page simulates at most {MOST:,}")
    promises = tuple(Promise.of(line) for line in str(wanted["promises"]).splitlines() if line.strip())
    if not promises:
        raise ValueError("no promise to keep: give one a line, such as 'tbt p99 50ms'")
    model, device = str(wanted["model"]), str(wanted["device"])
    formats = str(wanted.get("dtype") or "bf16"), str(wanted.get("kv_dtype") or "") or None
    place = Place(find_model(model), find_device(device), Layout(*formats, _count(wanted, "tp")), model)
    place.cost  # noqa: B018  (what is wrong with the place is said before anything is simulated)
    requests, rows = tuple(load.requests()), list[Row]()
    for i, budget in enumerate(BUDGETS, 1):
        tell(f"Simulating a budget of {budget:,} tokens a step, {i} of {len(BUDGETS)}.")
        rows += table_rows(requests, place, [budget])
    told = (
        requests if wanted.get("elsewhere") else ()
    )  # what would change the advice takes as long again, each
    if told:
        tell("Trying what would change the advice.")
    return Advice(place, str(load), told, promises, tuple(rows))


def _count(wanted: Mapping[str, Any], name: str) -> int:
    value = wanted[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 1e9:
        raise ValueError(f"{name.replace('_', ' ')}: {value!r} is no whole number")
    if value != int(value):
        raise ValueError(f"{name.replace('_', ' ')}: {value!r}; a whole number is needed")
    return int(value)

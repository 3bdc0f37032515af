"""Steps to put in order: the order is played, on real things, and stops at the first rule that it breaks."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

from chunkprefill_course.forms.feedback import (
    Feedback,
    element,
    fold,
    heading,
    hint_folds,
    inline,
    plain_text,
)


class Broken(Exception):
    """Raised by a step that cannot be taken yet; the message is the rule, with its numbers."""


@dataclass(frozen=True)
class Card:
    """One card to be put in order: a short key, its words, and what it does to the bench, or why not."""

    key: str
    text: str
    act: Callable[[Any], None]


@dataclass(frozen=True)
class Move:
    """One step as it was played: the words and the picture of what the bench is like afterwards."""

    key: str
    ok: bool
    said: str
    picture: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """An ordering exercise; every order that works is accepted.

    start:   makes a fresh bench: the real things that the steps act on
    steps:   in one order that works (the solution)
    said:    said(bench) tells in a sentence how things stand
    picture: picture(bench) draws them, as an inline `<svg>`
    finish:  finish(bench) looks at the result: "" or what is wrong with it
    hints:   three, from faint to plain

    memory:  memory(bench) is what else the bench looks and behaves like depends on, as text

    How the bench looks and what it allows may depend on which steps were taken and on `memory`, not on their
    order: the page plays any order from a table of states, one for each that can be reached (`states`).
    """

    id: str
    title: str
    prompt: str
    start: Callable[[], Any]
    steps: tuple[Card, ...]
    said: Callable[[Any], str]
    picture: Callable[[Any], str]
    finish: Callable[[Any], str]
    hints: tuple[str, str, str]
    memory: Callable[[Any], str] = lambda bench: ""
    minutes: int = 4
    level: str = "understand"

    def check(self, order: str | Iterable[str] | EllipsisType | None) -> Feedback:
        """Play an order, keys in a list or in one string; say the first rule that it breaks. Never raises."""
        if order is None or order is ... or not order:
            return Feedback(ok=None, message=f"Put these in order: {', '.join(self.shuffled())}.")
        try:
            keys = order.replace(",", " ").split() if isinstance(order, str) else [str(key) for key in order]
        except Exception:  # whatever it is, it is not an order
            return Feedback(
                ok=None, message=f"Give the keys in a list or a string, such as {self.shuffled()}."
            )
        known = [step.key for step in self.steps]
        if strange := [key for key in keys if key not in known]:
            return Feedback(ok=None, message=f"There is no step `{strange[0][:40]}`; use {', '.join(known)}.")
        if twice := [key for key in known if keys.count(key) > 1]:
            return Feedback(
                ok=False, message=f"`{twice[0]}` is there {keys.count(twice[0])} times; once is enough."
            )
        bench = self.start()
        for done, move in enumerate(self.play(keys, bench)):
            if not move.ok:
                before = " ".join(keys[:done]) or "nothing"
                message = f"`{move.key}` comes too early: {move.said}."
                return Feedback(
                    ok=False, message=message, case=f"`{move.key}` after `{before}`", picture=move.picture
                )
        picture = self.picture(bench)
        if left := [key for key in known if key not in keys]:
            message = f"So far it works. Still to come: {', '.join(sorted(left))}."
            return Feedback(ok=False, message=message, picture=picture)
        if wrong := self.finish(bench):
            return Feedback(ok=False, message=wrong, picture=picture)
        return Feedback(ok=True, message=f"This order works. {self.said(bench)}", picture=picture)

    def play(self, keys: Iterable[str], bench: Any = None) -> Iterator[Move]:
        """Take the steps one after the other; the first that breaks a rule is the last move."""
        bench = self.start() if bench is None else bench
        steps = {step.key: step for step in self.steps}
        for key in keys:
            try:
                steps[key].act(bench)
            except Broken as rule:
                yield Move(key, False, str(rule), self.picture(bench))
                return
            yield Move(key, True, self.said(bench), self.picture(bench))

    def states(self) -> dict[str, Any]:
        """Every state that some order reaches, with each step's effect there: what the page plays.

        A state is named by its steps in canonical order, joined by blanks, and by what the bench remembers
        besides: `{name: {said, picture, next}}`, where `next` maps a key to the name of the state after it,
        or to `{"broken": rule}`.
        """
        table: dict[str, Any] = {}
        ahead: list[tuple[str, ...]] = [()]
        seen = {""}
        while ahead:
            path = ahead.pop(0)
            moves: dict[str, Any] = {}
            for key in (step.key for step in self.steps if step.key not in path):
                *_, last = self.play((*path, key))
                moves[key] = self._name((*path, key)) if last.ok else {"broken": last.said}
                if last.ok and moves[key] not in seen:
                    seen.add(moves[key])
                    ahead.append((*path, key))
            bench = self.start()
            list(self.play(path, bench))
            table[self._name(path)] = {
                "said": self.said(bench),
                "picture": self.picture(bench),
                "next": moves,
            }
        return table

    def shuffled(self) -> list[str]:
        """The order in which the cards are dealt: the same at every run, and not one that works."""
        keys, dealer = [step.key for step in self.steps], random.Random(self.id)
        while all(move.ok for move in self.play(keys)):
            dealer.shuffle(keys)
        return keys

    def _name(self, path: tuple[str, ...]) -> str:
        if not path:
            return ""
        bench = self.start()
        list(self.play(path, bench))
        steps = " ".join(step.key for step in self.steps if step.key in path)
        return f"{steps} {self.memory(bench)}".strip()

    def __str__(self) -> str:
        texts = {step.key: step.text for step in self.steps}
        cards = (f"  {key}: {plain_text(texts[key])}" for key in self.shuffled())
        title = f"{self.title} ({self.minutes} min, {self.level})"
        return "\n".join([title, plain_text(self.prompt), *cards])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        texts, states = {step.key: step.text for step in self.steps}, self.states()
        cards = "".join(
            f'<li data-key="{key}"><span class="cp-text">{inline(texts[key])}</span> <code>{key}</code></li>'
            for key in self.shuffled()
        )
        solution = "".join(f"<li>{inline(step.text)}</li>" for step in self.steps)
        data = json.dumps({"states": states}, ensure_ascii=False, sort_keys=True).replace("</", "<\\/")
        inner = (
            f"{heading(self)}<p>{inline(self.prompt)}</p>"
            f'<p class="cp-nojs">In a notebook, give the keys to <code>.check("…")</code>, in your order.</p>'
            f'<ol class="cp-steps">{cards}</ol>'
            f'<div class="cp-stage">{states[""]["picture"]}</div>'
            f'<p class="cp-said" role="status">{inline(states[""]["said"])}</p>'
            f"{hint_folds(self.hints)}{fold('One order that works', f'<ol>{solution}</ol>')}"
            f'<script type="application/json" class="cp-states">{data}</script>'
        )
        return element(inner, kind="order", id=f"cp-{self.id}", data_id=self.id)

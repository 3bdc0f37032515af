"""A question with a handful of answers, each with its own reply; and a prediction that is kept for later."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from typing import TypeGuard

from chunkprefill.whole import needed
from chunkprefill_course.forms.feedback import Feedback, code_block, element, inline
from chunkprefill_course.forms.guess import Found, off_by, words_of

Guess = str | float | EllipsisType | None


@dataclass(frozen=True)
class Option:
    """One answer: a short key, its words, and the reply that says why it is right or what it overlooks.

    `code` is shown beneath the words, as a program; `picture`, an inline `<svg>`, beneath the reply.
    """

    key: str
    text: str
    reply: str
    ok: bool = False
    code: str = ""
    picture: str = ""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A question with one right answer, which works on a page without any script.

    id:      unique in the book; ids in the page and the key in the browser's storage are made from it
    prompt:  the question
    options: two or more, each with its own reply; exactly one is right
    predict: a guess before the answer is known: nothing is given away, the choice is kept in the reader's
             browser, and `recall` shows it again beside what was measured. Then no option need be right yet
    picture: an inline `<svg>` that the question is about
    number:  of a prediction: what a number that the reader may add counts, such as "times as long"

    Raises ValueError for keys that repeat, missing or shared replies, and none or several right answers.
    """

    id: str
    prompt: str
    options: tuple[Option, ...]
    predict: bool = False
    picture: str = ""
    number: str = ""

    def __post_init__(self) -> None:
        keys, replies = [o.key for o in self.options], [o.reply for o in self.options]
        right = sum(o.ok for o in self.options)
        if len(keys) < 2 or len(set(keys)) < len(keys):
            raise ValueError(f"{self.id}: needs two options or more with keys of their own, has {keys}")
        if not all(replies) or len(set(replies)) < len(replies):
            raise ValueError(f"{self.id}: each option needs a reply of its own")
        if right != 1 and not (self.predict and right == 0):
            raise ValueError(f"{self.id}: {right} options are right, exactly 1 should be")
        if self.number and not self.predict:
            raise ValueError(f"{self.id}: only a prediction asks for a number")

    def check(self, answer: Guess) -> Feedback:
        """The reply to the option of this key; `...` or None is "not attempted". Never raises."""
        if answer is None or answer is ...:
            return Feedback(ok=None, message=f"Choose one of {self._keys}.")
        if self.number and _is_number(answer):
            message = f"You predict: {answer:g} {self.number}. The measured answer comes further down."
            return Feedback(ok=None, message=message)
        option = self.option(answer)
        if option is None:
            return Feedback(
                ok=None, message=f"There is no option {str(answer)[:40]!r}; choose one of {self._keys}."
            )
        if self.predict:
            return Feedback(
                ok=None, message=f"You predict: {option.text} The measured answer comes further down."
            )
        return Feedback(ok=option.ok, message=option.reply, picture=option.picture)

    def option(self, answer: object) -> Option | None:
        """The option of this key, whatever its case, or None."""
        wanted = answer.strip().lower() if isinstance(answer, str) else None
        return next((o for o in self.options if o.key.lower() == wanted), None)

    @property
    def _keys(self) -> str:
        return ", ".join(o.key for o in self.options)

    def __str__(self) -> str:
        return "\n".join([self.prompt, *(f"  {o.key}) {o.text}" for o in self.options)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(self._row(option) for option in self.options)
        group = f"<fieldset><legend>{inline(self.prompt)}</legend>{self.picture}{rows}</fieldset>"
        kind = "predict" if self.predict else "choice"
        asked = {"data_number": self.number} if self.number else {}
        return element(group, kind=kind, id=f"cp-{self.id}", data_id=self.id, **asked)

    def _row(self, o: Option) -> str:
        here = f"cp-{self.id}-{o.key}"
        if self.predict:
            reply, mark = "Remember it: the measured answer comes further down this page.", "cp-kept"
        else:
            verdict = Feedback(ok=o.ok, message="").verdict
            reply, mark = (
                f'<span class="cp-verdict">{verdict}</span> {inline(o.reply)}{o.picture}',
                "cp-right" if o.ok else "",
            )
        program = code_block(o.code) if o.code else ""
        return (
            f'<div class="cp-opt"><input type="radio" name="cp-{self.id}" id="{here}" value="{o.key}">'
            f'<label for="{here}">{inline(o.text)}</label>{program}'
            f'<div class="cp-why {mark}">{reply}</div></div>'
        )


def _is_number(answer: object) -> TypeGuard[float]:
    return isinstance(answer, int | float) and not isinstance(answer, bool)


@dataclass(frozen=True)
class Recalled:
    """A prediction beside the measured answer; made by `recall`."""

    choice: Choice
    answer: str
    measured: str
    mine: Guess
    label: str = "Measured"
    value: Found = None

    def _made(self) -> str:
        """What the reader predicted, and how far off a number was; "" where they did not."""
        if guess := self.choice.option(self.mine):
            return f"You predicted: {guess.text}"
        if not (self.choice.number and _is_number(self.mine)):
            return ""
        off = off_by(float(self.mine), self.value)
        return f"You predicted: {self.mine:g} {self.choice.number}{f', {off}' if off else ''}."

    def __str__(self) -> str:
        made = self._made() or "You made no prediction here."
        right = self.choice.option(self.answer)
        assert right is not None
        return f"{made}\n{self.label}: {self.measured}\nSo: {right.text} {right.reply}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        mine = inline(self._made())
        if not mine:
            mine = f'Compare with your answer to <a href="#cp-{self.choice.id}">the question above</a>.'
        rows = "".join(
            f'<li data-key="{o.key}"{" data-right" if o.key == self.answer else ""}>'
            f"<strong>{'✓' if o.key == self.answer else '✗'} "
            f'<span class="cp-text">{inline(o.text)}</span></strong> {inline(o.reply)}</li>'
            for o in self.choice.options
        )
        inner = (
            f'<p class="cp-mine" role="status">{mine}</p>'
            f"<p><strong>{self.label}:</strong> {inline(self.measured)}</p><ul>{rows}</ul>"
        )
        found = {"data_value": words_of(self.value), "data_number": self.choice.number}
        return element(
            inner, kind="recall", data_recall=self.choice.id, **(found if self.choice.number else {})
        )


def recall(
    choice: Choice,
    *,
    answer: str,
    measured: str,
    mine: Guess = None,
    label: str = "Measured",
    value: Found = None,
) -> Recalled:
    """Show a prediction again, beside the answer that was measured since.

    answer:   the key of the option that the measurement bears out: compute it, do not write it down
    measured: what was measured, in words and numbers (`cp.measured`)
    mine:     in a notebook, the key you chose or your number; in the page the browser remembers it
    label:    how it was found, if it was not measured: "Simulated", "Counted"
    value:    what a number of the reader's is held against: a number, `cp.measured`'s words, or (low, high)

    Raises ValueError for an answer that is not an option, and where the choice asks for a number and no value
    is there to hold it against, or the other way round.
    """
    needed("choice", choice, Choice, "such as course.exercises.guess_text")
    if choice.option(answer) is None:
        raise ValueError(f"{choice.id}: no option {answer!r} to be the answer; there are {choice._keys}")
    if bool(choice.number) != (value is not None):
        raise ValueError(f"{choice.id}: it asks for {choice.number or 'no number'!r}, the value is {value!r}")
    return Recalled(choice, answer, measured, mine, label, value)

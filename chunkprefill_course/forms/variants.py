"""Wrong programs, each with its reply; and one as what differs from the right one, not as a copy of it."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any


class Variant:
    """The program `of` with texts replaced; made when it is first called.

    swaps: (old, new); each `old` stands exactly once in the source, or ValueError says which does not.
    """

    __name__ = "variant"

    def __init__(self, of: Callable[..., Any], *swaps: tuple[str, str]) -> None:
        self.of, self.swaps = of, swaps

    @cached_property
    def text(self) -> str:
        """The source of the wrong program."""
        text = textwrap.dedent(inspect.getsource(self.of))
        for old, new in self.swaps:
            if text.count(old) != 1:
                raise ValueError(
                    f"{self.of.__qualname__}: {old!r} stands there {text.count(old)} times, not once"
                )
            text = text.replace(old, new)
        return text

    @cached_property
    def program(self) -> Callable[..., Any]:
        """The wrong program itself."""
        space = dict(vars(sys.modules[self.of.__module__]))
        exec(compile(self.text, f"<{self.of.__module__}, changed>", "exec"), space)
        return space[self.of.__name__]

    def __call__(self, *args: Any) -> Any:
        return self.program(*args)


@dataclass(frozen=True)
class Wrong:
    """An answer that people really give, and the hint that says what it overlooks.

    program: a function or class, or a `Variant` that says how it differs from the solution
    """

    program: Callable[..., Any]
    hint: str

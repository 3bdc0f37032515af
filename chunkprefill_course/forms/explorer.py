"""A picture that the reader moves: one description, as a page without scripts and as ipywidgets sliders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from itertools import product
from math import prod
from typing import Any

from chunkprefill.plots.style import Picture

MOST_FRAMES = 60


@cache
def stylesheet() -> str:
    """Sent along with each explorer: on Colab an output cell stands alone."""
    return resources.files(__package__).joinpath("explorer.css").read_text("utf-8").replace("\n", "")


@dataclass(frozen=True, kw_only=True)
class Explorer:
    """A picture with one to three controls, computed for every setting of them.

    id:         unique in the book
    title:      what the reader is invited to find out
    parameters: {label with its unit: values}; every combination is a frame
    frame:      frame(*values) -> `Picture`, with a caption of its own and a text table
    start:      index of the value that each parameter begins with (default: the first)

    Shown as a cell's last line it is a set of radio buttons that work in the built page, in Jupyter and on
    Colab, with no script and no kernel. `widget()` is the same as sliders. Raises ValueError for no
    parameter or more than three, for one without values, or for more than 60 frames.
    """

    id: str
    title: str
    parameters: Mapping[str, Sequence[Any]]
    frame: Callable[..., Picture]
    start: Sequence[int] = ()

    def __post_init__(self) -> None:
        sizes = [len(values) for values in self.parameters.values()]
        if not 1 <= len(sizes) <= 3 or 0 in sizes:
            raise ValueError(
                f"explorer {self.id}: 1 to 3 parameters with values are needed, there are {sizes}"
            )
        if prod(sizes) > MOST_FRAMES:
            raise ValueError(
                f"explorer {self.id}: {prod(sizes)} frames; {MOST_FRAMES} are as many as a page bears"
            )
        start = tuple(self.start) or (0,) * len(sizes)
        if len(start) != len(sizes) or not all(0 <= i < n for i, n in zip(start, sizes)):
            raise ValueError(f"explorer {self.id}: start {start} is no setting of {sizes} values")
        object.__setattr__(self, "start", start)

    def settings(self) -> list[tuple[int, ...]]:
        """All combinations of the parameters' indices."""
        return list(product(*(range(len(values)) for values in self.parameters.values())))

    def at(self, setting: Sequence[int]) -> Picture:
        """The frame of one combination of indices."""
        picture = self.frame(*(values[i] for values, i in zip(self.parameters.values(), setting)))
        if picture.table is None:
            raise ValueError(
                f"explorer {self.id}: frame {tuple(setting)} has no table, which says it in text"
            )
        return picture

    def __str__(self) -> str:
        shown = ", ".join(f"{label} = {v[i]}" for (label, v), i in zip(self.parameters.items(), self.start))
        return f"{self.title} ({shown})\n{self.at(self.start)}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Radio buttons, every frame, and CSS that shows the chosen one; without `:has()` all are shown."""
        here = f"cp-{self.id}"
        rules, frames = [f"#{here} .cp-frame{{display:none}}"], dict[str, list[str]]()
        for setting in self.settings():
            chosen = "".join(f":has(#{here}-{p}-{i}:checked)" for p, i in enumerate(setting))
            name = "-".join(map(str, setting))
            rules.append(f"#{here}{chosen} .cp-frame-{name}{{display:block}}")
            frames.setdefault(self.at(setting)._repr_html_(), []).append(f"cp-frame-{name}")  # each sent once
        style = f"{stylesheet()}@supports selector(:has(a)){{{''.join(rules)}}}"
        shown = "".join(
            f'<div class="cp-frame {" ".join(names)}">{html}</div>' for html, names in frames.items()
        )
        controls = "".join(self._control(p) for p in range(len(self.parameters)))
        return (
            f'<div class="cp-explorer" id="{here}" role="group" aria-labelledby="{here}-title">'
            f"<style>{style}</style>"
            f'<p class="cp-ask" id="{here}-title"><strong>{escape(self.title)}</strong></p>{controls}'
            f'<div class="cp-frames" aria-live="polite">{shown}</div></div>'
        )

    def _control(self, p: int) -> str:
        label, values = list(self.parameters.items())[p]
        here = f"cp-{self.id}-{p}"
        buttons = "".join(
            f'<span class="cp-pill"><input type="radio" name="{here}" id="{here}-{i}"'
            f"{' checked' if i == self.start[p] else ''}>"
            f'<label for="{here}-{i}">{escape(str(value))}</label></span>'
            for i, value in enumerate(values)
        )
        return f'<fieldset class="cp-pills"><legend>{escape(label)}</legend>{buttons}</fieldset>'

    def widget(self) -> Any:
        """The same as one slider a parameter, by what ipywidgets 7 and 8 have in common.

        The frames are part of the saved state and follow the sliders in the browser alone, so the built page
        needs no kernel. Where one runs, the frame is computed again as the slider moves.
        """
        import ipywidgets

        values = list(self.parameters.values())
        sliders = [
            ipywidgets.SelectionSlider(
                options=[(str(value), i) for i, value in enumerate(choices)],
                value=first,
                description=label,
                style={"description_width": "initial"},
                layout={"width": "100%", "max_width": "500px"},
            )
            for (label, choices), first in zip(self.parameters.items(), self.start)
        ]
        pages: dict[tuple[int, ...], Any] = {}

        def stack(setting: tuple[int, ...]) -> Any:
            """A tab a value of the next parameter, down to the frames; its slider turns the pages."""
            p = len(setting)
            if p == len(values):
                pages[setting] = ipywidgets.HTML(self.at(setting)._repr_html_())
                return pages[setting]
            tab = ipywidgets.Tab(children=[stack((*setting, i)) for i in range(len(values[p]))])
            for i, value in enumerate(values[p]):
                tab.set_title(i, str(value))
            tab.selected_index = self.start[p]
            ipywidgets.jslink((sliders[p], "index"), (tab, "selected_index"))
            return tab

        top = stack(())

        def redraw(_: Any) -> None:
            setting = tuple(slider.index for slider in sliders)
            pages[setting].value = self.at(setting)._repr_html_()

        for slider in sliders:
            slider.observe(redraw, names="index")
        return ipywidgets.VBox([ipywidgets.HTML(f"<strong>{escape(self.title)}</strong>"), *sliders, top])

"""The colours of course.css: readable as text on either ground, and told apart by colour-blind eyes."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from chunkprefill.plots.style import COLOURS
from tests.needs import ROOT

CSS = (ROOT / "book/_static/course.css").read_text("utf8")
WHITE, LIGHT_SURFACE = "#ffffff", "#f3f4f5"  # the theme's own light grounds
# How a dichromat sees linear RGB (Viénot, Brettel and Mollon, 1999): protanopia and deuteranopia.
DICHROMAT = {
    "protan": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    "deutan": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
}


def variables(selector: str) -> dict[str, str]:
    """The custom properties of the first rule with this selector that are plain colours."""
    block = CSS.partition(f"{selector} {{")[2].partition("}")[0]
    return dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block, flags=re.I))


def linear(colour: str) -> list[float]:
    """sRGB as linear light, 0 to 1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear(colour)))


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast of two colours, from 1 to 21."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_measure_itself() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_fills_are_those_of_the_package() -> None:
    root = variables(":root")
    assert {name: root[f"cp-{name}"].lower() for name in COLOURS} == {
        n: c.lower() for n, c in COLOURS.items()
    }


@pytest.mark.parametrize("name", COLOURS)
def test_ink_is_readable_on_both_grounds(name: str) -> None:
    light, dark = variables(":root"), variables('html[data-theme="dark"]')
    for ground in (WHITE, LIGHT_SURFACE):
        assert contrast(light[f"cp-{name}-ink"], ground) >= 4.5, (name, "light", ground)
    for ground in (dark["pst-color-background"], dark["pst-color-surface"]):
        assert contrast(dark[f"cp-{name}-ink"], ground) >= 4.5, (name, "dark", ground)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_links_are_readable(scheme: str) -> None:
    here = variables(f'html[data-theme="{scheme}"]')
    grounds = [here.get("pst-color-background", WHITE), here.get("pst-color-surface", LIGHT_SURFACE)]
    for name in ("text-base", "text-muted", "link", "link-hover", "inline-code"):
        for ground in grounds:
            assert contrast(here[f"pst-color-{name}"], ground) >= 4.5, (scheme, name, ground)
    edge = (here if scheme == "dark" else variables(":root"))["cp-edge"]
    assert contrast(edge, grounds[0]) >= 3


@pytest.mark.parametrize("kind", DICHROMAT)
@pytest.mark.parametrize(("one", "other"), list(combinations(COLOURS, 2)))
def test_colour_blind_eyes_tell_the_fills_apart(kind: str, one: str, other: str) -> None:
    """To a dichromat any two differ by as much as greys 8% of the scale apart."""

    def seen(colour: str) -> list[float]:
        light = linear(colour)
        return [max(0.0, sum(w * c for w, c in zip(row, light))) ** (1 / 2.2) for row in DICHROMAT[kind]]

    distance = sum((a - b) ** 2 for a, b in zip(seen(COLOURS[one]), seen(COLOURS[other]))) ** 0.5
    assert distance >= 0.08 * 3**0.5, f"{one} and {other} are {distance:.2f} apart"

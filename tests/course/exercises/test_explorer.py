"""One description, three forms: radio buttons in HTML, linked sliders, text."""

from __future__ import annotations

import inspect
import re
import subprocess

import ipywidgets
import pytest

import chunkprefill as cp
import chunkprefill_course as course
from chunkprefill_course.forms import explorer as explore
from tests.needs import ROOT, need


def frame(start: int, length: int = 2) -> cp.Picture:
    return cp.mask_picture(start, length, caption=f"start {start}, length {length}")


def explorer(**changed) -> course.Explorer:
    given = {
        "id": "x",
        "title": "Try <it>",
        "parameters": {"start": [0, 2, 5], "length": [1, 3]},
        "frame": frame,
    }
    return course.Explorer(**(given | changed))


def test_every_setting_has_a_frame_a_rule_and_a_text_table():
    page = explorer()._repr_html_()
    for i, start in enumerate([0, 2, 5]):
        for j, length in enumerate([1, 3]):
            assert (
                f"#cp-x:has(#cp-x-0-{i}:checked):has(#cp-x-1-{j}:checked) .cp-frame-{i}-{j}{{display:block}}"
                in page
            )
            assert f"start {start}, length {length}" in page
    assert page.count("<details>") == 6, "a text twin each"
    assert page.count(" checked>") == 2 and "<script" not in page and "Try &lt;it&gt;" in page
    assert page == explorer()._repr_html_(), "stable ids"
    assert "@supports selector(:has(a))" in page, "without :has all frames are shown"


def test_frames_that_are_equal_are_sent_once():
    page = explorer(frame=lambda start, length: frame(start))._repr_html_()
    assert page.count("<figure") == 3 and 'class="cp-frame cp-frame-0-0 cp-frame-0-1"' in page


def test_ids_in_a_page_are_unique():
    ids = re.findall(r' id="(cp-[^"]*)"', explorer()._repr_html_() + explorer(id="y")._repr_html_())
    assert len(set(ids)) == len(ids)


def test_it_begins_where_it_is_told():
    assert "start 5, length 3" in str(explorer(start=(2, 1)))
    page = explorer(start=(2, 1))._repr_html_()
    assert 'id="cp-x-0-2" checked' in page and 'id="cp-x-1-1" checked' in page


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"parameters": {}}, "1 to 3 parameters"),
        ({"parameters": {"a": [1], "b": [1], "c": [1], "d": [1]}}, "1 to 3 parameters"),
        ({"parameters": {"a": []}}, "1 to 3 parameters"),
        ({"parameters": {"a": list(range(61))}}, "61 frames"),
        ({"start": (3, 0)}, "no setting"),
        ({"start": (0,)}, "no setting"),
    ],
)
def test_a_bad_description_is_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        explorer(**changed)


@pytest.mark.parametrize(
    "parameters", [{"start": [0, 2, 5]}, {"start": [0, 2, 5], "length": [1, 3]}], ids=["one", "two"]
)
def test_sliders_are_linked_to_the_pages_in_the_browser(parameters):
    ipywidgets.Widget.close_all()
    one = explorer(parameters=parameters, start=(1,) * len(parameters))
    box = one.widget()
    _, *sliders, top = box.children
    assert [slider.description for slider in sliders] == list(parameters)
    assert all(slider.index == 1 for slider in sliders) and top.selected_index == 1
    links = [
        w for w in ipywidgets.Widget.get_manager_state()["state"].values() if w["model_name"] == "LinkModel"
    ]
    assert len(links) == 1 + (3 if len(parameters) == 2 else 0), "a link for each stack of pages"
    page = top.children[1] if len(parameters) == 1 else top.children[1].children[1]
    assert page.value == one.at((1,) * len(parameters))._repr_html_()


def test_a_frame_without_its_text_twin_is_refused():
    def bare(_start):
        return cp.Picture(svg="<svg></svg>", alt="a", caption="c")

    with pytest.raises(ValueError, match="has no table"):
        explorer(parameters={"start": [1]}, frame=bare)._repr_html_()


def test_with_a_kernel_the_frame_is_computed_again():
    word = "first"

    def changing(start):
        return cp.mask_picture(start, 2, caption=word)

    box = course.Explorer(id="x", title="t", parameters={"start": [0, 1]}, frame=changing).widget()
    word = "second"
    box.children[1].index = 1
    assert "second" in box.children[-1].children[1].value and "first" in box.children[-1].children[0].value


def test_only_what_ipywidgets_7_and_8_share_is_used():
    source = inspect.getsource(explore)
    assert not re.search(r"Stack\b|titles=|tooltip|Play\(", source)


def test_sliders_work_with_colabs_ipywidgets():
    """`make colab-check` makes an environment with Colab's front end; the same description runs there."""
    python = ROOT / ".venv-colab/bin/python"
    need("colab", python.is_file(), "no .venv-colab: run `make colab-check`")
    script = """if True:
        import ipywidgets, chunkprefill as cp, chunkprefill_course as course
        frame = lambda start, length: cp.mask_picture(start, length, caption=f"{start} {length}")
        values = {"a": [0, 2], "b": [1, 2]}
        made = course.Explorer(id="x", title="t", parameters=values, frame=frame, start=(1, 0))
        box = made.widget()
        box.children[2].index = 1
        shown = box.children[-1].children[1].children[1].value
        print(ipywidgets.__version__, box.children[-1].selected_index, "2 2" in shown)
    """
    done = subprocess.run([python, "-W", "ignore", "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split()[1:] == ["1", "True"], done.stderr
    assert done.stdout.startswith("7."), done.stdout

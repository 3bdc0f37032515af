"""The lints find what nbval does not see, and find nothing in a notebook that is well."""

from __future__ import annotations

import json

import ipywidgets
import nbformat
import pytest
from lint_notebooks import (
    IN_BOTH,
    ONLY_7_ARGUMENTS,
    ONLY_8,
    ONLY_8_ARGUMENTS,
    STATE,
    VIEW,
    lint,
    lint_code,
    unnamed_pictures,
)
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from normal_form import normalise

import notebooks
from tests.needs import ROOT

GOOD_SVG = '<svg role="img" aria-label="Three chunks fill a cache of 6 positions."><path d="M0 0/1"/></svg>'


def with_output(output, source="show()"):
    return new_notebook(cells=[new_code_cell(source, execution_count=1, outputs=[output])])


def display(**data):
    return new_output(
        "display_data", data={kind.replace("_", "/"): content for kind, content in data.items()}
    )


def said(notebook):
    return " | ".join(lint(notebook))


def test_a_good_notebook_has_no_findings():
    prose = "# Can it?\n\n![a filled cache](cache.svg) 1/2 of it, tokens/s, [api](../book/api.md), https://a.b/usr/x"
    book = new_notebook(
        cells=[
            new_markdown_cell(prose),
            new_code_cell(
                "print(1)", execution_count=1, outputs=[new_output("stream", name="stdout", text="1\n")]
            ),
            new_code_cell(
                "picture", execution_count=2, outputs=[display(text_html=f"<figure>{GOOD_SVG}</figure>")]
            ),
        ]
    )
    assert lint(book) == []


def test_the_committed_notebooks_have_no_findings():
    paths = notebooks.all_notebooks()
    assert paths, "there is no notebook"
    assert notebooks.check_all(paths) == 0


@pytest.mark.parametrize(
    "output, told",
    [
        (new_output("error", ename="KeyError", evalue="'state'", traceback=[]), "KeyError"),
        (new_output("stream", name="stderr", text="UserWarning: no\n"), "stderr"),
        (new_output("stream", name="stdout", text="saved in /home/ada/notes.txt\n"), "/home/ada"),
        (new_output("stream", name="stdout", text=f"{ROOT}\n"), "absolute path"),
        (new_output("stream", name="stdout", text="C:\\Users\\ada\n"), "absolute path"),
        (display(text_plain="<Figure at 0x7f00aa>"), "address"),
        (display(image_png="aGVsbG8=", text_plain="<Figure>"), "alt text"),
        (display(**{"image_svg+xml": GOOD_SVG}), "alt text"),
        (display(text_html="<svg><path/></svg>"), "svg"),
        (display(text_html='<img src="a.png">'), "<img>"),
    ],
)
def test_an_output_that_nbval_would_accept(output, told):
    assert told in said(with_output(output))


@pytest.mark.parametrize(
    "html",
    [
        '<svg role="img"></svg>',
        '<svg role="img" aria-label=""></svg>',
        '<svg aria-label="three chunks"></svg>',
        '<svg role="img" aria-label="Figure"/>',
        '<img alt="" src="a">',
        '<img alt="plot">',
        "<IMG SRC=a>",
        f"{GOOD_SVG}<svg></svg>",
        '<p aria-hidden="true">x</p><img src="a">',
        '<svg role="img"><text>title</text></svg>',
        "<svg",
        "<div><svg role='img'><g></div><svg></svg>",
    ],
)
def test_a_picture_without_words(html):
    # an unclosed tag is no picture for any browser, so that one alone is let pass
    assert bool(unnamed_pictures(html)) == (html != "<svg")


@pytest.mark.parametrize(
    "html",
    [
        GOOD_SVG,
        f"<div>{GOOD_SVG}{GOOD_SVG}</div>",
        '<img alt="a cache of 6 positions">',
        "<p>no picture<br>at all",
        '<svg role="img"><title>A cache fills.</title><g/></svg>',
        '<svg aria-hidden="true"><path/></svg>',
        '<svg role="img" aria-labelledby="t1"><text id="t1">A cache</text></svg>',
        '<svg role="img" aria-label="outer and inner"><svg><rect/></svg></svg>',
        '<span aria-hidden="true"><img src="dot.png"></span>',
        '<button aria-label="next"><svg aria-hidden="true"/></button>',
    ],
)
def test_a_picture_with_words(html):
    assert unnamed_pictures(html) == []


def test_markdown_is_read_too():
    for source in ("![](a.png)", "![ ](a.png)", "<img src='a.png'>", "see /home/ada/x"):
        assert lint(new_notebook(cells=[new_markdown_cell(source)])), source


# --- widgets --------------------------------------------------------------------------------------------


def widget_notebook(state, view="a", key=STATE):
    book = with_output(new_output("display_data", data={VIEW: {"model_id": view}}))
    book.metadata.widgets = {key: state}
    return nbformat.from_dict(book)


def model(name="HTMLModel", **state):
    return {"model_name": name, "model_module": "@jupyter-widgets/controls", "state": state}


def test_widgets_need_their_state():
    good = {"state": {"a": model(value=GOOD_SVG, layout="IPY_MODEL_b"), "b": model("LayoutModel")}}
    assert lint(widget_notebook(good)) == []
    assert "without saved state" in said(widget_notebook(good, view="c"))
    without = with_output(new_output("display_data", data={VIEW: {"model_id": "a"}}))
    assert "without saved state" in said(without)


def test_what_colab_saves_is_found():
    colab = {
        "a": {"model_name": "HTMLModel"}
    }  # models right under the key, no `state`: nbconvert raises KeyError
    assert "without `state`" in said(widget_notebook(colab))
    assert "without `state`" in said(widget_notebook(colab, key="application/json"))
    assert "without `state`" in said(widget_notebook({"state": ["a"]}))


def test_widgets_hide_nothing():
    assert "names model" in said(widget_notebook({"state": {"a": model(children=["IPY_MODEL_gone"])}}))
    assert "<svg>" in said(widget_notebook({"state": {"a": model(value="<svg></svg>")}}))
    assert "alt text" in said(widget_notebook({"state": {"a": model("ImageModel")}}))


@pytest.mark.parametrize(
    "source",
    [
        "import ipywidgets\nipywidgets.Stack([])",
        "import ipywidgets as w\nw.Tab(titles=('a',))",
        "from ipywidgets import Accordion as A\nA(titles=['a'])",
        "from ipywidgets import TagsInput",
        "import ipywidgets as w\nt = w.Tab()\nt.titles = ('a',)",
        "import ipywidgets as w\nw.IntSlider(tooltip='n')",
        "def f():\n    import ipywidgets as w\n    return w.HTML(tabbable=True)",
        "import ipywidgets as w\nw.Text(description_tooltip='gone in 8')",
    ],
)
def test_what_one_version_of_ipywidgets_lacks(source):
    assert lint_code(source)
    assert said(with_output(display(text_plain="x"), source=f"%matplotlib inline\n{source}\n!ls"))


@pytest.mark.parametrize(
    "source",
    [
        "import ipywidgets as w\nt = w.Tab([w.HTML()])\nt.set_title(0, 'a')",
        "import ipywidgets as w\nw.Button(tooltip='x')",
        "from collections import Stack",
        "plot(titles=['a'])",
        "book.titles = 3",
        "%pip install x\nif 1:\n    !ls\n    %time 1",
    ],
)
def test_what_both_versions_know(source):
    assert [f for f in lint(with_output(display(text_plain="x"), source=source)) if "code" in f] == []


def test_the_table_holds_for_the_installed_version():
    """ipywidgets 8 has what the lint calls new in 8; `colab.py check` asks 7.7.1 the opposite."""
    widgets = [
        c for c in vars(ipywidgets).values() if isinstance(c, type) and issubclass(c, ipywidgets.Widget)
    ]
    arguments = {name for widget in widgets for name in widget.class_traits()}
    assert set(vars(ipywidgets)) >= ONLY_8 and arguments >= ONLY_8_ARGUMENTS
    for widget in widgets:
        assert not set(widget.class_traits()) & ONLY_7_ARGUMENTS
    for cls, argument in IN_BOTH:
        assert argument in getattr(ipywidgets, cls).class_traits()


def test_the_package_itself_keeps_to_both_versions():
    found = {p.name: lint_code(p.read_text()) for p in (ROOT / "chunkprefill").rglob("*.py")}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source, silent",
    [
        ("def f(change):\n    plt.plot([1])\ns.observe(f, 'value')", True),
        ("def f(change):\n    plt.plot([1])\n    plt.show()\ns.observe(f, 'value')", False),
        ("def draw():\n    ax.bar(1, 2)\ndef f(_):\n    draw()\nb.on_click(f)", True),
        ("def draw():\n    ax.bar(1, 2)\n    plt.show()\ndef f(_):\n    draw()\nb.on_click(f)", False),
        ("@interact(n=3)\ndef f(n):\n    ax.step(n, n)", True),
        ("@w.interact(n=3)\ndef f(n):\n    display(ax.step(n, n))", False),
        ("w.interactive_output(lambda n: plt.scatter(n, n), {'n': s})", True),
        ("def f(change):\n    label.value = 'x'\ns.observe(f)", False),
        ("def f():\n    plt.plot([1])\nf()", False),
    ],
)
def test_a_callback_that_plots_ends_with_show(source, silent):
    assert bool(lint_code(source)) == silent


def test_cells_run_out_of_order_are_found():
    cells = [new_code_cell("1", execution_count=2), new_code_cell("2", execution_count=1)]
    assert "order" in said(new_notebook(cells=cells))
    assert "order" in said(new_notebook(cells=[new_code_cell("1")]))


def test_check_wants_the_normal_form(tmp_path, capsys):
    path = tmp_path / "a.ipynb"
    book = normalise(new_notebook(cells=[new_markdown_cell("# A?")]))
    notebooks.write(path, book)
    assert notebooks.check_all([path]) == 0
    path.write_text(json.dumps(book))
    assert notebooks.check_all([path]) == 1
    assert "normal form" in capsys.readouterr().out

"""The minutes in a header are those of what is there, and what is there is counted as a reader sees it."""

from __future__ import annotations

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import notebooks
from chunkprefill_course import exercises
from tools import sitting

PATHS = notebooks.all_notebooks()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_each_header_says_the_minutes_of_what_is_there(path):
    notebook = notebooks.read(path)
    assert sitting.stamped(path, notebook, PATHS) == notebook.cells[0].source, "run tools/sitting.py"
    assert f"**Time:** {sitting.sitting(notebook).told} minutes" in notebook.cells[0].source


def minutes(*cells) -> float:
    return sitting.sitting(new_notebook(cells=list(cells))).minutes


def test_two_hundred_words_are_a_minute_and_markup_is_none():
    assert minutes(new_markdown_cell("word " * 200)) == 1
    noise = "<!-- " + "hidden " * 50 + "-->\n(a-label-here)=\n:::{admonition} "
    assert sitting.count(sitting.plain(noise)) == 0
    assert sitting.plain("{term}`gap` {ref}`here <claim-x>` [there](page.html)").split() == [
        "gap",
        "here",
        "[there]",
    ]


def shows(html: str, source: str = "1") -> object:
    output = new_output("execute_result", {"text/html": html})
    return new_code_cell(source, outputs=[output], metadata={"tags": ["remove-input"]})


def test_what_waits_behind_a_fold_or_in_a_picture_takes_no_time():
    assert minutes(shows("<p>" + "word " * 100 + "</p><details>" + "word " * 900 + "</details>")) == 0.5
    assert minutes(shows("<svg><text>" + "word " * 400 + "</text></svg>")) == 0
    folded = shows("<p>" + "word " * 400 + "</p>")
    folded.metadata.tags.append("hide-output")
    assert minutes(folded) == 0
    rows = "<tr><td>" + "word " * 50 + "</td></tr>"
    evidence = '<div class="cp-evidence"><p>word word</p><div class="cp-table"><table><thead></thead>{}</table></div></div>'
    assert sitting.sitting(new_notebook(cells=[shows(evidence.format(6 * rows))])).words == 302
    assert sitting.sitting(new_notebook(cells=[shows(evidence.format(7 * rows))])).words == 2
    assert minutes(shows('<div class="cp-explorer">' + "word " * 400 + "</div>")) == sitting.QUESTION_MINUTES


def test_an_exercise_takes_its_own_minutes_and_its_twin_none():
    form = shows("<p>" + "word " * 400 + "</p>", "course.exercises.chunk_mask")
    twin = shows("<p>" + "word " * 400 + "</p>", "course.exercises.chunk_mask.as_choice(guilty=0)")
    question = shows("<p>" + "word " * 400 + "</p>", "course.exercises.guess_twice")
    assert minutes(form, twin, question) == exercises.chunk_mask.minutes + sitting.QUESTION_MINUTES
    case = 'course.clinic.form(course.clinic.case(9), "A")'
    assert minutes(shows("<p>" + "word " * 400 + "</p>", case)) == sitting.CASE_MINUTES


def test_code_is_read_unless_it_is_folded():
    line = "word " * 20
    assert minutes(new_code_cell(line)) == 0.1
    assert minutes(new_code_cell(line, metadata={"tags": ["hide-input"]})) == 0
    assert minutes(new_code_cell("\n".join([line] * 13))) == 0


def test_cells_that_a_page_does_not_show_take_no_time():
    hidden = new_markdown_cell("word " * 400, metadata={"tags": ["remove-cell"]})
    setup = new_code_cell("word " * 400, id="setup")
    assert minutes(hidden, setup) == 0


def test_a_header_without_its_line_is_refused():
    notebook = new_notebook(cells=[new_markdown_cell("# A title\n\n- **You need:** time.")])
    with pytest.raises(ValueError, match="needs one line"):
        sitting.stamped(PATHS[0], notebook, PATHS)

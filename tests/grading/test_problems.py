"""Problem sets: secrets that cannot be guessed, keys that are checked, notebooks that give nothing away."""

from __future__ import annotations

import json
import re
import secrets as system
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient

from chunkprefill_course import clinic
from chunkprefill_grading import problems
from chunkprefill_grading.problems import answer_forms, draw, key, ps2_load
from chunkprefill_grading.problems.notebook import BRANCH, HOME, notebook
from tests.grading.submissions import SETS, secrets
from tests.needs import ROOT

# --- secrets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("", "0 digits"),
        ("abc123", "6 digits"),
        ("a1b2c3d4" * 3 + "a1b2c3d", "31 digits"),
        ("0" * 32, "different digits"),
        ("0123456701234567" * 2, "repeats"),
        ("0123456789abcdef" * 2, "repeats"),
        ("0123456789abcdef0123456789abcdee", "more than"),
        ("fedcba9876543210fedcba9876543211", "more than"),
        ("00112233445566778899aabbccddeeff", "more than"),
        ("000102030405060708090a0b0c0d0e0f", "more than"),
        ("deadbeefdeadbeefdeadbeefdeadbeef", "different digits"),
        ("9f3b1c8a2d7e4650" + "0564e7d2a8c1b3f9", "backwards"),
        ("winter term 2026, problem set 1!", "hexadecimal"),
        (b"winter term 2026".hex(), "disguise"),
        ("g" * 32, "hexadecimal"),
        ("٣" * 32, "hexadecimal"),
        (12345678901234567890123456789012, "text"),
        (None, "text"),
        ("9f3b1c8a2d7e46500f1d" * 10, "digits"),
    ],
)
def test_a_weak_secret_is_refused_with_its_reason(secret: Any, why: str) -> None:
    assert why in draw.weakness(secret)
    with pytest.raises(ValueError, match="secret"):
        draw.check_secret(secret)
    with pytest.raises(ValueError, match="secret"):
        key.make("PS1", secret)


def test_what_is_random_is_let_pass() -> None:
    refused = [s for s in (system.token_hex(16) for _ in range(3000)) if draw.weakness(s)]
    assert len(refused) <= 1, refused
    assert len({draw.new_secret() for _ in range(50)}) == 50
    for n_bytes in (16, 20, 32, 64):
        assert not draw.weakness(system.token_hex(n_bytes))


@given(st.binary(min_size=1, max_size=8), st.integers(1, 4))
def test_a_secret_of_a_repeated_block_is_refused_however_long(block: bytes, times: int) -> None:
    text = (block * 64)[: 16 * times].hex()
    assert draw.weakness(text)


def test_one_secret_draws_one_set_and_streams_do_not_tell_of_each_other() -> None:
    secret, other = secrets(2)
    one = [draw.stream(secret, "PS1", "shown", "order").random() for _ in range(2)]
    assert one[0] == one[1]
    labels = [("PS1", "shown"), ("PS1", "hidden"), ("PS2", "shown"), ("PS1shown",), ("PS1", "shown", 1)]
    firsts = {draw.stream(each, *label).random() for each in (secret, other) for label in labels}
    assert len(firsts) == 2 * len(labels)


@pytest.mark.parametrize("name", SETS)
def test_another_secret_draws_another_set_and_other_answers(name: str) -> None:
    sheets = [key.sheet_of(name, secret) for secret in secrets(4)]
    for many in zip(*(sheet.questions for sheet in sheets)):
        if not many[0].written:
            assert len({question.solution for question in many}) >= 3
            assert len({question.text + question.given for question in many}) >= 3


# --- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_new_writes_three_files_the_same_for_the_same_secret_and_never_over_another_key(
    name: str, tmp_path: Path
) -> None:
    secret, other = secrets(2)
    paths = problems.new(name, tmp_path / "a", secret)
    assert [path.name for path in paths] == [f"{name}.ipynb", "key.json", "solution.ipynb"]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in problems.new(name, tmp_path / "b", secret.upper())] == first
    problems.new(name, tmp_path / "a", secret)  # the same again is no harm
    for again in (None, other):
        with pytest.raises(ValueError, match="there already"):
            problems.new(name, tmp_path / "a", again)
    assert [path.read_bytes() for path in paths] == first
    assert paths[1].stat().st_mode & 0o077 == 0 and paths[2].stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(p.name for p in paths)


def test_new_makes_a_secret_of_128_bits(tmp_path: Path) -> None:
    keys = [key.read(problems.new("PS1", tmp_path / str(i))[1]) for i in range(3)]
    assert len({each["secret"] for each in keys}) == 3
    assert all(len(each["secret"]) == 32 for each in keys)
    with pytest.raises(ValueError, match="no problem set 'PS9'"):
        problems.new("PS9", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[]", "an object"),
        ("{}", "no version"),
        ("null", "an object"),
        ("[" * 5000, "."),
        ('{"version": 2, "problem_set": "PS1", "secret": ""}', "version 2"),
        (
            f'{{"version": 1, "problem_set": "PS1", "set_version": {key.SET_VERSIONS["PS1"]}, "secret": "00"}}',
            "digits",
        ),
        ('{"version": 1, "problem_set": ["PS1"], "secret": "00"}', "text"),
        ('{"version": 1, "problem_set": "../x", "secret": "00"}', "no problem set"),
        (" " * 200_000, "no key"),
    ],
)
def test_a_file_that_is_no_key_is_refused_by_name(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        key.read(path)
    assert why in str(error.value)
    with pytest.raises(ValueError, match="cannot be read"):
        key.read(tmp_path / "none.json")


def test_a_key_that_another_version_drew_is_refused_and_says_so() -> None:
    made = key.make("PS1", secrets(1)[0])
    with pytest.raises(ValueError, match="the key was changed"):
        key.checked(made | {"digest": "0" * 64})
    with pytest.raises(ValueError, match=r"made by version 0\.0\.7"):
        key.checked(made | {"digest": "0" * 64, "package": "0.0.7"})
    assert key.checked(made | {"package": "0.0.7"})["package"] == "0.0.7"  # it draws the same: no harm
    limits = made | {"limits": {"cpu_s": 120}}
    assert key.checked(limits)["limits"] == {"cpu_s": 120}


# --- the notebook -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_the_notebook_is_valid_without_any_cell_metadata_and_gives_nothing_away(name: str) -> None:
    for secret in secrets(3):
        sheet = key.sheet_of(name, secret)
        given_out = notebook(sheet)
        nbformat.validate(nbformat.from_dict(given_out))
        assert all(cell["metadata"] == {} for cell in given_out["cells"])
        assert given_out["metadata"]["colab"] and given_out["metadata"]["kernelspec"]
        text = json.dumps(given_out)
        assert secret not in text and key.make(name, secret)["digest"] not in text
        for question in sheet.questions:
            assert question.solution and question.solution not in text.replace("\\n", "\n")
        if name == "PS2":
            s = ps2_load.service(draw.stream(secret, "PS2", "shown", "service"))
            for load in ps2_load.loads(draw.stream(secret, "PS2", "hidden", "loads"), s):
                hidden = [f"{r.arrival}, {r.n_prompt}, {r.n_output}" for r in load.requests]
                assert sum(row in text for row in hidden) <= 1
        if name == "PS3":
            shown = "\n".join(cell["source"] for cell in given_out["cells"])
            assert not any(word in shown for fault in clinic.FAULTS for word in [f'"{fault}"', f"'{fault}'"])
            assert not re.search(
                r"'(first|order|inputs)'\s*:", shown.replace('"', "'").split("print(look")[0]
            )


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("solved", [False, True], ids=["handed out", "solved"])
def test_the_notebook_runs_clean_and_lists_what_is_answered(name: str, solved: bool) -> None:
    sheet = key.sheet_of(name, secrets(1)[0])
    book = nbformat.from_dict(notebook(sheet, solved=solved))
    NotebookClient(book, timeout=120, kernel_name="python3").execute()
    outputs = [o for cell in book.cells if cell.cell_type == "code" for o in cell.outputs]
    assert all(output.output_type == "stream" and output.name == "stdout" for output in outputs), outputs
    listed = "".join(output.text for output in book.cells[-1].outputs)  # a busy kernel sends it in pieces
    lines = dict(line.split(": ", 1) for line in listed.splitlines())
    assert list(lines) == [question.name for question in sheet.questions]
    for question in sheet.questions:
        said = "written below" if question.written else "answered, and well" if solved else "not answered yet"
        assert said in lines[question.name]


def test_a_problem_set_is_fetched_from_where_the_book_is() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import colab
    finally:
        sys.path.remove(str(ROOT / "tools"))
    here = colab.home()
    assert (here.url, here.branch) == (HOME, BRANCH)


#: wrong answers: one of the right form, one of another; FORM is what the question's check looks at
WRONG = {
    "order": ("'a'", "'zz'"),
    "counts": ("dict.fromkeys(NAMES, 3)", "{'passes': 1}"),
    "chunk_attention": ("lambda *a: torch.zeros(SHAPES[0])", "lambda *a: torch.zeros(1, 1)"),
    "store": (
        "lambda *a: [torch.zeros(s) for s in SHAPES] if SHAPES[1:] else torch.zeros(SHAPES[0])",
        "lambda *a: None",
    ),
    "plan": ("[{'long': 1}] * N", "[{'longer': 1}] * N"),
    "statements": ("dict.fromkeys(NAMES, True)", "dict.fromkeys(NAMES, 'maybe')"),
    "decide": ("lambda *a: {'list': [0, 0], 'dict': {}, 'pairs': []}[FORM['returns']]", "lambda *a: 3"),
    "tasks": ("{'tasks': 0, 'between': 0}", "{'tasks': 'many', 'between': 0}"),
    "consequence": ("FORM['of'][0]", "'a'"),
    "overhead": ("dict.fromkeys(NAMES, 0.5)", "dict.fromkeys(NAMES, float('nan'))"),
    "report": ("dict.fromkeys(NAMES, 0)", "[0]"),
    "fault": ("FORM['of'][1]", "3"),
    "fix": ("{each: 77 for each in FORM['ranges']}", "{'chunks': 77}"),
}


@pytest.mark.parametrize("name", SETS)
def test_a_check_says_whether_an_answer_is_well_formed_and_never_whether_it_is_right(name: str) -> None:
    """A wrong answer of the right form passes exactly as the solution does; one of another form does not."""
    import torch

    import chunkprefill as cp

    for question in key.sheet_of(name, secrets(1)[0]).questions:
        if question.written:
            continue
        form = question.form
        space: dict[str, Any] = {"cp": cp, "NAMES": form.get("names"), "N": form.get("n"), "FORM": form}
        if name == "PS1":
            space |= {"torch": torch, "SHAPES": [shape for _, shape in form.get("returns", ())]}
        said = []
        for code in (f"{question.name} = {WRONG[question.name][0]}", question.solution):
            names = dict(space)
            exec(key.sheet_of(name, secrets(1)[0]).setup, names)
            exec(code, names)
            said.append(answer_forms.look(names, question.name, question.form))
        assert said[0] == said[1] == f"{question.name}: answered, and well formed"
        bad = eval(WRONG[question.name][1], dict(space))
        assert "answered, and" not in answer_forms.look({question.name: bad}, question.name, question.form)
        blank = answer_forms.look({}, question.name, question.form)
        assert blank == f"{question.name}: not answered yet"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )
)
def test_a_check_of_form_says_one_line_about_anything(value: Any) -> None:
    for name in SETS[:2]:
        for question in key.sheet_of(name, secrets(1)[0]).questions:
            line = answer_forms.look({question.name: value}, question.name, question.form)
            assert line.startswith(f"{question.name}: ")

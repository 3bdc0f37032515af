"""A key outlives a mended word, and no change of what is drawn."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chunkprefill_grading import cli
from chunkprefill_grading.marking.run import judged_by
from chunkprefill_grading.problems import key
from tests.grading.submissions import SETS, secrets


@pytest.fixture
def mended(monkeypatch):
    """Change each question's fields, as another version of the package would."""
    drawn = key.sheet_of

    def change(**how):
        def sheet_of(name, secret):
            sheet = drawn(name, secret)
            questions = tuple(
                replace(q, **{field: make(getattr(q, field)) for field, make in how.items()})
                for q in sheet.questions
            )
            return replace(sheet, questions=questions)

        monkeypatch.setattr(key, "sheet_of", sheet_of)

    return change


@pytest.mark.parametrize("name", SETS)
def test_mending_a_word_keeps_a_key_and_its_results(mended, tmp_path, name):
    made = key.make(name, secrets(1)[0])
    key.write(tmp_path / "key.json", made)
    mended(text=lambda text: f"Please read carefully: {text}", title=str.upper)
    good, lines = key.verdict(tmp_path / "key.json")
    assert good and any("words" in line and "no mark" in line for line in lines)
    assert judged_by(key.read(tmp_path / "key.json")) == judged_by(made), "no student is marked anew"


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("text", lambda text: text.replace("1", "2") + " 77"),
        ("table", lambda table: ((table[0][0], table[0][1] + 1), *table[1:])),
        ("solution", lambda code: f"{code}\nchanged = 1"),
    ],
)
def test_another_draw_is_refused(mended, tmp_path, field, make):
    key.write(tmp_path / "key.json", key.make("PS3", secrets(1)[0]))
    mended(**{field: make})
    good, lines = key.verdict(tmp_path / "key.json")
    assert not good and "not what this secret draws here" in lines[0]


def test_a_key_of_another_version_says_which_package_marks_with_it(tmp_path, capsys):
    made = key.make("PS1", secrets(1)[0])
    (tmp_path / "key.json").write_text(json.dumps(made))
    assert cli.main(["verify", str(tmp_path / "key.json")]) == 0
    out = capsys.readouterr().out
    assert "This package would mark with it." in out and secrets(1)[0] not in out
    old = {**made, "set_version": 0, "package": "0.0.9"}
    (tmp_path / "key.json").write_text(json.dumps(old))
    assert cli.main(["verify", str(tmp_path / "key.json")]) == 1
    assert "mark with chunkprefill 0.0.9" in capsys.readouterr().out
    for broken in ("{}", "[]", "x", json.dumps({**made, "secret": "1234"})):
        (tmp_path / "key.json").write_text(broken)
        assert cli.main(["verify", str(tmp_path / "key.json")]) == 1
        assert "would mark nothing" in capsys.readouterr().out

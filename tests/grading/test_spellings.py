"""One answer, spelt in every sensible way, is paid each time; and the notebook's check says what the grader says."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from chunkprefill_grading.problems import answer_forms, key
from chunkprefill_grading.problems.check_cell import check_cell
from chunkprefill_grading.problems.ps2_decide import Decisions, Interface
from chunkprefill_grading.problems.sheet import Judgement, Question, sentence
from chunkprefill_grading.sandbox.session import LocalSession, Refused
from tests.grading.submissions import secrets


@cache
def question(name: str) -> Question:
    """A question of the first draw."""
    for problem_set in ("PS1", "PS2", "PS3"):
        for each in key.sheet_of(problem_set, secrets(1)[0]).questions:
            if each.name == name:
                return each
    raise KeyError(name)


@cache
def solution(name: str) -> Any:
    """The right answer as a value."""
    space: dict[str, Any] = {}
    exec(question(name).solution, space)
    return space[name]


HEAD = """
import itertools
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
import numpy as np
RIGHT = {right!r}
"""
ORDER = {
    "as handed out": "RIGHT",
    "without blanks": "RIGHT.replace(' ', '')",
    "commas": "RIGHT.replace(' ', ', ')",
    "semicolons": "RIGHT.replace(' ', ';')",
    "tabs": "RIGHT.replace(' ', '\\t')",
    "newlines": "RIGHT.replace(' ', '\\n')",
    "non-breaking spaces": "RIGHT.replace(' ', '\\u00a0')",
    "wide spaces": "RIGHT.replace(' ', '\\u3000')",
    "a trailing blank": "RIGHT + ' '",
    "a trailing newline": "RIGHT + '\\n'",
    "blanks around": "'  ' + RIGHT + '\\t'",
    "arrows": "RIGHT.replace(' ', ' -> ')",
    "drawn arrows": "RIGHT.replace(' ', ' → ')",
    "greater-than": "RIGHT.replace(' ', ' > ')",
    "dashes": "RIGHT.replace(' ', '-')",
    "bars": "RIGHT.replace(' ', '|')",
    "capitals": "RIGHT.upper()",
    "full width": "''.join(chr(ord(c) + 0xfee0) if c != ' ' else c for c in RIGHT)",
    "in brackets": "'[' + RIGHT.replace(' ', ', ') + ']'",
    "a list": "RIGHT.split()",
    "a list with blanks": "[c + ' ' for c in RIGHT.split()]",
    "a list of one text": "[RIGHT]",
    "a tuple": "tuple(RIGHT.split())",
    "a deque": "deque(RIGHT.split())",
    "an array": "np.array(RIGHT.split())",
    "a generator": "(c for c in RIGHT.split())",
    "dict keys": "dict.fromkeys(RIGHT.split()).keys()",
    "numpy's text": "np.str_(RIGHT)",
    "bullets": "'• ' + RIGHT.replace(' ', '\\n• ')",
    "numbered lines": "'\\n'.join(f'{i}. {c}' for i, c in enumerate(RIGHT.split(), 1))",
    "numbered items": "[f'{i}) {c}' for i, c in enumerate(RIGHT.split(), 1)]",
    "a code fence": "'```\\n' + RIGHT + '\\n```'",
    "LaTeX": "'$' + RIGHT.replace(' ', ' \\\\to ') + '$'",
    "long arrows of LaTeX": "'$' + RIGHT.replace(' ', ' \\\\Rightarrow ') + '$'",
    "bold": "'**' + RIGHT.replace(' ', '** **') + '**'",
    "marks of direction": "'\\u200f' + RIGHT + '\\u200e'",
    "zero widths": "RIGHT.replace(' ', '\\u200b')",
    "by position": "dict(enumerate(RIGHT.split(), 1))",
    "by index": "dict(enumerate(RIGHT.split()))",
}
NUMBERS = {
    "a dict": "RIGHT",
    "OrderedDict": "OrderedDict(RIGHT)",
    "defaultdict": "defaultdict(int, RIGHT)",
    "Counter": "Counter(RIGHT)",
    "ChainMap": "ChainMap(RIGHT)",
    "UserDict": "UserDict(RIGHT)",
    "a proxy": "MappingProxyType(RIGHT)",
    "int64": "{k: np.int64(v) for k, v in RIGHT.items()}",
    "float64": "{k: np.float64(v) for k, v in RIGHT.items()}",
    "arrays of one": "{k: np.array([v]) for k, v in RIGHT.items()}",
    "arrays of none": "{k: np.array(v) for k, v in RIGHT.items()}",
    "Fraction": "{k: Fraction(v) for k, v in RIGHT.items()}",
    "Decimal": "{k: Decimal(str(v)) for k, v in RIGHT.items()}",
    "floats": "{k: float(v) for k, v in RIGHT.items()}",
    "texts": "{k: str(v) for k, v in RIGHT.items()}",
    "texts with blanks": "{k: f' {v} ' for k, v in RIGHT.items()}",
    "underscores": "{k: f'{v:_}' for k, v in RIGHT.items()}",
    "thousands": "{k: f'{v:,}' for k, v in RIGHT.items()}",
    "capital keys": "{k.upper(): v for k, v in RIGHT.items()}",
    "keys with blanks": "{k.replace('_', ' ') + ' ': v for k, v in RIGHT.items()}",
    "more keys": "{**RIGHT, 'my_note': 'easy', 'a': [1, 2]}",
    "another order": "dict(reversed(RIGHT.items()))",
    "trailing dots": "{k: f'{v}.' for k, v in RIGHT.items()}",
    "spaces for thousands": "{k: f'{v:,}'.replace(',', '\\u202f') for k, v in RIGHT.items()}",
    "Swiss thousands": "{k: f'{v:,}'.replace(',', '\\u2019') for k, v in RIGHT.items()}",
    "powers of ten": "{k: f'{v / 10}e1' for k, v in RIGHT.items()}",
    "written powers": "{k: f'{v / 10} × 10^1' for k, v in RIGHT.items()}",
    "powers of LaTeX": "{k: f'${v / 10} \\\\cdot 10^{{1}}$' for k, v in RIGHT.items()}",
    "decimal commas": "{k: f'{v}.0'.replace('.', ',') for k, v in RIGHT.items()}",
    "fractions": "{k: f'{2 * v}/2' for k, v in RIGHT.items()}",
    "percent": "{k: f'{100 * v} %' for k, v in RIGHT.items()}",
    "wide digits": "{k: ''.join(chr(ord(c) + 0xfee0) for c in str(v)) for k, v in RIGHT.items()}",
    "other digits": "{k: ''.join(chr(ord(c) - 48 + 0x660) for c in str(v)) for k, v in RIGHT.items()}",
    "signs": "{k: f'+{v}' for k, v in RIGHT.items()}",
    "bold": "{f'**{k}**': f'**{v}**' for k, v in RIGHT.items()}",
    "code": "{f'`{k}`': f'`{v}`' for k, v in RIGHT.items()}",
    "a code fence": "{k: f'```\\n{v}\\n```' for k, v in RIGHT.items()}",
    "mathematics": "{k: f'${v:,}$'.replace(',', '{,}') for k, v in RIGHT.items()}",
    "equals": "{k: f'= {v}' for k, v in RIGHT.items()}",
    "marks of direction": "{'\\u200f' + k: f'\\u200e{v}\\u200f' for k, v in RIGHT.items()}",
    "the unit of the name": "{k: f'{v} {k.split(chr(95))[-1]}' for k, v in RIGHT.items()}",
    "complex": "{k: complex(v) for k, v in RIGHT.items()}",
    "complex of numpy's": "{k: np.complex128(v) for k, v in RIGHT.items()}",
    "beside what cannot be read": "{**RIGHT, 'note': {1, 2}, 'code': print, 'raw': b'x', object(): object()}",
    "beside what is long": "{**RIGHT, **{f'n{i}': np.arange(9_000) for i in range(9)}, 'text': 'x' * 10**6}",
    "beside what has no end": "{**RIGHT, 'note': itertools.count()}",
    "floats that were rounded": "{k: v * (1 + 4e-15) for k, v in RIGHT.items()}",
    "integers from a sum": "{k: sum([v - 1, 1]) for k, v in RIGHT.items()}",
}
TRUTHS = {
    "a dict": "RIGHT",
    "numpy's": "{k: np.bool_(v) for k, v in RIGHT.items()}",
    "0 and 1": "{k: int(v) for k, v in RIGHT.items()}",
    "floats": "{k: float(v) for k, v in RIGHT.items()}",
    "words": "{k: str(v) for k, v in RIGHT.items()}",
    "small words": "{k: str(v).lower() for k, v in RIGHT.items()}",
    "letters": "{k: 'TF'[not v] for k, v in RIGHT.items()}",
    "bold": "{k: f'**{v}**' for k, v in RIGHT.items()}",
    "a full stop": "{k: f' {v}. ' for k, v in RIGHT.items()}",
    "wide letters": "{k: ''.join(chr(ord(c) + 0xfee0) for c in str(v)) for k, v in RIGHT.items()}",
    "marks of direction": "{k: f'\\u200f{v}' for k, v in RIGHT.items()}",
    "yes and no": "{k: 'yes' if v else 'no' for k, v in RIGHT.items()}",
    "beside what cannot be read": "{**RIGHT, 's99': {1, 2}}",
    "OrderedDict": "OrderedDict(RIGHT)",
    "capital keys": "{k.upper(): v for k, v in RIGHT.items()}",
    "comparisons": "{k: np.float64(1.0) < (2 if v else 0) for k, v in RIGHT.items()}",
}
PLAN = {
    "a list": "RIGHT",
    "a tuple": "tuple(RIGHT)",
    "zeros": "[{'short': row.get('short', 0), 'long': row.get('long', 0)} for row in RIGHT]",
    "zeros of numpy's": "[{'short': np.int64(row.get('short', 0)), 'long': np.int64(row.get('long', 0))} for row in RIGHT]",
    "None for nothing": "[{'short': row.get('short'), 'long': row.get('long')} for row in RIGHT]",
    "floats": "[{k: float(v) for k, v in row.items()} for row in RIGHT]",
    "texts": "[{k: str(v) for k, v in row.items()} for row in RIGHT]",
    "Counters": "[Counter(row) for row in RIGHT]",
    "OrderedDicts": "[OrderedDict(row) for row in RIGHT]",
    "by iteration": "dict(enumerate(RIGHT, 1))",
    "by index": "dict(enumerate(RIGHT))",
    "a generator": "(row for row in RIGHT)",
    "capital keys": "[{k.capitalize(): v for k, v in row.items()} for row in RIGHT]",
    "an array of dicts": "np.array(RIGHT, dtype=object)",
    "with a unit": "[{k: f'{v} tokens' for k, v in row.items()} for row in RIGHT]",
}
CHOICE = {
    "a letter": "RIGHT",
    "a capital": "RIGHT.upper()",
    "blanks": "' ' + RIGHT + ' \\n'",
    "a bracket": "RIGHT + ')'",
    "brackets": "'(' + RIGHT.upper() + ')'",
    "a full stop": "RIGHT + '.'",
    "quoted": "repr(RIGHT)",
    "backticks": "'`' + RIGHT + '`'",
    "bold": "'**' + RIGHT + '**'",
    "mathematics": "'$' + RIGHT + '$'",
    "a word before": "'Answer: ' + RIGHT",
    "wide": "''.join(chr(ord(c) + 0xfee0) for c in RIGHT)",
    "marks of direction": "'\\u200f' + RIGHT",
    "a list of one": "[RIGHT]",
    "a tuple of one": "(RIGHT,)",
    "numpy's text": "np.str_(RIGHT)",
}
FIX = {
    "a dict": "RIGHT",
    "OrderedDict": "OrderedDict(RIGHT)",
    "capital key": "{k.upper(): v for k, v in RIGHT.items()}",
    "numpy's": "{k: np.array([v])[0] for k, v in RIGHT.items()}",
    "as text": "{k: str(v) for k, v in RIGHT.items()}",
    "text in capitals": "{k: str(v).upper() + ' ' for k, v in RIGHT.items()}",
    "beside None": "{**dict.fromkeys(NAMES), **RIGHT}",
}
TABLE = {
    "order": ORDER,
    "counts": NUMBERS,
    "tasks": NUMBERS,
    "statements": TRUTHS,
    "plan": PLAN,
    "consequence": CHOICE,
    "fault": CHOICE,
    "fix": FIX,
}
TORCH = {
    "counts": "{k: torch.tensor(v) for k, v in RIGHT.items()}",
    "statements": "{k: torch.tensor(v) for k, v in RIGHT.items()}",
    "plan": "[{k: torch.tensor(v) for k, v in row.items()} for row in RIGHT]",
}
WRONG = {
    "order": ["3", "{'a': 1}", "{'a', 'b'}", "'a a b'", "'?'", "b'abc'", "object()", "'z9'", "print"],
    "counts": [
        "3",
        "[1, 2, 3, 4]",
        "'many'",
        "dict.fromkeys(NAMES, 'x')",
        "dict.fromkeys(NAMES, True)",
        "dict.fromkeys(NAMES, float('nan'))",
        "dict.fromkeys(NAMES, [1, 2])",
        "{*NAMES}",
    ],
    "statements": ["True", "[True] * 8", "dict.fromkeys(NAMES, 'maybe')", "dict.fromkeys(NAMES, 7)"],
    "plan": [
        "7",
        "[{'longer': 1}] * N",
        "[{'long': -1}] * N",
        "[{'long': 0.5}] * N",
        "[{'long': 1}] * (N + 1)",
        "[[1, 2]] * N",
        "'long'",
    ],
    "consequence": ["3", "'z'", "'a b'", "['a', 'b']", "{'a'}", "True"],
    "fix": [
        "3",
        "{'chunks': 512}",
        "{'chunk': 0}",
        "{'chunk': 1e9}",
        "{'chunk': 0.5}",
        "{'order': 'fastest'}",
        "'chunk'",
        "[('chunk', 512)]",
    ],
}
CASES = [(name, how, code) for name, spellings in TABLE.items() for how, code in spellings.items()]


def session(name: str, code: str) -> LocalSession:
    names = question(name).form.get("names")
    shared = HEAD.format(right=solution(name)) + f"NAMES = {names!r}\nN = {question(name).form.get('n')!r}"
    return LocalSession([shared, f"{name} = {code}"])


def judged(name: str, code: str) -> Judgement | None:
    """What the grader says; None where it says that there is no answer, or none that can be read."""
    asked = session(name, code)
    assert not asked.troubles, asked.troubles
    try:
        return question(name).judge(asked)  # type: ignore[misc]
    except Refused:
        return None


@cache
def cell() -> dict[str, Any]:
    """The notebook's cell of checks, run where nothing else is."""
    names: dict[str, Any] = {}
    exec(check_cell(), names)
    return names


def checked(name: str, code: str) -> str:
    """What the notebook's check says of the same answer."""
    names = session(name, code).worker.module.__dict__
    return cell()["look"](names, name, question(name).form)


def test_the_table_is_long_enough():
    assert len(CASES) >= 60 and len({code for *_, code in CASES}) >= 60


@pytest.mark.parametrize(("name", "how", "code"), CASES)
def test_a_right_answer_is_paid_however_it_is_spelt(name, how, code):
    verdict = judged(name, code)
    assert verdict is not None and verdict.points == question(name).points, (how, verdict)
    assert checked(name, code) == f"{name}: answered, and well formed", how


#: around names and values, as an editor, a web page or a phone may leave them: some are no blanks by the tables
BLANKS = {
    **{"tab": "\t", "vertical tab": "\v", "form feed": "\f", "old new line": "\r", "Windows'": "\r\n"},
    **{"no break": "\u00a0", "thin": "\u2009", "narrow": "\u202f", "hair": "\u200a", "figure": "\u2007"},
    **{"line": "\u2028", "paragraph": "\u2029", "next line": "\x85", "ogham": "\u1680", "wide": "\u3000"},
    **{
        "joiner": "\u2060",
        "mark": "\ufeff",
        "soft hyphen": "\u00ad",
        "zero width": "\u200d",
        "grapheme": "\u034f",
    },
    **{"right to left": "\u200f", "isolate": "\u2066", "braille": "\u2800", "hangul": "\u3164"},
}
WITH_BLANKS = {
    "order": "{b}.join(RIGHT.split()) + {b}",
    "consequence": "{b} + RIGHT + {b}",
    "fix": "{{{b} + k + {b}: str(v) + {b} for k, v in RIGHT.items()}}",
    "statements": "{{{b} + k + {b}: {b} + str(v) + {b} for k, v in RIGHT.items()}}",
    "counts": "{{{b} + k + {b}: {b} + str(v) + {b} for k, v in RIGHT.items()}}",
    "plan": "[{{k + {b}: str(v) + {b} for k, v in row.items()}} for row in RIGHT]",
}


@pytest.mark.parametrize("blank", BLANKS)
def test_a_right_answer_is_paid_whatever_blanks_stand_around_it(blank):
    for name, code in WITH_BLANKS.items():
        spelt = code.format(b=repr(BLANKS[blank]))
        verdict = judged(name, spelt)
        assert verdict is not None and verdict.points == question(name).points, (name, verdict)
        assert checked(name, spelt) == f"{name}: answered, and well formed"


@pytest.mark.parametrize("name", TORCH)
def test_tensors_are_numbers_and_truths(name):
    torch = pytest.importorskip("torch")
    asked = session(name, "None")
    asked.worker.module.__dict__["torch"] = torch
    exec(f"{name} = {TORCH[name]}", asked.worker.module.__dict__)
    assert question(name).judge(asked).points == question(name).points  # type: ignore[misc]
    said = cell()["look"](asked.worker.module.__dict__, name, question(name).form)
    assert said == f"{name}: answered, and well formed"


@pytest.mark.parametrize(("name", "code"), [(name, code) for name, codes in WRONG.items() for code in codes])
def test_what_the_check_refuses_the_grader_refuses(name, code):
    verdict = judged(name, code)
    assert verdict is None or verdict.points == 0, verdict
    said = checked(name, code)
    assert said.startswith(f"{name}: ") and "well formed" not in said and "not answered" not in said


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("code", ["None", "...", "dict.fromkeys(NAMES or [])"])
def test_what_is_not_answered_is_no_answer_for_both(name, code):
    if code.startswith("dict") and name not in ("counts", "tasks", "statements", "fix"):
        return
    assert judged(name, code) is None
    assert checked(name, code) == f"{name}: not answered yet"


def test_a_part_of_an_answer_is_said_to_be_one_and_is_paid():
    some = "dict(list(RIGHT.items())[:2])"
    assert judged("counts", some).points == 1.5  # type: ignore[union-attr]
    assert checked("counts", some).startswith("counts: answered in part: 2 of 4 numbers are missing")
    assert checked("plan", "RIGHT[:-1]").startswith("plan: answered in part")
    bad = "{**RIGHT, 'passes': float('nan')}"
    assert judged("counts", bad).points == 3.5  # type: ignore[union-attr]
    assert "no finite number" in checked("counts", bad)


def test_the_cell_is_the_grader_s_own_reader_and_leaves_two_names():
    assert {name for name in cell() if not name.startswith("__")} == {"checks", "look"}
    for source in (answer_forms.letters, answer_forms.numbers):
        assert source.__name__ in check_cell()
    assert "chunkprefill_course" not in check_cell()


# --- `decide`: the spelling of what a function returns ------------------------------------------------

PLANS = {
    "list": {
        "a tuple": "tuple(back)",
        "a deque": "deque(back)",
        "an array": "np.array(back)",
        "a generator": "(n for n in back)",
        "Fractions": "[Fraction(n) for n in back]",
        "texts": "[str(n) for n in back]",
    },
    "dict": {
        "a Counter": "Counter(back)",
        "a defaultdict": "defaultdict(int, back)",
        "an OrderedDict": "OrderedDict(back)",
        "Fractions": "{k: Fraction(n) for k, n in back.items()}",
        "float keys": "{float(k): float(n) for k, n in back.items()}",
        "numpy's keys": "{np.int64(k): np.int64(n) for k, n in back.items()}",
        "texts": "{k: str(n) for k, n in back.items()}",
    },
    "pairs": {
        "tuples": "tuple(tuple(pair) for pair in back)",
        "named tuples": "[namedtuple('Pair', 'tokens name')(*pair) for pair in back]",
        "a deque": "deque(back)",
        "a generator": "(pair for pair in back)",
        "an array": "np.array(back)",
        "Fractions": "[(Fraction(n), k) for n, k in back]",
        "texts": "[(str(n), k) for n, k in back]",
    },
}
BAD_PLANS = {"list": "[0.5] * 2", "dict": "{99: 1}", "pairs": "[(1, 17), (1, 17)]"}


def decided(returns: str, code: str) -> tuple[list[tuple[Any, int]] | None, str]:
    """What the grader reads of a plan for the two prompts of the check, and what the check says."""
    right = {"list": "[3, 0]", "dict": "{17: 3}", "pairs": "[(3, 17)]"}[returns]
    cells = [
        HEAD.format(right=None),
        f"def decide(prompts, n_decodes, now):\n    back = {right}\n    return {code}",
    ]
    form = Interface(("prompts", "n_decodes", "now"), ("name",), returns)
    asked = LocalSession(cells)
    public = {"kind": "decisions", "signature": [*form.signature], "fields": ["name"], "returns": returns}
    said = cell()["look"](asked.worker.module.__dict__, "decide", public)
    try:
        return Decisions(asked, form).pairs(asked.call("decide", [[[17], [4]], 1, 1.0]), [17, 4]), said
    except Refused:
        return None, said


@pytest.mark.parametrize(
    ("returns", "how", "code"),
    [(kind, how, code) for kind, rows in PLANS.items() for how, code in rows.items()],
)
def test_a_plan_is_read_however_it_is_spelt(returns, how, code):
    assert decided(returns, code) == ([(17, 3)], "decide: answered, and well formed"), how


@pytest.mark.parametrize("returns", BAD_PLANS)
def test_a_plan_that_the_check_refuses_the_grader_refuses(returns):
    read, said = decided(returns, BAD_PLANS[returns])
    assert read is None and "well formed" not in said


@pytest.mark.parametrize(
    "text",
    [
        *(
            "10³",
            "x²",
            "2½",
            "12 kg",
            "3 m",
            "1.5 s",
            "seven",
            "1,02,3",
            "1 2",
            "0x10",
            "--3",
            "7 or 8",
            "nan",
        ),
        *(
            "inf",
            "10^3^2",
            "3/0",
            "1e999",
            "3j",
            "1 " + " " * 398 + "2",
            "9" * 401,
            "٣" * 50,
            "‰",
            "7‰",
            "!7",
        ),
        *("12 milliseconds", "3 small tokens", "\u200f", "**", "1..2", "1,000.000,5", "two thirds"),
    ],
)
def test_a_text_that_may_mean_another_number_is_none(text):
    assert answer_forms.as_number(text, "small_ms") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("½", 0.5), ("¾", 0.75), ("3 / 4", 0.75), ("−0.5", -0.5), ("–2", -2), ("1.024.000", 1_024_000)),
        *(
            ("1.024,5", 1024.5),
            ("1,024.5", 1024.5),
            ("0,024", 0.024),
            ("2,5e3", 2500.0),
            ("2.5*10**3", 2500.0),
        ),
        *(
            ("12 ms", 12),
            ("12ms.", 12),
            ("12.5 %", 0.125),
            ("12.5 percent", 0.125),
            ("٣٫٥", 3.5),
            ("１２．５", 12.5),
        ),
        *(
            ("$2.5 \\times 10^{3}$", 2500.0),
            ("\\(7\\)", 7),
            ("50\\%", 0.5),
            ("1e3", 1000.0),
            ("3.", 3.0),
            (".5", 0.5),
        ),
        *(("-0.0", 0.0), ("007", 7), ("+7", 7), ("'7'", 7), ("1 024", 1024), ("1'024'000", 1_024_000)),
    ],
)
def test_a_text_that_can_mean_one_number_alone_is_that_number(text, value):
    assert answer_forms.as_number(text, "small_ms") == value


@pytest.mark.parametrize(
    "text", ["!True", "not True", "~True", "True or False", "1 True", "TrueFalse", "truth", ""]
)
def test_a_text_that_may_mean_another_truth_is_none(text):
    assert answer_forms.as_truth(text) is None


def test_what_cannot_be_read_costs_itself_alone():
    for odd in (
        "{1, 2}",
        "print",
        "b'7'",
        "object()",
        "itertools.count()",
        "(1j)",
        "[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]",
        "Fraction(10**400, 3)",
        "Decimal('sNaN')",
        "Decimal('1e999999')",
        "[1] * 20_000",
        "'7' * 10**6",
    ):
        code = f"{{**RIGHT, 'passes': {odd}}}"
        assert judged("counts", code).points == 3.5, odd  # type: ignore[union-attr]
        assert "no finite number" in checked("counts", code), odd
    for name, code in (
        ("order", "[*RIGHT.split(), {1}]"),
        ("plan", "[*RIGHT[:-1], {1}]"),
        ("consequence", "[{1}]"),
    ):
        verdict = judged(name, code)
        assert verdict is None or verdict.points == 0
        assert "well formed" not in checked(name, code)


def test_odd_keys_cost_only_themselves():
    code = "{**RIGHT, 1.5: 1, None: 2, (1, 2): 3, 7.0: 4}"
    assert judged("counts", code).points == question("counts").points  # type: ignore[union-attr]


def test_no_quoted_word_of_a_student_is_repeated():
    assert (
        sentence('there is no setting "it\'s mine"; no more') == "There is no setting of that name; no more."
    )

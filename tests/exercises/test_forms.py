"""The forms answer every attempt, right, wrong, odd or hostile, and never raise."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import chunkprefill as cp
from chunkprefill import exercises
from chunkprefill.exercises.feedback import inline, plain_text
from chunkprefill.exercises.running import attempt, plain, shape, time_limit
from tests.needs import ROOT

FORMS = [getattr(exercises, name) for name in exercises.__all__]
EXERCISES = [form for form in FORMS if isinstance(form, cp.Exercise)]
CHOICES = [form for form in FORMS if isinstance(form, cp.Choice)]
ORDERS = [form for form in FORMS if isinstance(form, cp.Order)]
VOID = {"input", "br", "link", "meta", "img", "hr"}


def named(forms):
    return pytest.mark.parametrize("form", forms, ids=lambda form: form.id)


class Balanced(HTMLParser):
    """Fails on a tag that is closed by another, or never."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.ids = [], []
        self.feed(page)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"


# --- code exercises -----------------------------------------------------------------------------------


@named(EXERCISES)
@pytest.mark.parametrize("seed", [0, 1, None])
def test_the_solution_passes(form, seed):
    feedback = form.check(form.solution, seed=seed)
    assert feedback.ok is True and bool(feedback), str(feedback)


@named(EXERCISES)
@pytest.mark.parametrize("seed", [0, None])
def test_each_wrong_answer_passes_the_example_and_fails_with_its_own_hint(form, seed):
    assert len(form.wrong) >= 3
    for wrong in form.wrong:
        for case in form.example:
            assert not form.broken(case, form.outcome(wrong.program, case)), (wrong.program, case)
        feedback = form.check(wrong.program, seed=seed)
        assert feedback.ok is False and not feedback
        hints = [other for other in form.wrong if plain_text(other.hint) in str(feedback)]
        assert hints == [wrong], str(feedback)
        assert feedback.case, "the smallest failing case is named"


def test_no_hint_is_shared():
    hints = [wrong.hint for form in EXERCISES for wrong in form.wrong]
    assert len(set(hints)) == len(hints)
    assert all(len(set(form.hints)) == 3 for form in EXERCISES)


@named(EXERCISES)
def test_the_case_shown_is_the_smallest_that_fails(form):
    for wrong in form.wrong:
        failing = [c for c in form._cases(0) if form.broken(c, form.outcome(wrong.program, c))]
        smallest = min(map(form.size, failing))
        shown = next(
            c
            for c in failing
            if plain_text(form.show(c)) == plain_text(form.check(wrong.program, seed=0).case)
        )
        assert form.size(shown) == smallest


@named(EXERCISES)
def test_fresh_cases_each_time_and_the_same_ones_by_seed(form):
    assert form._cases(3) == form._cases(3)
    assert form._cases(None) != form._cases(None)


@named(EXERCISES)
def test_a_right_answer_written_otherwise_passes(form):
    """What is judged is what a program does: generators, tuples, arrays and ints for booleans are as good."""
    import torch

    def otherwise(*args):
        value = form.solution(*args)
        if isinstance(value, torch.Tensor):
            return value.to(torch.int64).numpy()
        return int(value) if isinstance(value, bool) else value

    assert form.check(otherwise).ok is True


def unwritten(*_args):
    raise NotImplementedError


@named(EXERCISES)
def test_not_attempted_is_not_an_error(form):
    space: dict = {}
    exec(form.starter, space)
    for nothing in (None, ..., lambda *_: None, lambda *_: ..., unwritten, space[form.name]):
        feedback = form.check(nothing)
        assert feedback.ok is None and not feedback, (nothing, str(feedback))


class Agrees:
    def __eq__(self, other):
        return True

    __hash__ = None
    __bool__ = __len__ = lambda self: True
    shape = (1, 1)


class Fakes(Agrees):
    __module__ = "torch"

    def tolist(self):
        return Agrees()

    def numel(self):
        return 1


class BadWords(Exception):
    def __str__(self):
        raise RuntimeError("not even that")


def forever(*_args):
    while True:
        yield True


def stops_the_kernel(*_args):
    raise SystemExit(3)


def recurses(*args):
    return recurses(*args)


def speaks_badly(*_args):
    raise BadWords


def nested(*_args):
    rows: list = []
    rows.append(rows)
    return rows


ODD = [
    forever,
    stops_the_kernel,
    recurses,
    speaks_badly,
    nested,
    lambda: 1,
    lambda *_: Agrees(),
    lambda *_: Fakes(),
    lambda *_: "yes",
    lambda *_: float("nan"),
    lambda *_: [[[]]],
    lambda *_: {},
    lambda *_: [[True], [True, False]],
    lambda *_: print("x" * 10_000),
    lambda *a: a,
    lambda *_: (i for i in range(3)),
    lambda *_: 1j,
    lambda *_: b"1",
    7,
    "def f(): pass",
    Agrees(),
    [1, 2],
]


@named(EXERCISES)
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: getattr(odd, "__name__", type(odd).__name__))
def test_odd_and_hostile_answers_get_words(form, odd, capsys):
    feedback = form.check(odd)
    assert feedback.ok is not True
    assert len(str(feedback)) > 20 and len(str(feedback)) < 2000
    Balanced(feedback._repr_html_())
    assert capsys.readouterr().out == "", "what it prints is held back"


@named(EXERCISES)
def test_endless_loops_are_stopped(form):
    def spins(*_args):
        while True:
            try:
                sum(range(1000))
            except Exception:
                continue

    begin = time.monotonic()
    feedback = form.check(spins, seconds=0.3)
    assert feedback.ok is False and "0.3 s" in str(feedback)
    assert time.monotonic() - begin < 5


def test_a_time_limit_leaves_nothing_behind():
    import signal

    before = signal.getsignal(signal.SIGALRM)
    with time_limit(5):
        pass
    assert signal.getsignal(signal.SIGALRM) == before and signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    answers: list = []
    thread = threading.Thread(
        target=lambda: answers.append(attempt(lambda: 1 + 1))
    )  # no alarms off the main thread
    thread.start()
    thread.join()
    assert answers[0].value == 2


def test_inputs_are_not_the_readers_to_change():
    def eats(tokens, chunk_size, run):
        while tokens:
            logits = run(tokens[:chunk_size])
            del tokens[:chunk_size]
        return logits

    feedback = exercises.chunk_loop.check(eats)
    assert feedback.ok is False and "changed tokens" in str(feedback)

    def scales(cache, length, new):
        cache[length : length + len(new)] = new
        new.zero_()
        return length + len(new)

    feedback = exercises.cache_write.check(scales)
    assert feedback.ok is False and "changed new" in str(feedback)


def test_every_split_that_keeps_the_rules_is_right():
    def short_one_first(tokens, chunk_size, run):
        first = len(tokens) % chunk_size or chunk_size
        logits = run(tokens[:first])
        for start in range(first, len(tokens), chunk_size):
            logits = run(tuple(tokens[start : start + chunk_size]))
        return logits

    assert exercises.chunk_loop.check(short_one_first).ok is True


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.complex_numbers()
        | st.binary(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.text(), inner)
            | st.tuples(inner, inner)
            | st.sets(st.integers())
        ),
        max_leaves=8,
    )
)
def test_whatever_is_returned_never_raises(value):
    for form in EXERCISES:
        assert form.check(lambda *_: value, seed=0).ok in (True, False, None)


def test_no_constant_answer_is_right():
    for form in EXERCISES:
        for value in (True, False, 0, 1, [], [[True]], [0]):
            assert form.check(lambda *_, value=value: value).ok is not True


@named(EXERCISES)
def test_twins_come_from_running_the_wrong_programs(form):
    twins = [form.twin(guilty) for guilty in range(len(form.wrong))]
    assert len({(twin.picture, twin.prompt) for twin in twins}) == len(twins)
    for wrong, twin in zip(form.wrong, twins):
        assert isinstance(twin, cp.Choice) and len(twin.options) == len(form.wrong)
        right = [option for option in twin.options if option.ok]
        source = form.source(wrong.program).removeprefix(form.preamble)
        assert len(right) == 1 and right[0].code == source
        assert right[0].reply == wrong.hint and "<svg" in twin.picture
        assert wrong.program.__name__ not in right[0].code and '"""' not in right[0].code, (
            "it gives itself away"
        )
        Balanced(twin._repr_html_())


@named(EXERCISES)
def test_the_page_shows_prompt_hints_and_solution_behind_folds(form):
    page = form._repr_html_()
    Balanced(page)
    assert page == form._repr_html_()
    assert page.count("<details>") == 4 and "<details open" not in page
    assert 'tabindex="0"' in page and form.minutes > 0
    space: dict = {}
    exec(form.source(form.solution), space)
    assert form.check(space[form.name]).ok is True, "the solution shown is the one that passes"


# --- choices ------------------------------------------------------------------------------------------


@named(CHOICES)
def test_every_option_has_its_own_reply(form):
    replies = [str(form.check(option.key)) for option in form.options]
    assert len(set(replies)) == len(replies)
    assert [form.check(o.key).ok for o in form.options] == [
        None if form.predict else o.ok for o in form.options
    ]
    assert form.check(form.options[0].key.upper()).ok == form.check(form.options[0].key).ok
    Balanced(form._repr_html_())


@named(CHOICES)
@pytest.mark.parametrize(
    "odd", [None, ..., "", "z", 3, ["a"], object(), Agrees()], ids=lambda odd: type(odd).__name__
)
def test_no_answer_is_no_error(form, odd):
    assert form.check(odd).ok is None


@named(CHOICES)
def test_the_page_needs_no_script(form):
    page = form._repr_html_()
    assert "<script" not in page and "onclick" not in page and "http" not in page
    for option in form.options:
        assert (inline(option.reply) in page) is not form.predict, "a prediction gives nothing away"
        assert f'for="cp-{form.id}-{option.key}"' in page


def test_ids_are_unique_in_the_book():
    ids = [form.id for form in EXERCISES + CHOICES + ORDERS]
    assert len(set(ids)) == len(ids)


def test_a_question_that_cannot_be_answered_is_refused():
    a, b = cp.Option("a", "A", "because"), cp.Option("b", "B", "since", True)
    with pytest.raises(ValueError, match="0 options are right"):
        cp.Choice(id="x", prompt="?", options=(a, cp.Option("b", "B", "since")))
    with pytest.raises(ValueError, match="reply of its own"):
        cp.Choice(id="x", prompt="?", options=(a, cp.Option("b", "B", "because", True)))
    with pytest.raises(ValueError, match="keys of their own"):
        cp.Choice(id="x", prompt="?", options=(b, b))
    guess = cp.Choice(id="x", prompt="?", options=(a, cp.Option("b", "B", "since")), predict=True)
    with pytest.raises(ValueError, match="no option 'c'"):
        cp.recall(guess, answer="c", measured="")


def test_a_prediction_is_recalled_beside_what_was_measured():
    guess = exercises.guess_text
    shown = cp.recall(guess, answer="same", measured="40 of 40 tokens are equal", mine="close")
    assert "You predicted: They are alike" in str(shown) and "40 of 40" in str(shown)
    assert "no prediction" in str(cp.recall(guess, answer="same", measured="x", mine=...))
    page = cp.recall(guess, answer="same", measured="x")._repr_html_()
    Balanced(page)
    assert (
        page.count("data-right") == 1
        and 'data-recall="guess-text"' in page
        and 'href="#cp-guess-text"' in page
    )


def test_the_cache_size_question_is_about_the_model_that_is_loaded():
    from chunkprefill.exercises.chapter1 import BYTES_PER_NUMBER, N_TOKENS, SMOLLM2

    right = next(option for option in exercises.cache_size.options if option.ok)
    per_token = 2 * SMOLLM2.n_layers * SMOLLM2.n_kv_heads * SMOLLM2.head_dim
    assert right.text == f"{per_token * N_TOKENS * BYTES_PER_NUMBER / 1e6:,.1f} MB"


# --- orders -------------------------------------------------------------------------------------------


def allowed(order: cp.Order, keys) -> bool:
    return order.check(list(keys)).ok is True


def test_every_order_that_works_is_accepted_and_no_other():
    """Against the rules in words: cut and room first, chunks in order, then the token, then generation."""
    works = set()
    for head in permutations(("split", "room")):
        works.add((*head, "c1", "c2", "c3", "first", "decode"))
    order, states = exercises.cache_order, exercises.cache_order.states()
    keys = [step.key for step in order.steps]
    for tried in permutations(keys):
        name = ""
        for key in tried:
            name = states[name]["next"][key]
            if not isinstance(name, str):
                break
        assert isinstance(name, str) == (tried in works), tried
    for tried in works:
        assert allowed(order, tried)


@named(ORDERS)
def test_the_page_plays_what_the_notebook_plays(form):
    """For orders that break off anywhere: the same words and pictures from the table as from the run."""
    import random

    states, keys = form.states(), [step.key for step in form.steps]
    for seed in range(12):
        tried = random.Random(seed).sample(keys, len(keys)) if seed else keys
        name = ""
        for move in form.play(tried):
            there = states[name]["next"][move.key]
            if move.ok:
                name = there
                assert (states[name]["said"], states[name]["picture"]) == (move.said, move.picture)
            else:
                assert there == {"broken": move.said} and states[name]["picture"] == move.picture
    assert states[" ".join(keys)]["next"] == {}


@named(ORDERS)
def test_an_order_stops_at_the_first_rule_that_it_breaks(form):
    assert allowed(form, [step.key for step in form.steps])
    dealt = form.shuffled()
    assert sorted(dealt) == sorted(step.key for step in form.steps) and not allowed(form, dealt)
    assert form.shuffled() == dealt
    for odd in (None, ..., "", [], 5, object(), "nonsense", [None], Agrees()):
        assert form.check(odd).ok is None, odd
    first = form.steps[0].key
    assert form.check([first, first]).ok is False and "2 times" in str(form.check([first, first]))
    assert "Still to come" in str(form.check([first]))
    Balanced(form._repr_html_())
    assert form._repr_html_() == form._repr_html_()


def test_the_rule_is_said_with_its_numbers():
    feedback = exercises.cache_order.check("split room c2")
    assert "chunk 2 reads positions 0–3, which are not in the cache yet" in str(feedback)
    feedback = exercises.cache_order.check(["split", "room", "c1", "c3"])
    assert "chunk 3 reads positions 4–7" in str(feedback) and "<svg" in feedback.picture


# --- all of them --------------------------------------------------------------------------------------


def test_importing_the_exercises_does_not_import_torch():
    script = "import sys; from chunkprefill import exercises as e; [getattr(e, n) for n in e.__all__]; "
    script += "e.chunk_mask.check(...); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_marks_in_text_become_html_and_nothing_else_does():
    assert inline("a `b<c` **d** *e* <f>") == "a <code>b&lt;c</code> <strong>d</strong> <em>e</em> &lt;f&gt;"
    assert inline("2 * 3 * 4") == "2 * 3 * 4"
    assert plain_text("a `b` **c** *d* 2 * 3 * 4") == "a b c d 2 * 3 * 4"


def test_shapes_of_nested_lists():
    assert shape([[1, 2], [3, 4]]) == (2, 2) and shape([[1], [2, 3]]) is None and shape([]) == (0,)
    assert shape(3) == () and plain((1, range(2))) == [1, [0, 1]]

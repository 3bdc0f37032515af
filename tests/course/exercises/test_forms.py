"""The forms answer every attempt, right, wrong, odd or hostile, and never raise."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from html.parser import HTMLParser
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunkprefill as cp
import chunkprefill_course as course
from chunkprefill_course import exercises
from chunkprefill_course.forms.answers import plain, shape
from chunkprefill_course.forms.feedback import inline, plain_text
from chunkprefill_course.forms.guess import off_by
from chunkprefill_course.forms.memory import Snapshot
from chunkprefill_course.forms.running import attempt
from tests.needs import ROOT
from tests.proof import draws

FORMS = [getattr(exercises, name) for name in exercises.__all__]
EXERCISES = [form for form in FORMS if isinstance(form, course.Exercise)]
CHOICES = [form for form in FORMS if isinstance(form, course.Choice)]
ORDERS = [form for form in FORMS if isinstance(form, course.Order)]
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
@pytest.mark.parametrize("seed", draws([0], [0, 1, None]))
def test_the_solution_passes(form, seed):
    feedback = form.check(form.solution, seed=seed)
    assert feedback.ok is True and bool(feedback), str(feedback)


@named(EXERCISES)
@pytest.mark.parametrize("seed", draws([0], [0, None]))
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
        failing = [c for c in form.drawn(0) if form.broken(c, form.outcome(wrong.program, c))]
        said = plain_text(form.check(wrong.program, seed=0).case)
        shown = next(c for c in failing if plain_text(form.show(c)) == said)
        assert form.size(shown) == min(map(form.size, failing))


@named(EXERCISES)
def test_fresh_cases_each_time_and_the_same_ones_by_seed(form):
    assert form.drawn(3) == form.drawn(3)
    assert form.drawn(None) != form.drawn(None)


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
    exec(form.preamble + form.starter, space)
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
    feedback = form.check(odd, seconds=0.3)
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

    feedback = form.check(spins, seconds=0.1)
    assert feedback.ok is False and "0.1 s" in str(feedback)


def test_a_time_limit_leaves_nothing_behind():
    import signal

    before = signal.getsignal(signal.SIGALRM)
    assert attempt(lambda: 1, seconds=5).value == 1
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


@settings(max_examples=12)  # each is judged by every exercise; `test_answers` reads a hundred and more
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
    twins = [form.as_choice(guilty) for guilty in range(len(form.wrong))]
    assert len({(twin.picture, twin.prompt) for twin in twins}) == len(twins)
    for wrong, twin in zip(form.wrong, twins):
        assert isinstance(twin, course.Choice) and len(twin.options) == len(form.wrong)
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
    a, b = course.Option("a", "A", "because"), course.Option("b", "B", "since", True)
    with pytest.raises(ValueError, match="0 options are right"):
        course.Choice(id="x", prompt="?", options=(a, course.Option("b", "B", "since")))
    with pytest.raises(ValueError, match="reply of its own"):
        course.Choice(id="x", prompt="?", options=(a, course.Option("b", "B", "because", True)))
    with pytest.raises(ValueError, match="keys of their own"):
        course.Choice(id="x", prompt="?", options=(b, b))
    guess = course.Choice(id="x", prompt="?", options=(a, course.Option("b", "B", "since")), predict=True)
    with pytest.raises(ValueError, match="no option 'c'"):
        course.recall(guess, answer="c", measured="")


def test_a_prediction_is_recalled_beside_what_was_measured():
    guess = exercises.guess_text
    shown = course.recall(guess, answer="same", measured="40 of 40 tokens are equal", mine="close")
    assert "You predicted: They are similar" in str(shown) and "40 of 40" in str(shown)
    assert "no prediction" in str(course.recall(guess, answer="same", measured="x", mine=...))
    page = course.recall(guess, answer="same", measured="x")._repr_html_()
    Balanced(page)
    assert (
        page.count("data-right") == 1
        and 'data-recall="guess-text"' in page
        and 'href="#cp-guess-text"' in page
    )


def test_a_number_guessed_says_how_far_off_it_was():
    assert off_by(4, "≈2.00×") == off_by(1, "≈2.00×") == "off by 2.0×"
    assert (
        off_by(2.05, 2.0) == "close"
        and off_by(7, "6.1 to 8.7") == off_by(7, (6.1, 8.7)) == "within the range"
    )
    assert off_by(1000, "1,234,000 B") == "off by 1,234×"
    for guess, found in (
        (0, 2.0),
        (-1, 2.0),
        (math.nan, 2.0),
        (math.inf, 2.0),
        (2, "none"),
        (2, None),
        (2, 0.0),
    ):
        assert off_by(guess, found) == ""
    guess = exercises.guess_twice
    told = course.recall(guess, answer="twice", measured="x", mine=4, value=cp.measured(2.0, "×"))
    assert "You predicted: 4 times as long, off by 2.0×." in str(told) and "off by" in told._repr_html_()
    assert "4 times as long" in str(guess.check(4))
    with pytest.raises(ValueError, match="it asks for"):
        course.recall(guess, answer="twice", measured="x")
    with pytest.raises(ValueError, match="only a prediction"):
        course.Choice(id="x", prompt="?", options=exercises.what_for.options, number="tokens")


def test_the_cache_size_question_is_about_the_model_that_is_loaded():
    from chunkprefill_course.exercises.ch01.questions import BYTES_PER_NUMBER, N_TOKENS, SMOLLM2

    right = next(option for option in exercises.cache_size.options if option.ok)
    per_token = 2 * SMOLLM2.n_layers * SMOLLM2.n_kv_heads * SMOLLM2.head_dim
    assert right.text == f"{per_token * N_TOKENS * BYTES_PER_NUMBER / 1e6:,.1f} MB"


# --- orders -------------------------------------------------------------------------------------------


def allowed(order: course.Order, keys) -> bool:
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
    script = (
        "import sys; from chunkprefill_course import exercises as e; [getattr(e, n) for n in e.__all__]; "
    )
    script += "e.chunk_mask.check(...); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_marks_in_text_become_html_and_nothing_else_does():
    assert inline("a `b<c` **d** *e* <f>") == "a <code>b&lt;c</code> <strong>d</strong> <em>e</em> &lt;f&gt;"
    assert inline("2 * 3 * 4") == "2 * 3 * 4"
    assert (
        inline("*all of `a * b` here*, `x*y*z`")
        == "<em>all of <code>a * b</code> here</em>, <code>x*y*z</code>"
    )
    assert plain_text("*all of `a` here*, `x*y*z`") == "all of a here, x*y*z"
    assert plain_text("a `b` **c** *d* 2 * 3 * 4") == "a b c d 2 * 3 * 4"


def test_shapes_of_nested_lists():
    assert shape([[1, 2], [3, 4]]) == (2, 2) and shape([[1], [2, 3]]) is None and shape([]) == (0,)
    assert shape(3) == () and plain((1, range(2))) == [1, [0, 1]]


# --- what a snapshot keeps ----------------------------------------------------------------------------


def test_a_value_that_cannot_be_copied_hides_no_other_and_attributes_are_no_globals():
    space = {"__name__": "__main__", "locked": (x for x in ()), "seen": [], "append": 3}
    exec("def f(x):\n    locked, seen.append(x)\n    return len(seen)", space)
    before = Snapshot(space["f"])
    assert space["f"](1) == 1
    space["append"] = 4
    before.restore()
    assert space["seen"] == [] and space["append"] == 4


def test_answers_whose_order_is_free_may_be_sets():
    from chunkprefill_course import exercises

    def batch(rows, tables, size):
        found = exercises.mixed_batch.solution(rows, tables, size)
        return [(p, slot, set(seen)) for p, slot, seen in found]

    def floats(rows, tables, size):
        return [(p, slot, [float(s) for s in seen]) for p, slot, seen in batch(rows, tables, size)]

    def room(running, free, size):
        evicted, again = exercises.make_room.solution(running, free, size)
        return set(evicted), again

    def twice(running, free, size):
        evicted, again = exercises.make_room.solution(running, free, size)
        return evicted * 2, again

    assert exercises.mixed_batch.check(batch, seed=1).ok and exercises.mixed_batch.check(floats, seed=1).ok
    assert exercises.make_room.check(room, seed=1).ok
    assert "is named twice" in str(exercises.make_room.check(twice, seed=1))

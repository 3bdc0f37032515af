"""Exercise: the loop that feeds a prompt to the model chunk by chunk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from chunkprefill_course.exercises.texts import prose
from chunkprefill_course.forms.answers import Plain, Unusable, figure, items, plain, told
from chunkprefill_course.forms.boards import Cell, board
from chunkprefill_course.forms.calling import changed
from chunkprefill_course.forms.exercise import Case, Exercise, Wrong
from chunkprefill_course.forms.feedback import counted
from chunkprefill_course.forms.running import Program
from chunkprefill_course.forms.variants import Variant

PAD = 0  # where the tokens of a prompt are 1, 2, 3, …, a 0 was made up


def solution(tokens, chunk_size, run):
    """A slice may reach beyond the end: the last chunk is what is left."""
    for start in range(0, len(tokens), chunk_size):
        logits = run(tokens[start : start + chunk_size])
    return logits


LOOP = """for start in range(0, len(tokens), chunk_size):
        logits = run(tokens[start : start + chunk_size])
"""


def _with(loop: str) -> Variant:
    return Variant(solution, (LOOP, loop))


def cases(rng: random.Random) -> Iterator[Case]:
    """All prompts of up to 5 tokens in chunks of up to 6, and thirty larger ones: tokens are 1, 2, 3, ….

    Then some whose tokens come in any order, come again, and are 0, as tokens of real prompts do and are; and
    long ones, of large tokens, in few chunks and in many.
    """
    yield from ({"n": n, "chunk_size": c} for n in range(1, 6) for c in range(1, 7))
    yield from ({"n": rng.randint(1, 40), "chunk_size": rng.randint(1, 12)} for _ in range(30))
    for known in ((5, 5), (0,), (0, 0, 0), (7, 0, 7), (3, 1, 2), (9, 9, 4, 9, 9), (0, 8, 8, 0, 2, 2)):
        yield from ({"n": len(known), "chunk_size": c, "tokens": list(known)} for c in (1, 2, 4))
    for _ in range(6):
        tokens = rng.choices(range(6), k=rng.randint(8, 30))
        yield {"n": len(tokens), "chunk_size": rng.randint(1, 12), "tokens": tokens}
    for n, chunk_size in ((1300, 512), (MOST, MOST - 1), (MOST, MOST), (MOST, 2048), (MOST, 10**6), (600, 2)):
        yield {"n": n, "chunk_size": chunk_size, "tokens": [rng.randrange(200_000) for _ in range(n)]}


MOST = 4_096  # tokens of a prompt: what the prompt of the exercise allows


MOST_DRAWN = 60  # tokens


def prompt_of(case: Case) -> list[int]:
    """The tokens of the prompt."""
    return list(case.get("tokens") or range(1, case["n"] + 1))


def _in_order(case: Case) -> bool:
    """Whether the tokens are 1, 2, 3, …, so that each says its own place."""
    return "tokens" not in case


def _left_over(case: Case) -> int:
    return case["n"] % case["chunk_size"]


def want(case: Case) -> dict[str, Any]:
    """One split that keeps the rules; `judge` accepts every other that does."""
    n, c = case["n"], case["chunk_size"]
    tokens = prompt_of(case)
    chunks = [tokens[s : s + c] for s in range(0, n, c)]
    return {"chunks": chunks, "returned": _logits(case, n, tokens[-1])}


def _logits(case: Case, place: Plain, token: Plain) -> str:
    """Logits, as a word that stands for them: other tokens have others, whatever their place."""
    return f"logits of token {place}" + ("" if _in_order(case) else f", which is {told(token)}")


def run(program: Program, case: Case) -> Any:
    """Call it with a `run` that writes down what it is given."""
    tokens, n_run = prompt_of(case), 0
    chunks: list[list[Plain]] = []

    def run_model(chunk: Any) -> str:
        nonlocal n_run
        chunks.append(_read(chunk, len(chunks) + 1))
        if len(chunks) > 4 * case["n"] + 10:
            raise Unusable(f"it ran {len(chunks)} chunks for {case['n']} tokens: does the loop ever end?")
        if not chunks[-1]:
            raise Unusable(f"chunk {len(chunks)} is empty; a forward pass needs at least one token")
        n_run += len(chunks[-1])
        return _logits(case, chunks[-1][-1] if _in_order(case) else n_run, chunks[-1][-1])

    returned = program(tokens, case["chunk_size"], run_model)
    if tokens != prompt_of(case):
        raise Unusable(changed("tokens", tokens))
    if not chunks and returned is None:
        return None  # not written yet
    if returned is None:
        raise Unusable("it returned nothing; the logits of the last chunk are wanted")
    return {"chunks": chunks, "returned": plain(returned)}


def _read(chunk: Any, number: int) -> list[Plain]:
    """A chunk as it was handed to the model."""
    try:
        return items(chunk) or []
    except Unusable:
        one = f", of one: `run([{chunk}])`" if type(chunk) is int else ""
        raise Unusable(
            f"`run` was given {told(chunk)} as chunk {number}; it takes a list of tokens{one}"
        ) from None


def judge(case: Case, value: Plain) -> str:
    """Every token once and in order, no chunk too long, no pass too many, the last logits, the input."""
    n, c = case["n"], case["chunk_size"]
    if value is None:
        return f"it ran no chunk at all of a prompt of {counted(n, 'token')}"
    chunks, expected, tokens = value["chunks"], 1, prompt_of(case)
    for i, chunk in enumerate(chunks, 1):
        if len(chunk) > c:
            may = "is" if c == 1 else "are"
            return f"chunk {i} has {counted(len(chunk), 'token')}, and at most {figure(c)} {may} allowed"
        for token in chunk:
            if not _in_order(case):
                if expected > n:
                    return f"chunk {i} runs more than the {counted(n, 'token')} of the prompt"
                if token != tokens[expected - 1]:
                    return (
                        f"chunk {i} runs {told(token)} where {tokens[expected - 1]} comes next in the prompt; "
                        "a prompt may hold a token twice, in any order, and 0 is one like any other"
                    )
                expected += 1
                continue
            if token == PAD:
                return (
                    f"chunk {i} holds a token 0 that is not in the prompt: it would be cached like any other"
                )
            if token != expected:
                again = type(token) is int and token < expected
                what = (
                    f"runs token {token} again, which is cached already"
                    if again
                    else f"skips token {expected}"
                )
                return f"chunk {i} {what}"
            expected += 1
    if expected <= n:
        left = f"token {n}" if expected == n else f"tokens {expected} to {n}"
        return f"{left} of the prompt: never run"
    if len(chunks) > -(-n // c):
        return (
            f"it took {counted(len(chunks), 'forward pass', 'forward passes')} for {counted(n, 'token')}; chunks of "
            f"up to {counted(c, 'token')} need {counted(-(-n // c), 'pass', 'passes')}"
        )
    if value["returned"] != want(case)["returned"]:
        got = f"the {returned}" if isinstance(returned := value["returned"], str) else told(returned)
        return f"it returned {got}; the logits of the last token, number {n}, are wanted"
    return ""


def picture(case: Case, value: Plain) -> str:
    """A row a forward pass, a column a token."""
    if case["n"] > MOST_DRAWN:
        return ""
    if not _in_order(case):
        return _places(case, value)
    rows: list[tuple[str, list[Cell]]] = []
    seen: set[int] = set()
    for i, chunk in enumerate(value["chunks"][:8], 1):
        cells: list[Cell] = [("old" if t in seen else "empty", "") for t in range(1, case["n"] + 1)]
        for token in chunk:
            if token == PAD:
                cells.append(("wrong", "0"))
            else:
                cells[token - 1] = ("wrong" if token in seen else "new", str(token))
        seen.update(chunk)
        rows.append((f"pass {i}", cells))
    left = [("empty", "") if t in seen else ("missing", "?") for t in range(1, case["n"] + 1)]
    if any(kind == "missing" for kind, _ in left):
        rows.append(("never run", left))
    return board(rows, title=f"{counted(case['n'], 'token')}, chunks of at most {case['chunk_size']}")


def _places(case: Case, value: Plain) -> str:
    """The same where tokens do not say their place: each cell is a token as it was run."""
    tokens, place = prompt_of(case), 0
    rows: list[tuple[str, list[Cell]]] = [("prompt", [("old", str(token)) for token in tokens])]
    for i, chunk in enumerate(value["chunks"][:8], 1):
        cells: list[Cell] = [("empty", "")] * case["n"]
        for token in chunk:
            if place < case["n"]:
                cells[place] = ("new" if token == tokens[place] else "wrong", str(token))
            place += 1
        rows.append((f"pass {i}", cells))
    return board(rows, title=f"{counted(case['n'], 'token')}, chunks of at most {case['chunk_size']}")


def tell(_: Case, value: Plain) -> str:
    """What a right program does, in words."""
    return f"the {value['returned']}, after {', '.join(f'`run({chunk})`' for chunk in value['chunks'])}"


chunk_loop = Exercise(
    id="chunk-loop",
    title="The loop over the chunks",
    name="prefill_in_chunks",
    prompt=prose("chunk-loop"),
    starter="def prefill_in_chunks(tokens, chunk_size, run):\n    ...",
    example=({"n": 6, "chunk_size": 2},),
    cases=cases,
    conditions={
        "one token": lambda case: case["n"] == 1,
        "chunks of one": lambda case: case["chunk_size"] == 1 < case["n"],
        "chunk as long as the prompt": lambda case: case["chunk_size"] == case["n"] > 1,
        "chunk longer than the prompt": lambda case: case["chunk_size"] > case["n"] > 1,
        "exact multiple": lambda case: _left_over(case) == 0 and case["n"] > case["chunk_size"] > 1,
        "one token left over": lambda case: _left_over(case) == 1 and case["chunk_size"] > 2,
        "a token twice, in one chunk": lambda case: (
            case["chunk_size"] > 1 and any(one == two for one, two in pairwise(case.get("tokens", ())))
        ),
        "the first token again, at the end of a chunk": lambda case: any(
            token == case["tokens"][0] for token in case.get("tokens", ())[case["chunk_size"] - 1 :][1:]
        ),
        "a token 0 in the prompt": lambda case: 0 in case.get("tokens", ())[1:],
        "a long prompt of tokens that 16 bits do not count": lambda case: (
            case["n"] > 2**10 and max(case.get("tokens", [0])) > 2**16
        ),
        "a prompt as long as there may be, in one chunk": lambda case: (
            case["n"] == MOST == case["chunk_size"]
        ),
        "a prompt as long as there may be, in two": lambda case: case["n"] == MOST == case["chunk_size"] + 1,
        "hundreds of passes": lambda case: case["n"] > 256 * case["chunk_size"],
        "tokens out of order": lambda case: case.get("tokens", []) != sorted(case.get("tokens", [])),
        "several left over": lambda case: _left_over(case) > 1 and case["n"] > case["chunk_size"],
    },
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    tell=tell,
    show=lambda case: f"`prefill_in_chunks({_tokens(case)}, {case['chunk_size']}, run)`",
    size=lambda case: case["n"] + case["chunk_size"] + (0 if _in_order(case) else 50),
    solution=solution,
    wrong=(
        Wrong(
            _with(
                """logits = None
    for i in range(len(tokens) // chunk_size):
        logits = run(tokens[i * chunk_size : (i + 1) * chunk_size])
"""
            ),
            "This runs only whole chunks, so the rest never reaches the cache. The model would answer a prompt that lacks its last words.",
        ),
        Wrong(
            _with(
                """for start in range(0, len(tokens), chunk_size):
        chunk = tokens[start : start + chunk_size]
        logits = run(chunk + [0] * (chunk_size - len(chunk)))
"""
            ),
            "This fills the last chunk up with invented tokens. They are cached like any other, and the logits belong to a token that is not in the prompt.",
        ),
        Wrong(
            _with(
                """n = len(tokens)
    for start in range(0, n, chunk_size):
        first = max(0, min(start, n - chunk_size))
        logits = run(tokens[first : first + chunk_size])
"""
            ),
            "This makes the last chunk whole by starting it earlier, so some tokens are run and stored twice.",
        ),
        Wrong(
            _with(
                """n_chunks = -(-len(tokens) // chunk_size)
    size = len(tokens) // n_chunks
    for i in range(n_chunks):
        logits = run(tokens[i * size : (i + 1) * size])
"""
            ),
            "This cuts the prompt into equal parts and loses the remainder of that division.",
        ),
        Wrong(
            _with(
                """whole = len(tokens) // chunk_size * chunk_size
    for start in range(0, whole, chunk_size):
        logits = run(tokens[start : start + chunk_size])
    for token in tokens[whole:]:
        logits = run([token])
"""
            ),
            "This runs what is left over token by token. Every pass reads all the weights again; one short chunk would do.",
        ),
    ),
    slips=(
        Wrong(
            _with(
                """logits = run(tokens[:chunk_size])
    for start in range(chunk_size, len(tokens), chunk_size):
        run(tokens[start : start + chunk_size])
"""
            ),
            "This returns the logits of the first chunk. The first output token is picked from those of the prompt's last token.",
        ),
        Wrong(
            _with("""logits = [run(tokens[i : i + chunk_size]) for i in range(0, len(tokens), chunk_size)]
"""),
            "This returns the logits of every chunk, in a list. Only the last are needed.",
        ),
        Wrong(
            _with(
                """for start in range(0, len(tokens) + 1, chunk_size):
        logits = run(tokens[start : start + chunk_size])
"""
            ),
            "When the chunks fit exactly, this runs one more with nothing in it.",
        ),
        Wrong(
            _with(
                """for start in range(0, len(tokens), chunk_size):
        logits = run(tokens[: start + chunk_size])
"""
            ),
            "Here each pass runs the prompt from its start. What earlier passes ran is already in the cache.",
        ),
        Wrong(
            _with("""logits = run(tokens)
"""),
            "This runs the whole prompt in one pass, however long it is. At most `chunk_size` tokens are allowed.",
        ),
        Wrong(
            _with(
                """for token in tokens:
        logits = run([token])
"""
            ),
            "This runs one token per pass. Every pass reads all the weights again, so fill the chunks.",
        ),
    ),
    hints=(
        "Try a prompt of 5 tokens with chunks of 2. What should the last pass run?",
        "`range(0, len(tokens), chunk_size)` gives the start of each chunk, the short one included.",
        "A slice that reaches beyond the end of a list stops there: with 5 tokens, `tokens[4:6]` has one.",
    ),
    minutes=8,
)


def _tokens(case: Case) -> str:
    tokens = prompt_of(case)
    if case["n"] > MOST_DRAWN:
        return f"{str(tokens[:3])[:-1]}, … {case['n']:,} in all]"
    return f"[1, …, {case['n']}]" if case["n"] > 6 and _in_order(case) else str(tokens)

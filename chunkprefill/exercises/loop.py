"""Exercise: the loop that feeds a prompt to the model chunk by chunk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from chunkprefill.exercises.draw import Cell, board
from chunkprefill.exercises.exercise import Case, Exercise, Wrong
from chunkprefill.exercises.feedback import counted
from chunkprefill.exercises.running import Plain, Program, Unusable, plain

PAD = 0  # tokens of the prompt are 1, 2, 3, …: a 0 was made up


def solution(tokens, chunk_size, run):
    """A slice may reach beyond the end: the last chunk is what is left."""
    for start in range(0, len(tokens), chunk_size):
        logits = run(tokens[start : start + chunk_size])
    return logits


def drops_rest(tokens, chunk_size, run):
    """Whole chunks only."""
    logits = None
    for i in range(len(tokens) // chunk_size):
        logits = run(tokens[i * chunk_size : (i + 1) * chunk_size])
    return logits


def pads(tokens, chunk_size, run):
    """Fills the last chunk up."""
    for start in range(0, len(tokens), chunk_size):
        chunk = tokens[start : start + chunk_size]
        logits = run(chunk + [0] * (chunk_size - len(chunk)))
    return logits


def steps_back(tokens, chunk_size, run):
    """Makes the last chunk whole by starting it earlier."""
    n = len(tokens)
    for start in range(0, n, chunk_size):
        first = max(0, min(start, n - chunk_size))
        logits = run(tokens[first : first + chunk_size])
    return logits


def equal_parts(tokens, chunk_size, run):
    """As many equal parts as there are chunks, rounded down."""
    n_chunks = -(-len(tokens) // chunk_size)
    size = len(tokens) // n_chunks
    for i in range(n_chunks):
        logits = run(tokens[i * size : (i + 1) * size])
    return logits


def one_by_one(tokens, chunk_size, run):
    """Whole chunks, then what is left token by token."""
    whole = len(tokens) // chunk_size * chunk_size
    for start in range(0, whole, chunk_size):
        logits = run(tokens[start : start + chunk_size])
    for token in tokens[whole:]:
        logits = run([token])
    return logits


def cases(rng: random.Random) -> Iterator[Case]:
    """All prompts of up to 5 tokens in chunks of up to 6, and thirty larger ones."""
    yield from ({"n": n, "chunk_size": c} for n in range(1, 6) for c in range(1, 7))
    yield from ({"n": rng.randint(1, 40), "chunk_size": rng.randint(1, 12)} for _ in range(30))


def want(case: Case) -> dict[str, Any]:
    """One split that keeps the rules; `judge` accepts every other that does."""
    n, c = case["n"], case["chunk_size"]
    chunks = [list(range(s + 1, min(s + c, n) + 1)) for s in range(0, n, c)]
    return {"chunks": chunks, "returned": f"logits of token {n}", "input": "kept"}


def run(program: Program, case: Case) -> Any:
    """Call it with a `run` that writes down what it is given."""
    tokens, chunks = list(range(1, case["n"] + 1)), []

    def run_model(chunk: Any) -> str:
        chunks.append(items if isinstance(items := plain(chunk), list) else [items])
        if len(chunks) > 4 * case["n"] + 10:
            raise Unusable(f"it ran {len(chunks)} chunks for {case['n']} tokens: does the loop ever end?")
        if not chunks[-1]:
            raise Unusable(f"chunk {len(chunks)} is empty; a forward pass needs at least one token")
        return f"logits of token {chunks[-1][-1]}"

    returned = program(tokens, case["chunk_size"], run_model)
    if not chunks and returned is None:
        return None  # not written yet
    if returned is None:
        raise Unusable("it returned nothing; the logits of the last chunk are wanted")
    kept = tokens == list(range(1, case["n"] + 1))
    return {"chunks": chunks, "returned": plain(returned), "input": "kept" if kept else "changed"}


def judge(case: Case, value: Plain) -> str:
    """Every token once and in order, no chunk too long, no pass too many, the last logits, the input."""
    n, c = case["n"], case["chunk_size"]
    if value is None:
        return f"it ran no chunk at all of a prompt of {counted(n, 'token')}"
    chunks, expected = value["chunks"], 1
    for i, chunk in enumerate(chunks, 1):
        if len(chunk) > c:
            return f"chunk {i} has {counted(len(chunk), 'token')}, at most {c} are allowed"
        for token in chunk:
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
            f"it took {len(chunks)} forward passes for {counted(n, 'token')}; chunks of {c} need {-(-n // c)}"
        )
    if value["returned"] != f"logits of token {n}":
        return f"it returned {value['returned']!r}; the logits of the last token, {n}, are wanted"
    return "" if value["input"] == "kept" else "it changed `tokens`, which is not its to change"


def picture(case: Case, value: Plain) -> str:
    """A row a forward pass, a column a token."""
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
    return board(rows, title=f"{case['n']} tokens, chunks of at most {case['chunk_size']}")


def tell(_: Case, value: Plain) -> str:
    """What a right program does, in words."""
    return f"the {value['returned']}, after {', '.join(f'`run({chunk})`' for chunk in value['chunks'])}"


chunk_loop = Exercise(
    id="chunk-loop",
    title="The loop over the chunks",
    name="prefill_in_chunks",
    prompt="Write `prefill_in_chunks(tokens, chunk_size, run)`. `tokens` is the prompt, a list. "
    "`run(chunk)` is one forward pass: it takes the next tokens of the prompt, extends the cache by them, "
    "and returns the logits of the chunk's last token. Run the whole prompt in chunks of at most "
    "`chunk_size` tokens, in as few passes as that allows, and return the logits that the first output "
    "token is picked from.",
    starter="def prefill_in_chunks(tokens, chunk_size, run):\n    ...",
    example=({"n": 6, "chunk_size": 2},),
    cases=cases,
    run=run,
    want=want,
    judge=judge,
    picture=picture,
    tell=tell,
    show=lambda case: f"`prefill_in_chunks({_tokens(case['n'])}, {case['chunk_size']}, run)`",
    solution=solution,
    wrong=(
        Wrong(
            drops_rest,
            "Only whole chunks are run, and what is left at the end never reaches the cache. The model would "
            "answer a prompt without its last words.",
        ),
        Wrong(
            pads,
            "The last chunk is filled up with made-up tokens. They are cached like any other, and the logits "
            "are those of a token that nobody wrote.",
        ),
        Wrong(
            steps_back,
            "The last chunk is made whole by starting it earlier, so some tokens are run and stored twice.",
        ),
        Wrong(
            equal_parts,
            "The prompt is cut into equal parts, and the remainder of that division is lost.",
        ),
        Wrong(
            one_by_one,
            "What is left over is run token by token. Each pass reads all the weights again; one short chunk "
            "would have done.",
        ),
    ),
    hints=(
        "Try a prompt of 5 tokens with chunks of 2. What should the last pass run?",
        "`range(0, len(tokens), chunk_size)` gives the place at which each chunk starts, the short one's "
        "too.",
        "A slice that reaches beyond the end of a list stops at its end: `tokens[4:6]` of 5 tokens has one.",
    ),
    minutes=8,
)  # fmt: skip


def _tokens(n: int) -> str:
    return str(list(range(1, n + 1))) if n <= 6 else f"[1, …, {n}]"

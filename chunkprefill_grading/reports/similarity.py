"""Same code up to names, comments and layout: between submissions, and against public solutions.

What was handed out, and what most of a class shares, is left out first. What remains are pieces of a few
dozen tokens in which every name is just a name; two submissions are compared by how many pieces they share.
Numbers that a question asks for are equal where they are right, so short answers say nothing and are not
compared.
"""

from __future__ import annotations

import builtins
import io
import keyword
import tokenize
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chunkprefill_grading.reports.score_tables import csv_text
from chunkprefill_grading.submission.load import Unreadable, load, parse

PIECE = 12  # tokens that are compared at a time
LEAST = 60  # pieces of a submission's own, below which nothing is said of it
MOST_TOKENS = 200_000
COMMON = 0.4  # of a class: pieces that more have are not compared
COLUMNS = ("share", "pieces", "one", "other", "example")
_KEPT = frozenset(keyword.kwlist) | frozenset(dir(builtins)) | {"self", "schedule", "Plan", "cp", "torch"}
_SKIPPED = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.DEDENT,
)


@dataclass(frozen=True)
class Pair:
    """Two that share code. share: of the pieces of the one that has fewer; example: a line of it."""

    one: str
    other: str
    share: float
    pieces: int
    example: str


@dataclass(frozen=True)
class Code:
    """The pieces of a submission, each with the line where it begins."""

    name: str
    pieces: Mapping[tuple[str, ...], str]
    public: bool = False


def code_of(name: str, cells: Iterable[str], *, public: bool = False) -> Code:
    """The pieces of some cells; a cell that is no Python has none."""
    pieces: dict[tuple[str, ...], str] = {}
    left = MOST_TOKENS
    for cell in cells:
        tokens = tokens_of(cell)[:left]
        left -= len(tokens)
        words = [word for word, _ in tokens]
        for i in range(len(words) - PIECE + 1):
            pieces.setdefault(tuple(words[i : i + PIECE]), tokens[i][1])
    return Code(name, pieces, public)


def tokens_of(source: str) -> list[tuple[str, str]]:
    """(token, its line) of a cell; names that a student chose are all one, and texts are."""
    made: list[tuple[str, str]] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type in _SKIPPED:
                continue
            word = token.string
            if token.type == tokenize.NAME and word not in _KEPT:
                word = "name"
            elif token.type == tokenize.STRING:
                if not made or made[-1][0] in (":", ";"):
                    continue  # a docstring
                word = "text"
            made.append((word, token.line.strip()[:100]))
    except (tokenize.TokenError, SyntaxError, IndentationError, ValueError, RecursionError):
        pass  # what came before it counts
    return made


def pairs(codes: Sequence[Code], handed_out: Code | None = None, *, least: float = 0.5) -> list[Pair]:
    """Those who share at least that part of what is their own, the most first."""
    students = [code for code in codes if not code.public]
    known = set(handed_out.pieces) if handed_out else set()
    spread = Counter(piece for code in students for piece in code.pieces)
    if len(students) >= 8:
        known |= {piece for piece, n in spread.items() if n > max(4, COMMON * len(students))}
    own = {i: set(code.pieces) - known for i, code in enumerate(codes)}
    holders: dict[tuple[str, ...], list[int]] = {}
    for i, pieces in own.items():
        if len(pieces) >= LEAST:
            for piece in pieces:
                holders.setdefault(piece, []).append(i)
    shared: Counter[tuple[int, int]] = Counter()
    for who in holders.values():
        for a in range(len(who)):
            for b in range(a + 1, len(who)):
                shared[who[a], who[b]] += 1
    made = []
    for (a, b), n in shared.items():
        one, other = codes[a], codes[b]
        share = n / min(len(own[a]), len(own[b]))
        if share < least or (one.public and other.public):
            continue
        example = max((one.pieces[piece] for piece in own[a] & own[b]), key=len)
        made.append(Pair(one.name, other.name, share, n, example))
    return sorted(made, key=lambda pair: (-pair.share, -pair.pieces, pair.one, pair.other))


def read_public(paths: Iterable[Path]) -> list[Code]:
    """Notebooks and modules of public solutions, also in folders. ValueError for a path that is neither."""
    made = []
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(each for each in path.rglob("*") if each.suffix in (".py", ".ipynb"))
        if not files or not path.exists():
            raise ValueError(f"{path}: neither a notebook, a module, nor a folder of them")
        for file in files:
            try:
                cells: Sequence[str] = (
                    load(file).cells if file.suffix == ".ipynb" else [file.read_text(encoding="utf-8")]
                )
            except (Unreadable, OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{file}: cannot be read: {error}") from None
            made.append(code_of(file.as_posix(), cells, public=True))
    return made


def codes_of(notebooks: Mapping[str, bytes]) -> list[Code]:
    """The code of a class's notebooks by slug; what is no notebook has none."""
    made = []
    for name, data in notebooks.items():
        try:
            made.append(code_of(name, parse(data).cells))
        except Unreadable:
            continue
    return made


def table(found: Sequence[Pair]) -> str:
    """The pairs as CSV."""
    rows = [[round(pair.share, 3), pair.pieces, pair.one, pair.other, pair.example] for pair in found]
    return csv_text([COLUMNS, *rows])

"""How sharp the checks are: each shown solution is changed in every small way, and each change must be caught.

    python tools/mutants.py                 # all exercises, 30 checks a mutant; writes the result, or fails
    python tools/mutants.py vllm-step       # one of them, each mutant that slips through shown

A mutant changes one thing: an operator, a boundary, a constant, a dropped statement, a swapped argument, a
name, an order, a copy, an early return. One that is equivalent cannot be caught: it is listed below, with the
reason. The result goes to the instructors' page.
"""

from __future__ import annotations

import ast
import copy
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chunkprefill_course import exercises
from chunkprefill_course.forms.exercise import Exercise

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "book" / "instructors" / "mutants.json"
CHECKS = 30
SECONDS = 1.0  # a mutant's time in one check

REFUTES = "another trace, which refutes the claim as well"
SAME_LEAST = "the least of the same numbers"
WHOLE = "a prompt that waits has nothing cached: all of it is pending"
#: exercise -> {the change as it is told: why no input shows it}
EQUIVALENT: dict[str, dict[str, str]] = {
    "who-emits": {
        "line 3, column 11: cached + length == n_prompt + n_generated → cached + length >= n_prompt + n_generated": "a chunk runs no more than is known, so it can never be greater",
    },
    "rope-positions": {
        "line 3, column 11: list(range(cached, cached + length)) → range(cached, cached + length)": "a range is as good as a list",
    },
    "write-chunked-prefill": {
        "line 12, column 34: min(seq.pending, left) → min(left, seq.pending)": SAME_LEAST,
    },
    "write-prefill-first": {
        "line 11, column 15: seq.pending → seq.n_prompt": WHOLE,
        "line 13, column 30: seq.pending → seq.n_prompt": WHOLE,
        "line 14, column 20: seq.pending → seq.n_prompt": WHOLE,
    },
    "write-shortest-first": {
        "line 12, column 34: min(seq.pending, left) → min(left, seq.pending)": SAME_LEAST,
    },
    "largest-gap": {
        "line 4, column 4: for tokens in times.values(): gaps += [after - before for before, after in "
        "pairwise(tokens)] → for tokens in reversed(list(times.values())): gaps += [after - before for before, "
        "after in pairwise(": "the largest of all gaps is the same in any order of the requests",
    },
    "choose-budget": {
        "line 4, column 4: for budget in budgets: size, cached, total, longest = (budget - n_decodes, 0, 0.0, 0.0) "
        "while cached → for budget in reversed(list(budgets)): size, cached, total, longest = (budget - n_decodes, "
        "0, 0.0, 0": "the best of all budgets is the same in any order",
        "line 5, column 62: 0.0 → 1.0": "the same second is added to every total",
        "line 5, column 62: 0.0 → -1.0": "the same second is taken off every total",
        "line 5, column 67: 0.0 → -1.0": "no step is shorter than 0 s",
        "line 7, column 20: min(size, n_prompt - cached) → min(n_prompt - cached, size)": SAME_LEAST,
        "line 9, column 51: max(longest, step) → max(step, longest)": "the greater of two is the same either way",
        "line 10, column 32: total < soonest → total <= soonest": "of two equal totals either is right",
    },
    "write-aging": {
        "line 16, column 34: min(seq.pending, left) → min(left, seq.pending)": SAME_LEAST,
    },
    "make-room": {
        "line 10, column 12: free += -(-n // block_size) → free = -(-n // block_size)": "`free` is 0 there",
    },
    "tile-cliff": {
        "line 4, column 4: for budget in budgets: cached, taken[budget] = (0, 0.0) while cached < n_prompt: chunk = "
        "min(budget  → for budget in reversed(list(budgets)): cached, taken[budget] = (0, 0.0) while cached < "
        "n_prompt: chu": "the times are the same in whatever order they are found",
        "line 5, column 35: 0.0 → 1.0": "the same second is added to every total",
        "line 5, column 35: 0.0 → -1.0": "the same second is taken off every total",
        "line 7, column 20: min(budget - n_decodes, n_prompt - cached) → min(n_prompt - cached, budget - n_decodes)": SAME_LEAST,
        "line 12, column 15: small < large → small <= large": "no budget is slower than itself",
        "line 11, column 8: for large in budgets: if small < large and taken[small] < taken[large]: return "
        "(small, large) → for large in reversed(list(budgets)): if small < large and taken[small] < taken[large]: "
        "return (smal": "another pair, and as right",
        "line 10, column 4: for small in budgets: for large in budgets: if small < large and taken[small] < "
        "taken[large]: return → for small in reversed(list(budgets)): for large in budgets: if small < large and "
        "taken[small] < take": "another pair, and as right",
    },
    "refute-claim": {
        "line 3, column 26: patience + 1 → patience": REFUTES,
        "line 3, column 37: 1 → 2": REFUTES,
        "line 3, column 37: 1 → 0": REFUTES,
        "line 3, column 41: 1 → 2": REFUTES,
        "line 3, column 46: 0 → 1": REFUTES,
        "line 3, column 52: 1 → 2": REFUTES,
    },
    "write-linear": {
        "line 5, column 16: requests → pending": "`pending` has the names in the same order, as the prompt says",
        "line 7, column 25: min(pending[name], left) → min(left, pending[name])": SAME_LEAST,
    },
    "vllm-step": {
        "line 7, column 12: min(pending, threshold or pending, budget) → min(threshold or pending, pending, budget)": SAME_LEAST,
        "line 7, column 12: min(pending, threshold or pending, budget) → min(pending, budget, threshold or pending)": SAME_LEAST,
    },
}

COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq, ast.LtE, ast.GtE),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPERATORS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.FloorDiv: (ast.Div, ast.Mult),
    ast.Div: (ast.FloorDiv,),
    ast.Mod: (ast.FloorDiv,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitAnd: (ast.BitOr,),
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
ATTRIBUTES = {"running": "waiting", "waiting": "running", "pending": "n_prompt", "cached": "known"}


@dataclass(frozen=True)
class Mutant:
    """A changed solution: what was changed, and the source."""

    change: str
    source: str


def mutants(form: Exercise) -> Iterator[Mutant]:
    """Every small change of an exercise's solution, each once."""
    text = textwrap.dedent(inspect.getsource(form.solution))
    tree = ast.parse(text)
    names = _arguments(tree)
    seen = {ast.unparse(tree)}
    for path, node in _nodes(tree):
        for changed in _changes(node, names):
            copied = copy.deepcopy(tree)
            _put(copied, path, changed)
            try:
                source = ast.unparse(ast.fix_missing_locations(copied))
                compile(source, "mutant", "exec")
            except (SyntaxError, ValueError, AttributeError):
                continue
            if source not in seen:
                seen.add(source)
                yield Mutant(
                    f"line {node.lineno}, column {node.col_offset}: {_short(node)} → {_short(changed)}",
                    source,
                )


def _short(node: Any) -> str:
    return "nothing" if isinstance(node, ast.Pass) else " ".join(ast.unparse(node).split())[:100]


Path_ = tuple[tuple[str, int | None], ...]


def _nodes(tree: ast.AST, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Statements and expressions inside functions, with the way to each."""
    for name, value in ast.iter_fields(tree):
        if name in ("decorator_list", "returns", "annotation") or isinstance(value, ast.arguments):
            continue
        for i, each in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(each, ast.AST):
                here = (*path, (name, i))
                if isinstance(each, ast.stmt | ast.expr):
                    yield here, each
                yield from _nodes(each, here)


def _put(tree: ast.AST, path: Path_, new: Any) -> None:
    target: Any = tree
    for name, i in path[:-1]:
        target = getattr(target, name) if i is None else getattr(target, name)[i]
    name, i = path[-1]
    if i is None:
        setattr(target, name, new)
    else:
        getattr(target, name)[i] = new


def _arguments(tree: ast.AST) -> list[str]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [arg.arg for arg in functions[0].args.args if arg.arg != "self"] if functions else []


def _with(node: Any, **fields: Any) -> Any:
    changed = copy.deepcopy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _changes(node: Any, names: list[str]) -> Iterator[Any]:
    """What one node may become."""
    change = _BY_KIND.get(type(node))
    if change:
        yield from change(node, names)
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr | ast.Break | ast.Continue) and not docstring:
        yield ast.copy_location(ast.Pass(), node)


def _compare(node: ast.Compare, _: list[str]) -> Iterator[Any]:
    for i, operator in enumerate(node.ops):
        for other in COMPARISONS.get(type(operator), ()):
            yield _with(node, ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])


def _binary(node: ast.BinOp, _: list[str]) -> Iterator[Any]:
    for other in OPERATORS.get(type(node.op), ()):
        yield _with(node, op=other())
    yield node.left
    yield node.right


def _bool(node: ast.BoolOp, _: list[str]) -> Iterator[Any]:
    yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    yield from node.values


def _unary(node: ast.UnaryOp, _: list[str]) -> Iterator[Any]:
    yield node.operand


def _constant(node: ast.Constant, _: list[str]) -> Iterator[Any]:
    value = node.value
    if isinstance(value, bool):
        yield _with(node, value=not value)
    elif isinstance(value, int | float) and value == value and abs(value) != float("inf"):
        yield _with(node, value=value + 1)
        yield _with(node, value=value - 1)


def _name(node: ast.Name, names: list[str]) -> Iterator[Any]:
    if isinstance(node.ctx, ast.Load) and node.id in names:
        for other in names:
            if other != node.id:
                yield _with(node, id=other)


def _call(node: ast.Call, _: list[str]) -> Iterator[Any]:
    if isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        yield _with(node, func=_with(node.func, id=FUNCTIONS[node.func.id]))
    if isinstance(node.func, ast.Name) and node.func.id in ("sorted", "list", "set", "dict") and node.args:
        yield node.args[0]
    for i in range(len(node.args) - 1):
        args = list(node.args)
        args[i], args[i + 1] = args[i + 1], args[i]
        yield _with(node, args=args)
    if len(node.args) > 1:
        yield from node.args


def _attribute(node: ast.Attribute, _: list[str]) -> Iterator[Any]:
    if isinstance(node.ctx, ast.Load) and node.attr in ATTRIBUTES:
        yield _with(node, attr=ATTRIBUTES[node.attr])


def _for(node: ast.For, _: list[str]) -> Iterator[Any]:
    backwards = ast.Call(ast.Name("reversed", ast.Load()), [_listed(node.iter)], [])
    yield _with(node, iter=backwards)
    yield _with(node, iter=ast.Subscript(_listed(node.iter), ast.Slice(ast.Constant(1)), ast.Load()))
    yield _with(node, iter=ast.Subscript(_listed(node.iter), ast.Slice(None, ast.Constant(-1)), ast.Load()))
    yield _with(node, body=[*node.body, ast.Break()])


def _listed(node: Any) -> ast.Call:
    return ast.Call(ast.Name("list", ast.Load()), [node], [])


def _if(node: ast.If, _: list[str]) -> Iterator[Any]:
    yield _with(node, test=ast.Constant(True))
    yield _with(node, test=ast.Constant(False))


def _if_expression(node: ast.IfExp, _: list[str]) -> Iterator[Any]:
    yield node.body
    yield node.orelse


def _slice(node: ast.Subscript, _: list[str]) -> Iterator[Any]:
    if isinstance(node.slice, ast.Slice):
        if node.slice.lower is not None:
            yield _with(node, slice=ast.Slice(None, node.slice.upper))
        if node.slice.upper is not None:
            yield _with(node, slice=ast.Slice(node.slice.lower, None))


def _augmented(node: ast.AugAssign, _: list[str]) -> Iterator[Any]:
    for other in OPERATORS.get(type(node.op), ()):
        yield _with(node, op=other())
    target = copy.deepcopy(node.target)
    yield ast.copy_location(ast.Assign([target], node.value), node)


def _comprehension(node: Any, _: list[str]) -> Iterator[Any]:
    for i, part in enumerate(node.generators):
        for k in range(len(part.ifs)):
            fewer = _with(part, ifs=part.ifs[:k] + part.ifs[k + 1 :])
            yield _with(node, generators=[*node.generators[:i], fewer, *node.generators[i + 1 :]])


_BY_KIND: dict[type, Callable[[Any, list[str]], Iterator[Any]]] = {
    ast.Compare: _compare,
    ast.BinOp: _binary,
    ast.BoolOp: _bool,
    ast.UnaryOp: _unary,
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Call: _call,
    ast.Attribute: _attribute,
    ast.For: _for,
    ast.If: _if,
    ast.IfExp: _if_expression,
    ast.Subscript: _slice,
    ast.AugAssign: _augmented,
    ast.ListComp: _comprehension,
    ast.DictComp: _comprehension,
    ast.GeneratorExp: _comprehension,
    ast.SetComp: _comprehension,
}


def made(form: Exercise, mutant: Mutant) -> Callable[..., Any]:
    """The changed program."""
    space = dict(vars(sys.modules[form.solution.__module__]))
    exec(compile(mutant.source, f"<mutant of {form.id}>", "exec"), space)
    return space[form.solution.__name__]


def n_caught(form: Exercise, program: Callable[..., Any], drawn: list[list[Any]]) -> int:
    """In how many checks the program is refused. One that never ends is stopped once, and that is enough."""
    caught = 0
    for cases in drawn:
        for case in cases:
            outcome = form.outcome(program, case, seconds=SECONDS)
            if outcome.late:
                return len(drawn)
            if form.broken(case, outcome):
                caught += 1
                break
    return caught


def forms() -> list[Exercise]:
    """All exercises that ask for a program."""
    found = [getattr(exercises, name) for name in exercises.__all__]
    return [form for form in found if isinstance(form, Exercise)]


def tried(form: Exercise, n_checks: int = CHECKS) -> dict[str, Any]:
    """Mutants of one exercise: how many, how many are equivalent, and which were not caught every time."""
    drawn = [form.drawn(seed) for seed in range(n_checks)]
    equivalent = EQUIVALENT.get(form.id, {})
    row: dict[str, Any] = {"title": form.title, "mutants": 0, "equivalent": 0, "caught": 0, "missed": []}
    for mutant in mutants(form):
        row["mutants"] += 1
        if mutant.change in equivalent:
            row["equivalent"] += 1
            continue
        n = n_caught(form, made(form, mutant), drawn)
        row["caught"] += n == n_checks
        if n < n_checks:
            row["missed"].append({"change": mutant.change, "caught": n})
    return row


def main(names: list[str]) -> int:
    """Exit status 1 if a mutant that is not equivalent slipped through any check."""
    rows: dict[str, Any] = {}
    chosen = [form for form in forms() if not names or form.id in names]
    for k, form in enumerate(chosen, 1):
        print(f"[{k}/{len(chosen)}] {form.id}", end=" ", flush=True, file=sys.stderr)
        row = rows[form.id] = tried(form)
        of = row["mutants"] - row["equivalent"]
        print(f"{row['caught']} of {of} caught in {CHECKS} of {CHECKS} checks", file=sys.stderr)
        for missed in row["missed"]:
            print(f"    caught {missed['caught']} times: {missed['change']}", file=sys.stderr)
    if not names:
        RESULT.write_text(
            json.dumps({"checks": CHECKS, "exercises": rows}, indent=1, ensure_ascii=False) + "\n", "utf8"
        )
    return int(any(row["missed"] for row in rows.values()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

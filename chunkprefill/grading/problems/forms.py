# @title Checks of form: run this cell, there is no need to read it
"""Whether an answer is well formed. Nothing here knows whether it is right."""

import math


def look(names, name, form):
    """What to print about one answer: `names` is the notebook's own dictionary of names."""
    if form["kind"] == "written":
        return f"{name}: written below its marker; it is read by a person, and not seen from here"
    answer = names.get(name)
    if isinstance(answer, dict) and all(value is None for value in answer.values()):
        answer = None
    if answer is None or answer is ...:
        return f"{name}: not answered yet"
    try:
        trouble = LOOKS[form["kind"]](answer, form)
    except NotImplementedError:
        return f"{name}: not answered yet"
    except Exception as error:
        trouble = f"it raised {type(error).__name__}: {error}"
    return f"{name}: {trouble}" if trouble else f"{name}: answered, and well formed"


def letters(answer, form):
    answer = answer.replace(",", " ").replace(" ", "") if isinstance(answer, str) else answer
    if not isinstance(answer, str | list) or not all(isinstance(each, str) for each in answer):
        return "a string of letters is asked for"
    if strange := [each for each in answer if each.strip().lower() not in form["of"]]:
        return f"there is no step {strange[0]!r}; the letters are {form['of']}"
    return "a letter stands there twice" if len(set(answer)) < len(answer) else ""


def _number(value):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def numbers(answer, form):
    if not isinstance(answer, dict):
        return "a dict is asked for"
    if missing := [name for name in form["names"] if answer.get(name) is None]:
        return f"{len(missing)} of {len(form['names'])} numbers are missing: {', '.join(missing)}"
    bad = [name for name in form["names"] if not _number(answer[name])]
    return f"{bad[0]} is no number: {answer[bad[0]]!r}" if bad else ""


def truths(answer, form):
    if not isinstance(answer, dict):
        return "a dict is asked for"
    bad = [name for name in form["names"] if not isinstance(answer.get(name), bool)]
    return f"{', '.join(bad)}: neither True nor False" if bad else ""


def rows(answer, form):
    if not isinstance(answer, list) or len(answer) != form["n"]:
        return f"a list of {form['n']} dicts is asked for, one for each iteration"
    for t, row in enumerate(answer, 1):
        if not isinstance(row, dict) or not set(row) <= set(form["names"]):
            return f"iteration {t}: a dict of the tokens of {' and '.join(form['names'])} is asked for"
        if not all(type(n) is int and n >= 0 for n in row.values()):
            return f"iteration {t}: tokens are whole numbers of at least 0"
    return ""


def arrays(answer, form):
    import torch

    def made(spec):
        return spec if isinstance(spec, int) else torch.zeros(spec[1], dtype=getattr(torch, spec[0]))

    if not callable(answer):
        return "a function is asked for"
    out = answer(*[made(spec) for spec in form["args"]])
    out = [out] if len(form["returns"]) == 1 else out
    if not isinstance(out, list | tuple) or len(out) != len(form["returns"]):
        return f"it returns {type(out).__name__}, and not {len(form['returns'])} tensors"
    for each, (dtype, shape) in zip(out, form["returns"]):
        if not isinstance(each, torch.Tensor) or list(each.shape) != shape:
            got = list(each.shape) if isinstance(each, torch.Tensor) else type(each).__name__
            return f"a tensor of shape {shape} is asked for where it returns {got}"
        if each.dtype.is_floating_point != dtype.startswith("float"):
            return f"a tensor of {dtype} is asked for where it returns {each.dtype}"
    return ""


def policy(answer, form):
    import chunkprefill as cp

    made = answer() if callable(answer) else answer
    if not hasattr(made, "schedule"):
        return "it has no method schedule"
    running = [cp.Sequence(0, 50, 0.0, 0, 50, 1), cp.Sequence(1, 900, 0.1, 0, 300)]
    plan = made.schedule(cp.State(cp.BlockPool(1000), 1.0, [cp.Sequence(2, 70, 0.9)], running))
    if not isinstance(plan, cp.Plan):
        return f"schedule returns {type(plan).__name__}, and not a cp.Plan"
    return "" if all(type(n) is int for n in plan.tokens.values()) else "tokens must be whole numbers"


def choice(answer, form):
    return "" if answer in form["of"] else f"one of {', '.join(form['of'])} is asked for"


def settings(answer, form):
    if not isinstance(answer, dict) or not answer:
        return "a dict of settings is asked for"
    if strange := [name for name in answer if name not in form["names"]]:
        return f"there is no setting {strange[0]!r}; there are {', '.join(form['names'])}"
    bad = [name for name, value in answer.items() if not (isinstance(value, str) or _number(value))]
    return f"{bad[0]} is neither a number nor a word" if bad else ""


LOOKS = {f.__name__: f for f in (letters, numbers, truths, rows, arrays, policy, choice, settings)}

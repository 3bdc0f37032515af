"""Whether an answer is well formed, and how it is read: by the notebook's check and by the grader alike.

Nothing here knows whether an answer is right. `check_cell` puts this module and the course's reader of answers
into a cell of the notebook, so both say the same of the same answer. An answer is first made plain
(`answers.plain_parts`), then read by its form: letters, numbers, truths, rows, a choice, settings.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from chunkprefill_course.forms.answers import UNREADABLE, Unusable, plain, plain_parts, truth, whole
from chunkprefill_course.forms.answers import number as plain_number

YES, NO = ("true", "t", "yes", "y"), ("false", "f", "no", "n")


class ReadAnswer:
    """An answer as it is judged. trouble: why it is none, or what of it is none. lacking: what is missing."""

    def __init__(self, value, trouble="", lacking=""):
        self.value, self.trouble, self.lacking = value, trouble, lacking


def look(names, name, form):
    """What to print about one answer: `names` is the notebook's own dictionary of names."""
    if form["kind"] == "written":
        return f"{name}: written below its marker; it is read by a person, and not seen from here"
    answer = names.get(name)
    if answer is None or answer is ...:
        return f"{name}: not answered yet"
    try:
        if form["kind"] in DOES:
            found = ReadAnswer(answer, DOES[form["kind"]](answer, form))
        else:
            found = read(plain_parts(answer), form)
    except NotImplementedError:
        return f"{name}: not answered yet"
    except Unusable as error:
        found = ReadAnswer(None, str(error).removeprefix("it returned ").replace("; ", ": "))
    except Exception as error:
        found = ReadAnswer(None, " ".join(f"it raised {type(error).__name__}: {error}".split())[:300])
    if found.value is None and not found.trouble:
        return f"{name}: not answered yet"
    if found.trouble:
        return f"{name}: {found.trouble}"
    return (
        f"{name}: answered in part: {found.lacking}"
        if found.lacking
        else f"{name}: answered, and well formed"
    )


def read(answer, form):
    """A plain answer, read by its form. `value` is None where there is no answer in it."""
    return READS[form["kind"]](answer, form)


# --- answers that are values -------------------------------------------------------------------------


def letters(answer, form):
    """An order, as a list of letters: whatever stands between them, whatever their case."""
    if isinstance(answer, dict) and set(answer) in (set(range(1, len(answer) + 1)), set(range(len(answer)))):
        answer = [answer[key] for key in sorted(answer)]
    if isinstance(answer, list) and all(isinstance(each, str) and each != UNREADABLE for each in answer):
        answer = "\n".join(answer)
    if not isinstance(answer, str):
        return ReadAnswer(None, f"a string of letters is asked for, this is {kind_of(answer)}")
    text = re.sub(r"\\[A-Za-z]+", " ", _visible(answer).casefold())  # \to, \rightarrow
    if not any(each.isdecimal() for each in form["of"]):
        text = re.sub(r"(?m)^[^\w\n]*\d+[.):](?=\s*[^\W\d_])", "", text)  # the numbers of a list
    found = [each for each in text if each.isalnum()]
    if not found:
        return ReadAnswer(None, "" if not answer.strip() else "no letter stands there")
    if strange := [each for each in found if each not in form["of"].casefold()]:
        return ReadAnswer(None, f"there is no step {strange[0]!r}; the letters are {form['of']}")
    if len(set(found)) < len(found):
        return ReadAnswer(None, "a letter stands there twice; once is enough")
    return ReadAnswer(found)


def numbers(answer, form):
    """Numbers by name: those that are there, and which are not."""
    if not isinstance(answer, dict):
        return ReadAnswer(
            None, f"a dict of {len(form['names'])} numbers is asked for, this is {kind_of(answer)}"
        )
    found, missing, bad = {}, [], []
    for name, value in zip(form["names"], _named(answer, form["names"])):
        if value is None:
            missing.append(name)
        elif (number := as_number(value, name)) is None:
            bad.append(f"{name} is no finite number: {kind_of(value)}")
        else:
            found[name] = number
    if not found and not bad:
        return ReadAnswer(None)
    lacking = f"{len(missing)} of {len(form['names'])} numbers are missing: {', '.join(missing)}"
    return ReadAnswer(found, bad[0] if bad else "", lacking if missing else "")


def truths(answer, form):
    """True or False by name."""
    if not isinstance(answer, dict):
        return ReadAnswer(
            None, f"a dict of {len(form['names'])} truth values is asked for, this is {kind_of(answer)}"
        )
    found, missing, bad = {}, [], []
    for name, value in zip(form["names"], _named(answer, form["names"])):
        if value is None:
            missing.append(name)
        elif (said := as_truth(value)) is None:
            bad.append(name)
        else:
            found[name] = said
    if not found and not bad:
        return ReadAnswer(None)
    lacking = f"{', '.join(missing)} missing: True or False"
    trouble = f"{', '.join(bad)}: neither True nor False" if bad else ""
    return ReadAnswer(found, trouble, lacking if missing else "")


def rows(answer, form):
    """A plan: a dict of tokens for each iteration; a request that gets none need not stand there."""
    n, names = form["n"], form["names"]
    if isinstance(answer, dict) and set(answer) in (set(range(1, n + 1)), set(range(n))):
        answer = [answer[key] for key in sorted(answer)]
    if not isinstance(answer, list) or len(answer) > n:
        return ReadAnswer(None, f"a list of {n} dicts is asked for, one for each iteration")
    made = []
    for t, row in enumerate(answer, 1):
        if row is None:
            row = {}
        if not isinstance(row, dict) or not {_plainly(key) for key in row} <= {
            _plainly(name) for name in names
        }:
            return ReadAnswer(
                None, f"iteration {t}: a dict of the tokens of {' and '.join(names)} is asked for"
            )
        tokens = {
            name: 0 if value is None else as_whole(value, "tokens")
            for name, value in zip(names, _named(row, names))
        }
        if any(each is None or each < 0 for each in tokens.values()):
            return ReadAnswer(None, f"iteration {t}: tokens are whole numbers of at least 0")
        order = [_plainly(key) for key in row]
        kept = sorted((name for name in names if tokens[name]), key=lambda name: order.index(_plainly(name)))
        made.append({name: tokens[name] for name in kept})
    if not any(made):
        return ReadAnswer(None)
    return ReadAnswer(made, "", f"{len(made)} of {n} iterations are planned" if len(made) < n else "")


def choice(answer, form):
    """One of some labels."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    said = "or ".join([", ".join(form["of"][:-1]) + " ", form["of"][-1]])
    if not isinstance(answer, str):
        return ReadAnswer(None, f"one of {said} is asked for, this is {kind_of(answer)}")
    text = re.sub(r"[\W_]+", "", _visible(answer).casefold())
    if not text:
        return ReadAnswer(None)
    labels = [each.casefold() for each in form["of"]]
    if text not in labels:
        text = re.sub(r"^(?:answer|option|choice)", "", text)
    if text not in labels:
        return ReadAnswer(None, f"one of {said} is asked for")
    return ReadAnswer(text)


def settings(answer, form):
    """Settings by name: numbers within their range, and words."""
    if not isinstance(answer, dict):
        return ReadAnswer(None, f"a dict of settings is asked for, this is {kind_of(answer)}")
    known = {_plainly(name): name for name in form["names"]}
    made = {}
    for key, value in answer.items():
        if _plainly(key) not in known:
            return ReadAnswer(
                None, f"there is no setting {str(key)[:30]!r}; there are {', '.join(form['names'])}"
            )
        name = known[_plainly(key)]
        if value is None:
            continue
        if name in form.get("ranges", {}):
            least, most = form["ranges"][name]
            number = as_whole(value)
            if number is None or not least <= number <= most:
                return ReadAnswer(None, f"{name} is a whole number from {least:,} to {most:,}")
            made[name] = number
            continue
        words = {_plainly(word): word for word in form.get("words", {}).get(name, ())}
        if words and (not isinstance(value, str) or _plainly(value) not in words):
            return ReadAnswer(None, f"{name} is one of {', '.join(words.values())}")
        if not words and not isinstance(value, str) and as_number(value) is None:
            return ReadAnswer(None, f"{name} is neither a number nor a word")
        made[name] = words[_plainly(value)] if words else value
    return ReadAnswer(made or None)


# --- what the readers share --------------------------------------------------------------------------


def as_number(value, name=""):
    """A finite number, also one that was written as text; None for anything else, and for True and False.

    name: what it is the number of. A unit that stands in the name (`small_ms`) may follow the number.
    """
    value = _alone(value)
    if isinstance(value, str):
        value = _number_in(value, name)
    try:
        number = plain_number(value)
    except Unusable:
        return None
    if number is None or not abs(number) < 1e18:  # neither nan nor infinite
        return None
    return number


def _alone(value):
    """The item of a list of one: an array of one number is that number."""
    while isinstance(value, list) and len(value) == 1:
        (value,) = value
    return value


def _number_in(text, name=""):
    """The number that a text is: 1,024 and 1_024 and 0.5 and 0,5 and 3/4 and 50%; None where it is none."""
    text = _unwrapped(text)
    if len(text) > 40:
        return None
    scale = 1
    if said := re.fullmatch(r"(.*[\d.])\s*(%|[^\W\d_]+)", text):
        unit, words = said[2].casefold(), name.casefold().split("_")
        if unit not in ("%", "percent", *words) and not _same_word(unit, words):
            return None
        text, scale = said[1], 100 if unit in ("%", "percent") else 1
    if re.fullmatch(r"[-+]?[1-9]\d{0,2}([, '\u2019]\d{3})+(\.\d*)?", text):
        text = re.sub(r"[, '\u2019]", "", text)
    elif re.fullmatch(r"[-+]?[1-9]\d{0,2}((\.\d{3}){2,}|(\.\d{3})+,\d+)", text):
        text = text.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"[-+]?\d+,\d+(e[-+]?\d+)?", text, re.I):
        text = text.replace(",", ".")
    if power := re.fullmatch(
        r"([-+]?[\d.]+) ?[*x\u00d7\u00b7\u22c5] ?10(?:\^|\*\*)[{(]?([-+]?\d{1,3})[)}]?", text
    ):
        text = f"{power[1]}e{power[2]}"
    try:
        if re.fullmatch(r"[-+]?\d+ ?/ ?\d+", text):
            return float(Fraction(text.replace(" ", "")) / scale)
        return int(text) if scale == 1 and re.fullmatch(r"[-+]?\d+", text) else float(text) / scale
    except (ValueError, ZeroDivisionError, OverflowError):
        return None


def _unwrapped(text):
    """A number's text without what stands around it: markup, signs of direction, other forms of its signs."""
    raised = (unicodedata.decomposition(each).startswith(("<super>", "<sub>")) for each in text[:400])
    if len(text) > 400 or any(raised):
        return ""  # 10\u00b3 would become 103
    text = _visible(text).replace("\\times", "\u00d7").replace("\\cdot", "\u00b7")
    for old, new in (
        ("{,}", ","),
        ("\\,", " "),
        ("\\%", "%"),
        ("\\(", ""),
        ("\\)", ""),
        ("\u066b", "."),
        ("\u066c", ","),
    ):
        text = text.replace(old, new)
    text = re.sub(r"^(?:```\w*\s)?[\s`*_$\"'=]*|[\s`*_$\"']+$", "", text)
    text = re.sub(r"(?<=[^\W\d_])\.$", "", text)  # a full stop after a unit
    text = re.sub(r"^[\u2212\u2013\u2010\u2011]", "-", text).replace("\u2212", "-").replace("_", "")
    if re.fullmatch(r"\d\u2044\d+", text) or "\u2044" not in text:
        return " ".join(text.replace("\u2044", "/").split())
    return ""  # 2\u00bd would become 21/2


def as_whole(value, name=""):
    """A number without a fraction, as an int; None for anything else."""
    number = as_number(value, name)
    try:
        return None if number is None else whole(number)
    except Unusable:
        return None


def as_truth(value):
    """True or False: themselves, 1 and 0, and the words for them; None for anything else."""
    value = _alone(value)
    if isinstance(value, str):
        word = _visible(value[:400]).strip(" \t\n`*_$\"'.()[]").casefold()
        return True if word in YES else False if word in NO else None
    try:
        return truth(value) if value in (0, 1) else None
    except Unusable:
        return None


def kind_of(value):
    """The kind of a plain value, for a sentence."""
    kinds = {
        bool: "a truth value",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a dict",
    }
    return "nothing" if value is None else kinds.get(type(value), type(value).__name__)


def _named(answer, names):
    """The values of some names, whatever their case; None where there is none."""
    spelt = {_plainly(key): value for key, value in answer.items()}
    return [answer[name] if name in answer else spelt.get(_plainly(name)) for name in names]


def _plainly(word):
    return re.sub(r"[\s_-]+", "_", _visible(str(word)).strip(" \t\n`*\"'").casefold())


def _visible(text):
    """A text as it is seen: without signs that only lay it out, each blank a blank and each new line one.

    Its letters and digits have their usual form.
    """
    seen = (each for each in text if unicodedata.category(each) != "Cf" and each != "\u034f")
    return unicodedata.normalize("NFKC", "".join(map(_blank, seen)))


def _blank(each):
    if each in "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029":
        return "\n"
    # the last ones are letters by the tables, and have no ink
    return " " if (each.isspace() and each != "\n") or each in "\u2800\u3164\uffa0\u115f\u1160" else each


def _same_word(word, words):
    """Whether a word is one of the words, up to a plural."""
    return len(word) > 3 and word.rstrip("s") in [each.rstrip("s") for each in words if len(each) > 3]


# --- answers that are code: what can be seen of them without judging ---------------------------------


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
        array = each if hasattr(each, "dtype") else _stacked(each)
        if list(array.shape) != shape:
            return f"a tensor of shape {shape} is asked for where it returns {list(array.shape)}"
        floats = "float" in str(array.dtype)
        if floats != dtype.startswith("float") and hasattr(each, "dtype"):
            return f"a tensor of {dtype} is asked for where it returns {array.dtype}"
    return ""


def _stacked(value):
    """Nested lists as a tensor; their rows may be arrays."""
    import torch

    if isinstance(value, list | tuple) and any(getattr(each, "ndim", 0) for each in value):
        return torch.stack([torch.as_tensor(each) for each in value])
    if isinstance(value, list | tuple) and any(isinstance(each, list | tuple) for each in value):
        return torch.stack([_stacked(each) for each in value])
    return torch.as_tensor(value)


def decisions(answer, form):
    if not callable(answer):
        return "a function is asked for"
    told = [
        {
            "name": 17,
            "n_prompt": 900,
            "arrival": 0.1,
            "waited": 0.9,
            "cached": 300,
            "pending": 600,
            "begun": 1,
            "rank": 0,
        },
        {
            "name": 4,
            "n_prompt": 70,
            "arrival": 0.9,
            "waited": 0.1,
            "cached": 0,
            "pending": 70,
            "begun": 0,
            "rank": 1,
        },
    ]
    names = [row["name"] for row in told]
    sent = {"prompts": [[row[f] for f in form["fields"]] for row in told], "n_decodes": 1, "now": 1.0}
    back = plain(answer(*[sent[name] for name in form["signature"]]))
    if form["returns"] == "list":
        if not isinstance(back, list) or len(back) != len(names):
            return "a list with a number for each row is asked for"
        pairs = [[name, n] for name, n in zip(names, back)]
    elif form["returns"] == "dict":
        if not isinstance(back, dict):
            return f"a dict is asked for where it returns {type(back).__name__}"
        pairs = [[name, n] for name, n in back.items()]
    else:
        if not isinstance(back, list) or not all(isinstance(row, list) and len(row) == 2 for row in back):
            return "a list of pairs (tokens, name) is asked for"
        pairs = [[name, n] for n, name in back]
    read = [as_whole(name) for name, _ in pairs]
    if any(name not in names for name in read):
        return "it names a prompt that was not among the rows"
    if len(set(read)) < len(read):
        return "it names a prompt twice"
    numbers = [as_whole(n) for _, n in pairs]
    return "" if all(n is not None and n >= 0 for n in numbers) else "tokens are whole numbers of at least 0"


READS = {f.__name__: f for f in (letters, numbers, truths, rows, choice, settings)}
DOES = {"arrays": arrays, "decisions": decisions}

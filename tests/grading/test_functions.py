"""The functions of the problem sets, written from their texts alone: right in any style, wrong in what is easily missed."""

from __future__ import annotations

import re

import pytest

from chunkprefill_grading.problems import key, ps1_attention, ps1_store
from chunkprefill_grading.problems.check_cell import check_cell
from chunkprefill_grading.problems.draw import stream
from tests.grading.submissions import marked, secrets, solved

SECRETS = secrets(8)


def points(name: str, secret: str, question: str, code: str) -> tuple[float, float, str]:
    """What a program gets for a question, the most that it could, and the comment."""
    got = marked(name, secret, {question: code})[question]
    return got.points, got.max_points, got.comment


# --- right, in styles that are not ours -----------------------------------------------------------------


def _order(layout: str, names: tuple[str, ...]) -> str:
    return ", ".join(str(layout.split().index(name)) for name in names)


def attention(secret: str, style: str) -> str:
    """`chunk_attention` by numbers in lists, by numpy, or key by key with a running softmax, as a class."""
    rule = ps1_attention.drawn(stream(secret, "PS1", "shown", "attention"))
    seen, scale = ps1_attention.SEEN[rule.seen][1], ps1_attention.SCALES[rule.scale][1]
    score = {
        "capped": "NUMBER * M.tanh(s / NUMBER)",
        "distance": "s - NUMBER * (p - j)",
        "length": "NUMBER * s * M.log(p + 2.0)",
        "first": "s + NUMBER * (p == j)",
    }[rule.scores]
    shared = "h % Hkv" if rule.interleaved else "h // (H // Hkv)"
    more = "1.0" if rule.weights == "some" else "0.0"
    signature = ", ".join(rule.signature)
    to_q, to_kv = _order(rule.q, ("T", "H", "D")), _order(rule.kv, ("S", "Hkv", "D"))
    constants = f"WIDTH, OTHER, NUMBER = {rule.width}, {rule.other}, {rule.number:g}\n"
    if style == "lists":
        back = {
            "T H D": "out",
            "H T D": "list(zip(*out))",
            "T H*D": "[[x for head in row for x in head] for row in out]",
        }[rule.out]
        return f"""{constants}import math as M
def chunk_attention({signature}):
    q = q.permute({to_q}).tolist()
    k, v = (x.permute({to_kv}).tolist() for x in (k, v))
    T, H, size, Hkv, out = len(q), len(q[0]), len(q[0][0]), len(k[0]), []
    for t in range(T):
        p, row = start + t, []
        for h in range(H):
            g, w = {shared}, {{}}
            for j in range(len(k)):
                if j <= p and ({seen}):
                    s = sum(a * b for a, b in zip(q[t][h], k[j][g])) / {scale}
                    w[j] = M.exp({score})
            whole = sum(w.values()) + {more}
            row.append([sum(w[j] * v[j][g][d] for j in w) / whole for d in range(size)])
        out.append(row)
    return {back}
"""
    if style == "numpy":
        back = {"T H D": "out", "H T D": "out.swapaxes(0, 1)", "T H*D": "out.reshape(T, H * size)"}[rule.out]
        return f"""{constants}import numpy as M
def chunk_attention({signature}):
    q = M.asarray(q, dtype=float).transpose({to_q})
    k, v = (M.asarray(x, dtype=float).transpose({to_kv}) for x in (k, v))
    T, H, size = q.shape
    Hkv, h = k.shape[1], M.arange(H)
    g = {shared}
    p, j = (start + M.arange(T))[:, None], M.arange(len(k))[None]
    s = M.einsum("thd,shd->hts", q, k[:, g]) / {scale}
    w = M.where((j <= p) & ({seen}), M.exp({score}), 0.0)
    w /= w.sum(-1, keepdims=True) + {more}
    out = M.einsum("hts,shd->thd", w, v[:, g])
    return {back}
"""
    back = {"T H D": "out.movedim(0, 1)", "H T D": "out", "T H*D": "torch.cat(list(out), dim=1)"}[rule.out]
    return f"""{constants}M = torch
class Attend:
    def __call__(self, {signature}):
        q = q.permute({to_q}).double()
        k, v = (x.permute({to_kv}).double() for x in (k, v))
        T, H, size = q.shape
        Hkv, rows = k.shape[1], []
        p = torch.arange(start, start + T)[:, None]
        for h in range(H):
            g, top, acc = {shared}, torch.zeros(T, 1).double(), torch.zeros(T, size).double()
            low = torch.full_like(top, {more})
            for j in range(k.shape[0]):
                s = (q[:, h] @ k[j, g])[:, None] / {scale}
                s = torch.where((j <= p) & ({seen}), {score}, -torch.inf)
                new = torch.maximum(top, s)
                shrunk, w = (top - new).exp(), (s - new).exp()
                low, acc, top = low * shrunk + w, acc * shrunk + w * v[j, g], new
            rows.append(acc / low)
        out = torch.stack(rows)
        return {back}
chunk_attention = Attend()
"""


def store(secret: str, style: str) -> str:
    """`store` token by token into the caches that came, as lists of numbers, or by complex numbers in numpy."""
    rule = ps1_store.drawn(stream(secret, "PS1", "shown", "store"))
    slot = "BLOCK - 1 - p % BLOCK" if rule.reversed else "p % BLOCK"
    sign = "-" if rule.backwards else ""
    first, end = {"all": ("0", "D"), "first": ("0", "D // 2"), "last": ("D // 2", "D")}[rule.part]
    x, y = ("i", "i + R // 2") if rule.halves else ("2 * i", "2 * i + 1")
    front, new = _order(rule.cache, ("blocks", "slots", "Hkv", "D")), _order(rule.new, ("T", "Hkv", "D"))
    constants = f"BLOCK, THETA = {rule.block}, {rule.theta}\n"
    signature = ", ".join(rule.signature)
    if style == "numpy":
        copies = (
            "ck, cv = made = np.array(cache)"
            if rule.joint
            else "ck, cv = made = [*map(np.array, (cache_k, cache_v))]"
        )
        return f"""{constants}import numpy as np
def store({signature}):
    k, v = (np.array(x).transpose({new}) for x in (k, v))
    T, _, D = k.shape
    R, i, p = {end} - {first}, np.arange(({end} - {first}) // 2), cached + np.arange(T)
    z = k[..., {first} + {x}] + 1j * k[..., {first} + {y}]
    z = z * np.exp({sign}1j * (p + {rule.first})[:, None, None] * THETA ** (-2.0 * i / R))
    k[..., {first} + {x}], k[..., {first} + {y}] = z.real, z.imag
    {copies}
    for cache_x, rows in ((ck, k), (cv, v)):
        cache_x.transpose({front})[np.asarray(table)[p // BLOCK], {slot}] = rows
    return made
"""
    ck, cv = ("cache[0]", "cache[1]") if rule.joint else ("cache_k", "cache_v")
    made = "cache" if rule.joint else "cache_k, cache_v"
    if style == "lists":
        made = "cache.tolist()" if rule.joint else "[cache_k.tolist(), cache_v.tolist()]"
    return f"""{constants}import math
def store({signature}):
    k, v = k.permute({new}), v.permute({new})
    D = k.shape[-1]
    R = {end} - {first}
    for t in range(len(k)):
        p = cached + t
        place = int(table[p // BLOCK]), {slot}
        for h in range(k.shape[1]):
            row = k[t, h].tolist()
            for i in range(R // 2):
                phi = {sign}(p + {rule.first}) * THETA ** (-2 * i / R)
                x, y = {first} + {x}, {first} + {y}
                a, b = row[x], row[y]
                row[x], row[y] = a * math.cos(phi) - b * math.sin(phi), a * math.sin(phi) + b * math.cos(phi)
            {ck}.permute({front})[(*place, h)] = torch.tensor(row)
            {cv}.permute({front})[(*place, h)] = v[t, h]
    return {made}
"""


@pytest.mark.parametrize("style", ["lists", "numpy", "running softmax"])
def test_attention_in_another_style_gets_full_points(style: str) -> None:
    for secret in SECRETS:
        code = attention(secret, style)
        got, most, said = points("PS1", secret, "chunk_attention", code)
        assert got == most, (secret, said, code)


@pytest.mark.parametrize("rows", ["list(OUT)", "tuple(OUT)", "[row.numpy() for row in OUT]", "OUT.tolist()"])
def test_rows_may_come_in_a_list(rows: str) -> None:
    secret = SECRETS[0]
    (code,) = solved("PS1", secret, ("chunk_attention",)).values()
    code = re.sub(r"return (.*)", lambda found: f"return {rows.replace('OUT', f'({found[1]})')}", code)
    got, most, said = points("PS1", secret, "chunk_attention", code)
    assert got == most, said
    space: dict = {}
    exec(f"import torch\n{check_cell()}\n{code}", space)
    (form,) = [q.form for q in key.sheet_of("PS1", secret).questions if q.name == "chunk_attention"]
    assert "well formed" in space["look"](space, "chunk_attention", form)


@pytest.mark.parametrize("style", ["in place", "lists", "numpy"])
def test_storing_in_another_style_gets_full_points(style: str) -> None:
    for secret in SECRETS:
        code = store(secret, style)
        got, most, said = points("PS1", secret, "store", code)
        assert got == most, (secret, said, code)


# --- wrong in what is easily missed ---------------------------------------------------------------------

#: question, what is changed in the solution; where a draw has none of it, there is nothing to be wrong about
WRONG: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "scaled by the number of heads": ("chunk_attention", ((r"(scores = .*einsum.*)size", r"\1n_heads"),)),
    "scaled by 8 numbers a head": ("chunk_attention", ((r"(scores = .*einsum.*)size", r"\g<1>8"),)),
    "heads in groups of Hkv": ("chunk_attention", ((r"heads // \(n_heads // (k.*?)\)", r"heads // \1"),)),
    "heads modulo their group": ("chunk_attention", ((r"heads % (k\S*)", r"heads % (n_heads // \1)"),)),
    "one query sees everything": ("chunk_attention", ((r"seen = (.*)", r"seen = (\1) | (n_queries == 1)"),)),
    "a window of one more": ("chunk_attention", ((r"p - j < WIDTH", "p - j <= WIDTH"),)),
    "a window of one less": ("chunk_attention", ((r"p - j < WIDTH", "p - j < WIDTH - 1"),)),
    "the window and the rule": ("chunk_attention", ((r"(WIDTH\)) \|", r"\1 &"),)),
    "one first position more": ("chunk_attention", ((r"j < OTHER", "j <= OTHER"),)),
    "multiples one later": ("chunk_attention", ((r"j % OTHER == 0", "j % OTHER == 1"),)),
    "distances one more": ("chunk_attention", ((r"\(p - j\) % OTHER == 0", "(p - j + 1) % OTHER == 0"),)),
    "blocks of one more": ("chunk_attention", ((r"// OTHER", "// (OTHER + 1)"),)),
    "the mask after the softmax": (
        "chunk_attention",
        ((r"weights = .*", "weights = scores.softmax(-1) * seen"),),
    ),
    "unseen scores are 0": ("chunk_attention", ((r"-torch.inf", "0.0"),)),
    "a softmax over the queries": ("chunk_attention", ((r"softmax\(-1\)", "softmax(-2)"),)),
    "a logarithm of another base": ("chunk_attention", ((r"torch.log\(", "torch.log2("),)),
    "a logarithm of p + 1": ("chunk_attention", ((r"p \+ 2.0", "p + 1.0"),)),
    "numbers of 16 bits": (
        "chunk_attention",
        ((r"(    n_queries, )", r"    q, k, v = (x.half().float() for x in (q, k, v))\n\1"),),
    ),
    "five hundred keys at most": ("chunk_attention", ((r"seen = (.*)", r"seen = (\1) & (j < 512)"),)),
    "a start of five hundred at most": (
        "chunk_attention",
        ((r"(    n_queries, )", r"    start = min(start, 500)\n\1"),),
    ),
    "two dozen keys at most": ("chunk_attention", ((r"seen = (.*)", r"seen = (\1) & (j < 24)"),)),
    "dimensions of one dropped": ("chunk_attention", ((r"return (.*)", r"return (\1).squeeze()"),)),
    "answers kept by start": (
        "chunk_attention",
        (
            (
                r"def chunk_attention\((.*)\):",
                r"KEPT = {}\ndef chunk_attention(\1):\n    if start not in KEPT:\n        KEPT[start] = once(\1)\n    return KEPT[start]\n\n\ndef once(\1):",
            ),
        ),
    ),
    "an exponent by all of D": (
        "store",
        ((r"(slice\((?:D // 2, D|0, D // 2)\)[\s\S]*\(R // 2\) / )R", r"\1D"),),
    ),
    "a thousand positions at most": ("store", ((r"angle = ", "p = p.clamp(max=1000)\n    angle = "),)),
    "an exponent of i": ("store", ((r"-2 \* torch", "-1 * torch"),)),
    "neighbours for halves": (
        "store",
        ((r"\[\.\.\., : R // 2\]", "[..., 0::2]"), (r"\[\.\.\., R // 2 :\]", "[..., 1::2]")),
    ),
    "halves for neighbours": (
        "store",
        ((r"\[\.\.\., 0::2\]", "[..., : R // 2]"), (r"\[\.\.\., 1::2\]", "[..., R // 2 :]")),
    ),
    "positions counted from 0": ("store", ((r"\(p \+ \d\)\[", "p["),)),
    "positions counted from 1": ("store", ((r"angle = (-?)p\[", r"angle = \1(p + 1)["),)),
    "blocks counted from the chunk": (
        "store",
        ((r"table\[p // BLOCK\]", "table[cached // BLOCK + torch.arange(n_tokens) // BLOCK]"),),
    ),
    "the last blocks of the table": (
        "store",
        ((r"table\[p // BLOCK\]", "table[p // BLOCK - p[-1] // BLOCK - 1]"),),
    ),
    "slots counted from the chunk": ("store", ((r"p % BLOCK", "torch.arange(n_tokens) % BLOCK"),)),
    "a full block is not left": (
        "store",
        ((r"table\[p // BLOCK\]", "table[p // BLOCK - ((p == cached) & (p % BLOCK == 0)).long()]"),),
    ),
    "one token takes the place before": (
        "store",
        ((r"(    p = cached.*)", r"\1\n    p = p - (n_tokens == 1)"),),
    ),
    "values of 16 bits": ("store", ((r"k, v = \(x\.", "k, v = (x.half().float()."),)),
    "angles of 16 bits": ("store", ((r"angle\.(cos|sin)\(\)", r"angle.\1().half().float()"),)),
    "heads of one dropped": (
        "store",
        ((r"(    n_tokens, _, D = k)", r"    k, v = k.squeeze(1), v.squeeze(1)\n\1"),),
    ),
    "the first head alone": ("store", ((r"\[block, slot\] = new", "[block, slot, :1] = new[:, :1]"),)),
    "values are not stored": ("store", ((r", \(cache_v, v\)", ","),)),
    "caches kept by length": (
        "store",
        (
            (
                r"def store\((.*)\):",
                r"KEPT = {}\ndef store(\1):\n    if cached not in KEPT:\n        KEPT[cached] = once(\1)\n    return KEPT[cached]\n\n\ndef once(\1):",
            ),
        ),
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_easily_missed_costs_points_in_every_draw(kind: str) -> None:
    question, changes = WRONG[kind]
    n_tried = 0
    for secret in SECRETS:
        (right,) = solved("PS1", secret, (question,)).values()
        code = right
        for old, new in changes:
            code = re.sub(old, new, code)
        if code != right:
            n_tried += 1
            got, most, said = points("PS1", secret, question, code)
            assert got < most and said, (secret, code)
    assert n_tried


DECIDES: dict[str, tuple[tuple[str, str], ...]] = {
    "rows as they come": ((r"sorted\(queue\)", "queue"),),
    "the youngest first": ((r"sorted\(queue\)", "sorted(queue, reverse=True)"),),
    "by name": ((r"sorted\(queue\)", "sorted(queue, key=lambda row: row[1])"),),
    "the longest first": ((r"sorted\(queue\)", "sorted(queue, key=lambda row: -row[3])"),),
    "the prefix is forgotten": ((r"longest\(cached, to_go, left\)", "longest(0, to_go, left)"),),
    "what is given is not spent": ((r"            left -= .*", "            pass"),),
    "pairs are not counted": ((r" \+ PAIR \* n \* \(cached \+ n / 2\)", ""),),
    "the fixed part is forgotten": ((r"TBT - BASE", "TBT"),),
    "what is owed lapses": ((r"\(documents, kept\)", "(documents, 0.0)"),),
    "more than is pending": ((r"longest\(cached, to_go, left\)", "longest(cached, to_go + 50, left)"),),
    "some prompt is taken for granted": ((r"(    chats, documents)", r"    first = prompts[0]\n\1"),),
    "lists are kept between steps": (
        (r"    chats, documents, given = \[\]", "    chats, documents, given = CHATS"),
        (r"\ndef decide", "\nCHATS = []\n\n\ndef decide"),
    ),
    "the first step's time for ever": (
        (r"    left = (TBT.*)", r"    left = LEFT.setdefault(0, \1"),
        (r"  # s: time.*", ")"),
        (r"\ndef decide", "\nLEFT = {}\n\n\ndef decide"),
    ),
}


@pytest.mark.parametrize("kind", DECIDES)
def test_what_decide_easily_misses_breaks_a_promise(kind: str) -> None:
    for secret in SECRETS:
        (code,) = solved("PS2", secret, ("decide",)).values()
        for old, new in DECIDES[kind]:
            assert re.search(old, code), code
            code = re.sub(old, new, code)
        got, most, said = points("PS2", secret, "decide", code)
        assert got < most and said, (secret, code)


STYLES: dict[str, tuple[tuple[str, str], ...]] = {
    "numbers of numpy": (
        (r"given\[name\] = n\n", "import numpy as np\n            given[name] = np.int64(n)\n"),
    ),
    "floats": ((r"given\[name\] = n\n", "given[name] = float(n)\n"),),
    "an instance": (
        (
            r"\ndef decide\((.*)\):",
            r"\nclass Decide:\n    def __call__(self, \1):\n        return how(\1)\n\n\ndecide = Decide()\n\n\ndef how(\1):",
        ),
    ),
    "a little less than fits": ((r"left = TBT", "left = 0.998 * TBT"),),
    "whoever still fits": ((r"                break", "                continue"),),
}


@pytest.mark.parametrize("style", STYLES)
def test_decide_in_another_style_keeps_every_promise(style: str) -> None:
    for secret in SECRETS:
        (code,) = solved("PS2", secret, ("decide",)).values()
        for old, new in STYLES[style]:
            assert re.search(old, code), code
            code = re.sub(old, new, code)
        got, most, said = points("PS2", secret, "decide", code)
        assert got == most, (secret, said, code)

"""The demo: the text last and alone on standard output, the same for any chunk; errors in one line."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from chunkprefill.__main__ import main
from chunkprefill.model import cache
from tests.needs import need_smollm2
from tests.proof import left_to_proof


def demo(capsys: Any, *args: str) -> tuple[int, list[str], str]:
    code = main(["demo", *args])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


@pytest.mark.parametrize("chunk", [1, 5, 999])
def test_one_line_a_chunk_the_check_then_the_text(capsys: Any, chunk: int) -> None:
    code, lines, err = demo(capsys, "--model", "tiny", "--chunk", str(chunk), "--tokens", "4", "Twelve bytes")
    assert code == 0
    chunks = [
        m
        for line in lines
        if (m := re.match(r"positions +(\d+) to +(\d+) +cache +(\d+) tokens, ([\d,]+) b", line))
    ]
    assert len(chunks) == -(-12 // chunk)
    for i, match in enumerate(chunks):
        start, last, length = (int(match[g]) for g in (1, 2, 3))
        assert (start, last + 1, length) == (i * chunk, length, min(12, (i + 1) * chunk))
        assert (
            int(match[4].replace(",", "")) == length * 2 * 2 * 2 * 16 * 4
        )  # k and v, layers, heads, D, bytes
    assert any("the same logits, keys and values" in line for line in lines[:-1])
    assert "loading tiny" in err and "positions" not in err


def test_the_text_is_the_same_for_any_chunk(capsys: Any) -> None:
    texts = {
        tuple(demo(capsys, "--model", "tiny", "--chunk", c, "some prompt")[1][-1:]) for c in ("1", "7", "999")
    }
    assert len(texts) == 1


def test_the_prompt_of_the_demo_itself_gives_one_text(capsys: Any) -> None:
    need_smollm2()
    texts = []
    for chunk in ("64", "999"):
        code, lines, _ = demo(capsys, "--chunk", chunk, "--tokens", "12")
        n_passes = sum(line.startswith("positions") for line in lines)
        assert code == 0 and (n_passes > 1) == (chunk == "64")
        verdict = next(i for i, line in enumerate(lines) if line.startswith("standard prefilling"))
        texts.append("\n".join(lines[verdict + 1 :]))
    assert texts[0] == texts[1] and "four hundred" in texts[0]


@left_to_proof("the test above holds the same for chunks of 64 and of 999")
def test_real_weights_say_the_same_for_chunks_of_1_and_of_999() -> None:
    need_smollm2()
    texts = []
    for chunk in ("1", "999"):
        command = [
            sys.executable,
            "-m",
            "chunkprefill",
            "demo",
            "--chunk",
            chunk,
            "What is the capital of France?",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout.splitlines()[-1])
    assert texts == ["The capital of France is Paris."] * 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "tiny", "--chunk", "0"], "--chunk is 0"),
        (["--model", "tiny", "--tokens", "-1"], "--tokens is -1"),
        (["--model", "tiny", ""], "0 tokens"),
        (["--model", "no-such-model"], "no model 'no-such-model'"),
        (["--model", "tiny", "x" * 9000], "positions, must be a whole number from 1 to 8,192"),
    ],
)
def test_errors_are_one_line(capsys: Any, args: list[str], message: str) -> None:
    code, _, err = demo(capsys, *args)
    assert code == 1 and "Traceback" not in err
    assert message in err.splitlines()[-1]


def test_a_wrong_cache_is_reported_and_fails(capsys: Any, monkeypatch: Any) -> None:
    import torch

    monkeypatch.setattr(cache.Window, "positions", lambda self: torch.arange(self.length))
    code, lines, _ = demo(capsys, "--model", "tiny", "--chunk", "5", "some prompt")
    assert code == 1 and any("NOT THE SAME" in line for line in lines)

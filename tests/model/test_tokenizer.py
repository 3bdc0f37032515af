"""Tokenizers of folders: templates, marks at the beginning, what ends an answer, and hostile files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

import chunkprefill as cp

WORDS = ["<s>", "</s>", "[user]", "hello", "world", "?"]
TEMPLATE = "{{ bos_token }}{% for m in messages %}[user] {{ m.content }}{% endfor %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(WORDS[:3])
    backend.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 0)])
    backend.save(str(tmp_path / "tokenizer.json"))
    settings(tmp_path, bos_token="<s>", eos_token={"content": "</s>"}, chat_template=TEMPLATE)
    return tmp_path


def settings(folder: Path, **values: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def test_encode_marks_the_beginning_and_chat_does_not_mark_it_twice(folder: Path) -> None:
    tokenizer = cp.load_tokenizer(folder)
    assert tokenizer.encode("hello world") == [0, 3, 4]
    assert tokenizer.chat("hello world") == [0, 2, 3, 4]
    assert tokenizer.decode([0, 3, 4, 1]) == "hello world"
    assert tokenizer.stop == {1}


def test_templates_wherever_they_are_kept(folder: Path) -> None:
    settings(folder, chat_template=[{"name": "default", "template": "world"}, {"name": "x", "template": "?"}])
    assert cp.load_tokenizer(folder).chat("hello") == [4]
    (folder / "chat_template.jinja").write_text("world {{ messages[0]['content'] }}")
    assert cp.load_tokenizer(folder).chat("hello") == [4, 3]
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").unlink()
    tokenizer = cp.load_tokenizer(folder)
    assert tokenizer.chat("hello") == tokenizer.encode("hello") == [0, 3]


def test_what_ends_an_answer_is_gathered_from_all_files(folder: Path) -> None:
    (folder / "config.json").write_text('{"eos_token_id": 4}')
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    assert cp.load_tokenizer(folder).stop == {1, 2, 3, 4}
    (folder / "config.json").write_text('{"eos_token_id": null}')
    assert cp.load_tokenizer(folder).stop == {1, 2, 3}


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no system prompt') }}",
        "{{ messages[7].content }}",
        "{% for %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.system('echo hi') }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_one_clear_error(folder: Path, template: str) -> None:
    settings(folder, chat_template=template)
    with pytest.raises(ValueError, match="chat template failed"):
        cp.load_tokenizer(folder).chat("hello")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": {"type": "BPE"}}', "[" * 100_000])
def test_a_file_that_is_no_tokenizer(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        cp.load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        cp.load_tokenizer(folder)


@pytest.mark.parametrize("template", [3, {"a": 1}])
def test_a_template_that_is_no_text(folder: Path, template: Any) -> None:
    settings(folder, chat_template=template)
    with pytest.raises(ValueError, match="chat_template is a"):
        cp.load_tokenizer(folder)


@given(st.text())
def test_tiny_reads_bytes(text: str) -> None:
    tokenizer = cp.load_tokenizer("tiny")
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.encode()) and all(0 <= i < 256 for i in ids)
    assert tokenizer.decode(ids) == text and tokenizer.chat(text) == ids

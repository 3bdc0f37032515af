"""Text to token ids and back, and a prompt into a model's chat template."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from chunkprefill.model.families import read_json
from chunkprefill.model.weights import locate


@dataclass(frozen=True)
class Tokenizer:
    """What turns text into the ids that a model was trained on."""

    backend: Backend
    chat_template: str | None = None  # Jinja, as the model's authors wrote it
    bos: str = ""
    eos: str = ""
    stop: frozenset[int] = frozenset()  # ids that end an answer

    def encode(self, text: str) -> list[int]:
        """The ids of a text, with the marks (if any) that the model expects at its beginning."""
        return self.backend.encode(text).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; special tokens leave no trace."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def chat(self, text: str) -> list[int]:
        """The ids of a user's message up to where the answer begins; plain `encode` without a template."""
        if self.chat_template is None:
            return self.encode(text)
        return self.backend.encode(self._render(text), add_special_tokens=False).ids

    def _render(self, text: str) -> str:
        # The template comes with the weights and is a program: it runs where it can reach nothing.
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = refuse
        try:
            return environment.from_string(self.chat_template or "").render(
                messages=[{"role": "user", "content": text}],
                add_generation_prompt=True,
                bos_token=self.bos,
                eos_token=self.eos,
            )
        except Exception as error:  # a template may fail in any way that Python can
            raise ValueError(f"the model's chat template failed: {error}") from error


def load_tokenizer(name_or_path: str | Path, *, source: str | None = None) -> Tokenizer:
    """The tokenizer that belongs to `load_model(name_or_path)`; "tiny" reads bytes.

    Raises ValueError for a folder without a usable `tokenizer.json`, RuntimeError as `load_model` does.
    """
    if name_or_path == "tiny" and source is None:
        return _byte_level(
            [*sorted(pre_tokenizers.ByteLevel.alphabet())], merges=[], special=[], digits=False
        )
    folder = locate(name_or_path, source)
    return _from_wheel() if folder is None else _from_folder(folder)


def _byte_level(
    tokens: list[str], merges: list[Any], special: list[str], digits: bool, **more: Any
) -> Tokenizer:
    backend = Backend(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    split: Any = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if digits:
        split = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), split])
    backend.pre_tokenizer = split
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return Tokenizer(backend, **more)


def _from_wheel() -> Tokenizer:
    from chunkprefill.model import wheel

    fields = wheel.tokenizer_fields()
    tokens = fields["tokens"]
    control = 3  # GGUF's type of a token that stands for no text
    return _byte_level(
        tokens,
        merges=[tuple(pair.split(" ")) for pair in fields["merges"]],
        special=[token for token, kind in zip(tokens, fields["types"]) if kind == control],
        digits=True,  # the file names its rule "smollm": GPT-2's, and every digit alone
        chat_template=fields["chat_template"],
        bos=tokens[fields["bos"]],
        eos=tokens[fields["eos"]],
        stop=frozenset([fields["eos"]]),
    )


def _from_folder(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{folder}: no tokenizer.json")
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{path}: not readable as a tokenizer ({error})") from error
    settings = _optional(folder / "tokenizer_config.json")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several templates by name
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if template is not None and not isinstance(template, str):
        raise ValueError(f"{folder}: chat_template is a {type(template).__name__}, text is needed")
    bos, eos = (_text(settings.get(key)) for key in ("bos_token", "eos_token"))
    stop = {backend.token_to_id(eos)} if eos else set()
    for name in ("config.json", "generation_config.json"):
        ids = _optional(folder / name).get("eos_token_id")
        stop |= {i for i in (ids if isinstance(ids, list) else [ids]) if isinstance(i, int)}
    return Tokenizer(backend, template, bos, eos, frozenset(i for i in stop if i is not None))


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _text(token: Any) -> str:
    """A special token as `tokenizer_config.json` gives it: a text, or an object with one."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else ""

"""A conversation into the text that a model was trained to answer: its chat template, rendered.

The template is a Jinja program that comes with the weights. It is rendered as transformers renders it, names
and filters included, in a sandbox where it can reach nothing but what it is given.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from chunkprefill.strict import words

Message = Mapping[str, Any]  # {"role": "user", "content": "…"}, and whatever else the template reads
_REASONING = ("reasoning_content", "thinking", "reasoning")  # three names for one thing, the usual one first
# Settings that transformers' `apply_chat_template` keeps for itself: no template sees them.
_OTHERS = words(
    """
    chat_template continue_final_message tokenize sanitize_control_tokens padding truncation max_length
    return_tensors return_dict return_assistant_tokens_mask tokenizer_kwargs conversation
    """
)


def render_chat(template: str, messages: Sequence[Message], **variables: Any) -> str:
    """The text of a conversation in a model's template.

    `variables` are what the template may read beside `messages`: tools, documents, add_generation_prompt,
    bos_token and so on. Raises ValueError for what is no conversation, and for a template that fails,
    with the line where Jinja names one. Source: `apply_chat_template` of transformers 5.
    """
    from jinja2 import TemplateError, TemplateSyntaxError

    if taken := _OTHERS & set(variables):
        raise ValueError(
            f"{', '.join(sorted(taken))}: settings of transformers' apply_chat_template, which are not read here "
            "and which no template would see"
        )
    for name in ("tools", "documents"):
        _refuse_what_lists_no_objects(name, variables.get(name))
    read = {name: _plain(value) for name, value in variables.items()}
    read = {"tools": None, "documents": None, "add_generation_prompt": False} | read
    checked = plain_messages(messages)
    try:
        return _environment().from_string(template).render(messages=checked, **read)
    except TemplateSyntaxError as error:
        raise ValueError(
            f"the model's chat template failed in line {error.lineno}: {error.message}"
        ) from None
    except TemplateError as error:
        raise ValueError(f"the model's chat template failed: {error}") from None
    except Exception as error:  # a template may fail in any way that Python can
        raise ValueError(f"the model's chat template failed: {type(error).__name__}: {error}") from None


def plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as plain data, without keys whose value is None; ValueError names what is no message."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise ValueError(
            f"a conversation is a text or a list of messages; this is a {type(messages).__name__}"
        )
    if not messages:
        raise ValueError("the conversation has 0 messages, at least 1 is needed")
    checked = []
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise ValueError(f"message {i} is {message!r}: an object with role and content is needed")
        plain = _plain({key: value for key, value in message.items() if value is not None})
        thought = next((plain[key] for key in _REASONING if key in plain), None)
        if thought is not None:
            plain = {"thinking": thought} | plain | {"reasoning_content": thought}
        checked.append(plain)
    return checked


def _refuse_what_lists_no_objects(name: str, value: Any) -> None:
    """ValueError for what is no list of JSON objects: a template would write the name of its type."""
    if value is None:
        return
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name} is a {type(value).__name__}: a list of objects is needed")
    for i, each in enumerate(value):
        if not isinstance(each, Mapping):
            what = "its JSON schema" if callable(each) else "an object"
            raise ValueError(f"{name}[{i}] is a {type(each).__name__}: {what} is needed")


def _plain(value: Any) -> Any:
    """A copy made of JSON's own types: no method of a caller's object is within the template's reach."""
    if isinstance(value, (bool, type(None))):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind.__str__(value) if kind is str else kind(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else [_plain(x) for x in value]
    if (numpy := sys.modules.get("numpy")) and isinstance(value, numpy.generic):
        own = value.item()  # or a False of numpy would be a text, and so true
        return _plain(own) if type(own) is not type(value) else f"<{type(value).__name__}>"
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
        return _plain(dump())
    return f"<{type(value).__name__}>"


def _environment() -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}`, which marks the assistant's words for training: here they are plain text."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

        def _text(self, caller: Any) -> str:
            return caller()

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def strftime_now(layout: str) -> str:
        return datetime.now().strftime(layout)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:  # Jinja's own escapes what HTML would read as a tag
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return environment

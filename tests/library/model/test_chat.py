"""Chat templates render as transformers renders them: ten templates in the manner of ten families."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import chunkprefill as cp
from chunkprefill.model import chat
from chunkprefill.model.chat import render_chat
from tests.needs import need

try:
    import transformers
except ImportError:
    transformers = None

TEMPLATES = {
    "llama 3": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" + system_message + "<|eot_id|>" }}
{%- for t in tools or [] %}
    {{- t | tojson(indent=4) }}
    {{- "\\n\\n" }}
{%- endfor %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one tool call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' + tool_call.arguments | tojson + "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "qwen": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set content = message.content or '' %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' ~ call.name ~ '", "arguments": ' }}
            {{- call.arguments if call.arguments is string else call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    "mistral": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, roles must alternate user/assistant') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}
""",
    "chatml": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
        "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
        "{% endif %}"
    ),
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '

' %}{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}
{% for message in rest %}
    {% if (message['role'] == 'assistant') %}
        {% set role = 'model' %}
    {% else %}
        {% set role = message['role'] %}
    {% endif %}
    {{ '<start_of_turn>' + role + '
' + (first if loop.first else '') + message['content'] | trim + '<end_of_turn>
' }}
{% endfor %}
{% if add_generation_prompt %}
    {{'<start_of_turn>model
'}}
{% endif %}
""",
    "phi": """{% for message in messages %}
{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}""",
    "deepseek": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{% set ns = namespace(is_first=false, system_prompt='', is_first_sp=true) %}
{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}
{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}
{%- else %}{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}
{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}
{%- for message in messages %}
{%- if message['role'] == 'system' %}{% continue %}{% endif %}
{%- if message['role'] == 'user' %}{{ '<User>' + message['content'] }}
{%- elif message['role'] == 'tool' %}{{ '<Tool>' + message['content'] | tojson(ensure_ascii=True, separators=(',', ':')) }}
{%- else %}{% set content = message['content'] or '' %}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
{{- '<Assistant>' + content + '<end_of_sentence>' }}
{%- endif %}{%- endfor -%}
{% if add_generation_prompt %}{{ '<Assistant><think>\\n' }}{% endif %}""",
    "smollm": """{% macro header(role) %}<|im_start|>{{ role }}
{% endmacro -%}
{% for message in messages -%}
    {% if loop.first and messages[0]['role'] != 'system' -%}
        {{ header('system') }}You are a helpful AI assistant named SmolLM<|im_end|>
    {% endif -%}
    {{ header(message['role']) -}}
    {% if message['role'] == 'assistant' -%}
        {% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}

    {% else -%}
        {{ message['content'] }}<|im_end|>
    {% endif -%}
{% endfor -%}
{%- if add_generation_prompt %}{{ header('assistant') }}{% endif %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "command": """{{ bos_token }}
{%- set system = messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | join(' ') -%}
<|SYSTEM|>{{ system or 'You are Command.' }}{% if date is defined %} Today is {{ date }}.{% endif %}
{%- if documents %}

{% for document in documents -%}
Document: {{ loop.index0 }}
{% for key, value in document | dictsort %}{{ key | title }}: {{ value }}
{% endfor %}
{%- if loop.index0 >= 1 %}{% break %}{% endif %}
{% endfor %}
{%- endif %}
{%- for tool in tools or [] %}
{% set f = tool.function if tool.function is defined else tool %}
def {{ f.name }}({% for name, kind in f.parameters.properties.items() %}{{ name }}: {{ kind.type }}{{ ', ' if not loop.last }}{% endfor %}): {{ f.description | default('nothing said', true) }}
{%- endfor %}
{%- for message in messages if message.role != 'system' %}
<|{{ message.role | upper }}|>{{ message.content }}{% if message.tool_calls is defined %} {{ message.tool_calls | tojson(indent=2, sort_keys=true) }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|CHATBOT|>{% endif %}""",
}

USER = {"role": "user", "content": ' What is <b>é</b> & "x > y"? \n'}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a town, in °C <now>",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "n": {"type": "integer"}},
        },
    },
}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"type": "function", "function": {"name": "weather", "arguments": {"town": "Łódź", "n": 1.5}}}
    ],
}
CASES: dict[str, dict[str, Any]] = {
    "one turn": {"messages": [USER], "add_generation_prompt": True},
    "no generation prompt": {"messages": [USER]},
    "three turns and a system": {
        "messages": [
            {"role": "system", "content": "Be brief.\n"},
            USER,
            {"role": "assistant", "content": "<think>\nhm\n</think>\n\nA letter. "},
            {"role": "user", "content": "Sure?"},
        ],
        "add_generation_prompt": True,
    },
    "an answer at the end": {
        "messages": [USER, {"role": "assistant", "content": "yes", "reasoning": "because"}],
    },
    "tools": {"messages": [USER], "tools": [TOOL], "add_generation_prompt": True},
    "a call and its answer": {
        "messages": [USER, CALL, {"role": "tool", "content": '{"t": "20 °C"}', "name": "weather"}],
        "tools": [TOOL],
        "add_generation_prompt": True,
    },
    "documents": {
        "messages": [USER],
        "documents": [{"title": "A & B", "text": "é"}, {"title": "C"}, {"title": "D"}],
        "add_generation_prompt": True,
    },
    "variables": {
        "messages": [USER],
        "enable_thinking": False,
        "date": "1 May",
        "date_string": "2 May",
        "add_generation_prompt": True,
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    backend = Backend(models.WordLevel({"<s>": 0, "</s>": 1, "?": 2}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<s>", "</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


class NewYear(datetime):
    """A clock that stands still, in our module and in transformers'."""

    @classmethod
    def now(cls, tz: Any = None) -> NewYear:
        return cls(2026, 1, 1, 12)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    need("transformers", transformers, "pip install transformers")
    from transformers.utils import chat_template_utils

    monkeypatch.setattr(chat, "datetime", NewYear)
    monkeypatch.setattr(chat_template_utils, "datetime", NewYear)


def outcome(render: Any, *args: Any, **more: Any) -> str:
    """The text, or that there was an error: both then refuse."""
    try:
        return render(*args, **more)
    except Exception as error:
        return f"refused: {str(error).rpartition(': ')[2]}"


@pytest.mark.parametrize("style", TEMPLATES)
def test_a_template_renders_as_transformers_renders_it(folder: Path, style: str, still: None) -> None:
    (folder / "chat_template.jinja").write_text(TEMPLATES[style], encoding="utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = cp.load_tokenizer(folder)
    texts = {}
    for name, case in CASES.items():
        case = {"add_generation_prompt": False} | case
        messages = case.pop("messages")
        expected = outcome(theirs.apply_chat_template, messages, tokenize=False, **case)
        texts[name] = outcome(ours.chat_text, messages, **case)
        assert texts[name] == expected, name
        if not expected.startswith("refused"):
            ids = theirs.apply_chat_template(messages, tokenize=True, return_dict=False, **case)
            assert ours.chat(messages, **case) == ids
    rendered = [text for text in texts.values() if not text.startswith("refused")]
    assert len(rendered) >= 5 and all("é" in text for text in rendered)
    if style == "llama 3":
        assert "Today Date: 01 Jan 2026" in texts["one turn"]


def test_names_and_filters_that_templates_use(folder: Path, still: None) -> None:
    """Each expression alone, so that a failure says which."""
    expressions = [
        "{{ {'a': 'é <b> & \\'', 'n': 1.0} | tojson }}",
        "{{ 'x' | tojson(ensure_ascii=true) }}{{ ['é'] | tojson(ensure_ascii=true) }}",
        "{{ tools is defined }}{{ documents is none }}{{ pad_token is defined }}{{ unk_token }}",
        "{{ strftime_now('%Y-%m-%d %H') }}",
        "{% generation %}{% set a = 1 %}x{{ a }}{% endgeneration %}{{ a is defined }}",
        "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        "  {% if true %}\n  a\n  {% endif %}\nb\n",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "{{ dict(a=1) }}{{ messages[0].nothing }}{{ messages[0].get('nothing', 'd') }}",
        "{{ raise_exception('no such role: ' + messages[0].role) }}",
        "{{ nothing.at_all }}",
        "{% for %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ mask_token + 'x' }}",
    ]
    ours = cp.load_tokenizer(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in expressions:
        expected = outcome(theirs.apply_chat_template, [USER], tokenize=False, chat_template=text)
        got = outcome(render_chat, text, [USER], **ours.special)
        assert got == expected or (got[:8] == expected[:8] == "refused:"), text


def test_a_conversation_with_tools_takes_the_template_for_tools(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("plain")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools[0].function.name }}")
    tokenizer = cp.load_tokenizer(folder)
    assert tokenizer.chat_text("hello") == "plain"
    assert tokenizer.chat_text("hello", tools=[TOOL]) == "weather"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "0 messages"),
        (None, "this is a NoneType"),
        ({"role": "user"}, "this is a dict"),
        (["hello"], "message 0 is 'hello'"),
        (7, "this is a int"),
    ],
)
def test_what_is_no_conversation(folder: Path, messages: Any, message: str) -> None:
    (folder / "chat_template.jinja").write_text("x")
    with pytest.raises(ValueError, match=message):
        cp.load_tokenizer(folder).chat(messages)


def test_a_conversation_without_a_template_and_templates_without_a_default(folder: Path) -> None:
    tokenizer = cp.load_tokenizer(folder)
    assert tokenizer.chat("<s>") == tokenizer.encode("<s>")
    with pytest.raises(ValueError, match="no chat template"):
        tokenizer.chat([USER])
    settings = {"chat_template": [{"name": "rag", "template": "x"}]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="chat_template names rag, and no default"):
        cp.load_tokenizer(folder)


@pytest.mark.parametrize("text", [None, 7, b"x", ["a"]])
def test_what_is_no_text_is_one_clear_line(text: Any) -> None:
    with pytest.raises(ValueError, match="a text is needed, this is"):
        cp.load_tokenizer("tiny").encode(text)


def test_an_error_of_a_template_names_its_line() -> None:
    with pytest.raises(ValueError, match="chat template failed in line 2: ") as error:
        render_chat("a\n{% for %}", [USER])
    assert "\n" not in str(error.value)


def test_a_template_sees_plain_data_alone() -> None:
    class Sly(dict):
        def steal(self) -> str:
            return "stolen"

    with pytest.raises(ValueError, match="chat template failed"):
        render_chat("{{ messages[0].content.steal() }}", [{"role": "user", "content": Sly()}])
    assert render_chat("{{ x }}", [USER], x=object()) == "<object>"


@dataclass
class Part:
    type: str
    text: str


class Model:  # as pydantic's
    def model_dump(self) -> dict[str, Any]:
        return {"text": "dumped", "n": np.int64(3)}


@pytest.mark.parametrize(
    "value",
    [np.bool_(False), np.int64(3), np.float32(0.5), Part("text", "a"), Model(), [Model()]],
)
def test_objects_are_told_as_transformers_tells_them(folder: Path, value: Any) -> None:
    need("transformers", transformers, "pip install transformers")
    template = "{{ x }} {{ x is string }} {{ 'yes' if x else 'no' }} {{ messages[0].content }}"
    (folder / "chat_template.jinja").write_text(template)
    conversation = [{"role": "user", "content": value}]
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    expected = theirs.apply_chat_template(conversation, tokenize=False, x=value)
    assert render_chat(template, conversation, x=value) == expected


def weather(place: str) -> str:
    """The weather somewhere."""
    return place


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"tools": [weather]}, r"tools\[0\] is a function: its JSON schema is needed"),
        ({"tools": [TOOL, "weather"]}, r"tools\[1\] is a str: an object is needed"),
        ({"tools": TOOL}, "tools is a dict: a list of objects"),
        ({"tools": "weather"}, "tools is a str: a list"),
        ({"documents": ["a text"]}, r"documents\[0\] is a str: an object"),
        ({"continue_final_message": True}, "continue_final_message: settings of transformers'"),
        ({"chat_template": "x", "tokenize": False}, "chat_template, tokenize: settings of transformers'"),
    ],
)
def test_what_a_template_would_not_see_as_meant_is_refused(variables: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_chat("{{ tools }}", [USER], **variables)


def test_every_setting_that_transformers_keeps_from_a_template_is_refused() -> None:
    """`sanitize_control_tokens` was handed to the template, which knows none: a user's marks stayed marks."""
    need("transformers", transformers, "pip install transformers")
    known = inspect.signature(transformers.PreTrainedTokenizerFast.apply_chat_template).parameters
    read = {"self", "tools", "documents", "add_generation_prompt", "kwargs"}
    for name in set(known) - read:
        with pytest.raises(ValueError, match=f"{name}: settings of transformers'"):
            render_chat("{{ tools }}", [USER], **{name: True})


def test_a_number_that_python_has_no_like_of_is_named_by_its_type() -> None:
    assert render_chat("{{ x }}", [USER], x=np.longdouble(2)) == "<longdouble>"

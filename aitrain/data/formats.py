"""Chat formats by name, as Jinja templates that any tokenizer can carry, and templates from the user's files.

Each template follows the format as it was published (the source stands above it), and marks answers with
`{% generation %}`, so that other tools find them too. Two things depend on the tokenizer:

- The answer's end. Where a format's own end mark is no special token of the tokenizer, the tokenizer's end-of-sequence
  token follows the mark, or a model would never learn to stop.
- The beginning. Llama's and Mistral's formats write the BOS token; the others write it if the tokenizer itself begins
  every text with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitrain.errors import ConfigError, Problem, did_you_mean, nearest

if TYPE_CHECKING:
    from jinja2.nodes import Node
    from jinja2.parser import Parser

AUTO, RAW = "auto", "raw"
"""The tokenizer's own template; and a prompt and its completion as they are, with nothing around them."""
FILES = (".jinja", ".jinja2", ".j2")
ELSEWHERE = {"tokenizer": AUTO, "native": AUTO, "default": AUTO, "none": RAW, "llama3": "llama", "llama-3": "llama"}
"""Words of other tools, and ours."""
PREAMBLE = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""What Vicuna's format begins with unless the conversation has a system message."""
TASK = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
TASK_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
"""What Alpaca's format begins with unless the conversation has a system message."""


@dataclass(frozen=True)
class Format:
    """A chat format: its template, and what the tokenizer has a say in.

    In the template `%BOS%`, `%END%` and `%REFUSE…%` stand for the first token, the end of an answer and refusals.
    """

    name: str
    template: str
    mark: str = ""
    """What ends an answer; empty: the tokenizer's end-of-sequence token."""
    bos: bool = False
    """Whether the format itself writes the BOS token."""
    stops: tuple[str, ...] = ()
    """Texts with which another turn would begin: a model that writes one has ended its answer."""


# OpenAI's ChatML (https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md). It says nothing of tools;
# they are written as in Hermes and Qwen2.5 (https://github.com/NousResearch/Hermes-Function-Calling,
# https://huggingface.co/Qwen/Qwen2.5-7B-Instruct).
CHATML = r"""%BOS%
{%- set turns = messages %}
{%- if tools %}
{{- '<|im_start|>system\n' }}
{%- if messages[0]['role'] == 'system' %}
{{- messages[0]['content'] + '\n\n' }}
{%- set turns = messages[1:] %}
{%- endif %}
{{- '# Tools\n\nYou may call one or more functions to assist with the user query.\n\n' }}
{{- 'You are provided with function signatures within <tools></tools> XML tags:\n<tools>' }}
{%- for tool in tools %}
{{- '\n' + (tool | tojson) }}
{%- endfor %}
{{- '\n</tools>\n\nFor each function call, return a json object with function name and arguments within ' }}
{{- '<tool_call></tool_call> XML tags:\n<tool_call>\n' }}
{{- '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in turns %}
{%- if message['role'] == 'assistant' %}
{{- '<|im_start|>assistant\n' }}
{%- generation %}
{{- message['content'] or '' }}
{%- for tool_call in message['tool_calls'] or [] %}
{%- set call = tool_call['function'] or tool_call %}
{{- ('\n' if message['content'] or not loop.first else '') + '<tool_call>\n{"name": "' + call['name'] }}
{{- '", "arguments": ' }}
{{- call['arguments'] if call['arguments'] is string else (call['arguments'] or {}) | tojson }}
{{- '}\n</tool_call>' }}
{%- endfor %}
{{- %END% }}
{%- endgeneration %}
{{- '\n' }}
{%- elif message['role'] == 'tool' %}
{{- '<|im_start|>user' if loop.first or loop.previtem['role'] != 'tool' else '' }}
{{- '\n<tool_response>\n' + message['content'] + '\n</tool_response>' }}
{{- '<|im_end|>\n' if loop.last or loop.nextitem['role'] != 'tool' else '' }}
{%- else %}
{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

# Llama 3 (https://www.llama.com/docs/model-cards-and-prompt-formats/meta-llama-3/,
# https://huggingface.co/meta-llama/Meta-Llama-3-8B-Instruct). Tools came with 3.1, in the model's own template.
LLAMA = r"""%BOS%%REFUSE_TOOLS%
{%- for message in messages %}
%REFUSE_CALLS%
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}
{{- (message['content'] | trim) + %END% }}
{%- endgeneration %}
{%- else %}
{{- (message['content'] | trim) + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

# Zephyr 7B beta (https://huggingface.co/HuggingFaceH4/zephyr-7b-beta; Tunstall et al. 2023,
# https://arxiv.org/abs/2310.16944).
ZEPHYR = r"""%BOS%%REFUSE_TOOLS%
{%- for message in messages %}
%REFUSE_CALLS%
{{- '<|' + message['role'] + '|>\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}
{{- message['content'] + %END% }}
{%- endgeneration %}
{%- else %}
{{- message['content'] + eos_token }}
{%- endif %}
{{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>\n' }}
{%- endif %}
"""

# Mistral 7B Instruct v0.1 and v0.2 and Mixtral, "Tokenizer V1" of the vendor's page
# (https://docs.mistral.ai/cookbook/concept-deep-dive-tokenization-templates): the system message stands before the
# first question.
MISTRAL = r"""%BOS%%REFUSE_TOOLS%%SYSTEM%
{%- for message in turns %}
%REFUSE_CALLS%%REFUSE_ORDER%
{%- if message['role'] == 'user' %}
{{- ' [INST] ' + (system + '\n\n' if loop.first and system else '') + message['content'] + ' [/INST]' }}
{%- else %}
{%- generation %}
{{- ' ' + message['content'] + %END% }}
{%- endgeneration %}
{%- endif %}
{%- endfor %}
"""

# Vicuna v1.1 and later (https://github.com/lm-sys/FastChat/blob/main/docs/vicuna_weights_version.md and the
# `vicuna_v1.1` conversation of fastchat/conversation.py).
VICUNA = r"""%BOS%%REFUSE_TOOLS%%SYSTEM%
{{- (system or "%PREAMBLE%") + ' ' }}
{%- for message in turns %}
%REFUSE_CALLS%%REFUSE_ORDER%
{%- if message['role'] == 'user' %}
{{- 'USER: ' + message['content'] + ' ' }}
{%- else %}
{{- 'ASSISTANT:' }}
{%- generation %}
{{- ' ' + message['content'] + %END% }}
{%- endgeneration %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- 'ASSISTANT:' }}
{%- endif %}
"""

# Stanford Alpaca (https://github.com/tatsu-lab/stanford_alpaca#data-release), with the line break after `Response:`
# that Alpaca-LoRA's template has (https://github.com/tloen/alpaca-lora/blob/main/templates/alpaca.json). The data's
# `input` is a message's field `input`; a system message stands in place of the sentence about the task.
ALPACA = r"""%BOS%%REFUSE_TOOLS%%SYSTEM%
{%- for message in turns %}
%REFUSE_CALLS%%REFUSE_ORDER%
{%- if loop.index > 2 %}
{{- raise_exception('the alpaca format holds one question and one answer, and message ' ~ (loop.index + first) ~
    ' is one more') }}
{%- endif %}
{%- if message['role'] == 'user' %}
{{- (system or ("%TASK_WITH_INPUT%" if message['input'] else "%TASK%")) + '\n\n' }}
{{- '### Instruction:\n' + message['content'] + '\n\n' }}
{{- '### Input:\n' + message['input'] + '\n\n' if message['input'] else '' }}
{%- else %}
{{- '### Response:\n' }}
{%- generation %}
{{- message['content'] + %END% }}
{%- endgeneration %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '### Response:\n' }}
{%- endif %}
"""

# Ours: a line or more for each turn, for models that know no format.
PLAIN = r"""%BOS%%REFUSE_TOOLS%
{%- for message in messages %}
{%- if message['tool_calls'] %}
{{- raise_exception('message ' ~ loop.index ~ ' calls a tool, for which the plain format has no place') }}
{%- endif %}
{{- (message['role'] | capitalize) + ':' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}
{{- ' ' + message['content'] + %END% }}
{%- endgeneration %}
{%- else %}
{{- ' ' + message['content'] }}
{%- endif %}
{{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- 'Assistant:' }}
{%- endif %}
"""

REFUSE_TOOLS = r"""
{%- if tools %}
{{- raise_exception('the %NAME% format has no place for tools') }}
{%- endif %}"""
REFUSE_CALLS = r"""
{%- if message['tool_calls'] or message['role'] == 'tool' %}
{{- raise_exception('message ' ~ (loop.index + (first or 0)) ~ ' calls a tool or holds its result, for which ' ~
    'the %NAME% format has no place') }}
{%- endif %}"""
REFUSE_ORDER = r"""
{%- set due = 'user' if loop.index0 % 2 == 0 else 'assistant' %}
{%- if message['role'] != due %}
{{- raise_exception('message ' ~ (loop.index + first) ~ ' is of the ' ~ message['role'] ~ ', and in the %NAME% ' ~
    'format one of the ' ~ due ~ ' is due: they alternate, after a system message or none') }}
{%- endif %}"""
SYSTEM = r"""
{%- set first = 1 if messages[0]['role'] == 'system' else 0 %}
{%- set system = messages[0]['content'] if first else '' %}
{%- set turns = messages[first:] %}"""

FORMATS = {
    each.name: each
    for each in (
        Format("chatml", CHATML, mark="<|im_end|>"),
        Format("llama", LLAMA, mark="<|eot_id|>", bos=True),
        Format("zephyr", ZEPHYR, stops=("<|user|>", "<|system|>")),
        Format("mistral", MISTRAL, bos=True, stops=("[INST]",)),
        Format("vicuna", VICUNA, stops=("USER:",)),
        Format("alpaca", ALPACA, stops=("### Instruction:",)),
        Format("plain", PLAIN, stops=("\nUser:",)),
    )
}
NAMES = (AUTO, *FORMATS, RAW)
"""Every word that `data.chat_format` takes; it may also name a file."""


def written(form: Format, *, begin: bool, close: bool) -> str:
    """A format's template. `begin`: with the BOS token first; `close`: with the EOS token after the answer's mark."""
    ends = [f"'{form.mark}'"] if form.mark else []
    ends += ["eos_token"] if close or not form.mark else []
    pieces = {
        "%BOS%": "{{- bos_token }}" if begin else "",
        "%SYSTEM%": SYSTEM,
        "%REFUSE_TOOLS%": REFUSE_TOOLS,
        "%REFUSE_CALLS%": REFUSE_CALLS,
        "%REFUSE_ORDER%": REFUSE_ORDER,
        "%END%": " + ".join(ends),
        "%NAME%": form.name,
        "%PREAMBLE%": PREAMBLE,
        "%TASK_WITH_INPUT%": TASK_WITH_INPUT,
        "%TASK%": TASK,
    }
    text = form.template
    for mark, piece in pieces.items():
        text = text.replace(mark, piece)
    return text.strip()


def begins(form: Format, tokenizer: Any) -> bool:
    """Whether a conversation begins with the BOS token: as the format has it, or as the tokenizer begins every text."""
    return tokenizer.bos_token_id is not None and (form.bos or begins_texts(tokenizer))


def begins_texts(tokenizer: Any) -> bool:
    """Whether a tokenizer begins every text with its BOS token."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


def closes(form: Format, tokenizer: Any) -> bool:
    """Whether the EOS token must follow the format's own mark, which the tokenizer does not know as a special token."""
    return form.mark not in special_tokens(tokenizer)


def has_place_for_input(template: Any) -> bool:
    """Whether a template writes a message's field `input`, as Alpaca's does; others want it below the message."""
    return isinstance(template, str) and "message['input']" in template


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The texts of a tokenizer's special tokens; any of them may end an answer, as Gemma's `<end_of_turn>` does."""
    found = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return tuple(dict.fromkeys([tokenizer.eos_token, *found] if tokenizer.eos_token else found))


def template_of(name: str, tokenizer: Any = None) -> str:
    """A named format as a Jinja template: as published, or as a tokenizer can hold it.

    Raises ConfigError when there is no such format, or when the tokenizer has nothing to end an answer with.
    """
    if name not in FORMATS:
        raise ConfigError(Problem("data.chat_format", f"there is no template '{name}'", did_you_mean(name, FORMATS)))
    form = FORMATS[name]
    if tokenizer is None:
        return written(form, begin=form.bos, close=False)
    close = closes(form, tokenizer)
    if close and tokenizer.eos_token is None:
        what = f"the tokenizer has no end-of-sequence token, with which an answer ends in the {name} format"
        raise ConfigError(Problem("data.chat_format", what, "use a tokenizer that has one"))
    return written(form, begin=begins(form, tokenizer), close=close)


def use_format(tokenizer: Any, chat_format: str) -> Any:
    """Give a tokenizer the template that `data.chat_format` names, and return it.

    The run's tokenizer carries it from here on: training, previews, generation and the saved model use the same one.
    """
    if chat_format in FORMATS:
        tokenizer.chat_template = template_of(chat_format, tokenizer)
    elif chat_format not in (AUTO, RAW):
        tokenizer.chat_template = read_template(chat_format)
    return tokenizer


def read_template(path: str) -> str:
    """The Jinja template in a file. Raises ConfigError when it cannot be read or is no template."""
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = nearest(file.name, [each.name for each in file.parent.glob("*")] if file.parent.is_dir() else [])
        advice = f"did you mean '{file.parent / near}'?" if near else "name a Jinja file, or a format"
        raise ConfigError(Problem("data.chat_format", f"no such file: {path}", advice)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(Problem("data.chat_format", f"{path} cannot be read: {reason}")) from error
    if not text.strip():
        raise ConfigError(Problem("data.chat_format", f"{path} is empty", "it should hold a Jinja chat template"))
    _check_syntax(text, path)
    return text


def _check_syntax(text: str, path: str) -> None:
    """Parses only: nothing of the template runs."""
    from jinja2 import Environment, TemplateSyntaxError
    from jinja2.ext import Extension, loopcontrols

    class Generation(Extension):
        """The tag with which transformers marks answers."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    try:
        Environment(extensions=[Generation, loopcontrols], trim_blocks=True, lstrip_blocks=True).parse(text)
    except TemplateSyntaxError as error:
        what = f"{path} is no Jinja template: {error.message}"
        raise ConfigError(Problem("data.chat_format", what, where=f"{path}:{error.lineno}")) from error


def format_problems(chat_format: str) -> Iterator[Problem]:
    """What is wrong with a value of `data.chat_format`, as far as it shows without a tokenizer."""
    if chat_format in NAMES:
        return
    is_path = chat_format.endswith(FILES) or "/" in chat_format or Path(chat_format).is_file()
    if is_path:
        try:
            read_template(chat_format)
        except ConfigError as error:
            yield from error.problems
        return
    word = chat_format.strip().lower()
    near = ELSEWHERE.get(word) or nearest(word, NAMES)
    advice = f"did you mean '{near}'?" if near else f"there is {', '.join(NAMES)}, and files ({', '.join(FILES)})"
    fix = f"data.chat_format={near}" if near else ""
    yield Problem("data.chat_format", f"there is no chat format '{chat_format}'", advice, fix=fix)


def shape_problem(chat_format: str, shape: str, has_template: bool) -> Problem | None:
    """What keeps rows of a shape (`aitrain.data.columns`) from being written in a format, or None.

    `has_template` says whether the tokenizer carries a chat template.
    """
    if shape == "text":
        if chat_format == AUTO:
            return None
        what = f"'{chat_format}' has no effect on rows of plain text"
        return Problem("data.chat_format", what, "leave it out, or name the columns of a conversation")
    if chat_format == RAW and shape == "messages":
        what = "'raw' writes a prompt and its completion as they are, and the rows hold conversations"
        return Problem("data.chat_format", what, "choose a format, such as data.chat_format=chatml", fix=_FIX)
    if chat_format == AUTO and not has_template:
        what = "the tokenizer has no chat template of its own to write conversations with"
        advice = f"choose one: {', '.join(name for name in NAMES if name != AUTO)}, or a Jinja file"
        return Problem("data.chat_format", what, advice, fix=_FIX)
    return None


_FIX = "data.chat_format=chatml"

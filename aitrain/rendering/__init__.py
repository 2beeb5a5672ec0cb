"""Conversations to text and token ids, as training sees them: formats, answer masks, token weights. No torch.

from aitrain.rendering import Conversation, build_supervised_example
example = build_supervised_example(Conversation.from_dict(row), tokenizer)
"""

from aitrain.data.rendering import Rendered, RenderingError
from aitrain.rendering.config import ChatFormat, RenderConfig
from aitrain.rendering.conversations import Conversation, Message, convert_dataset_to_conversations
from aitrain.rendering.examples import SupervisedExample, build_generation_prompt, build_supervised_example
from aitrain.rendering.formats import (
    AlpacaRenderer,
    ChatMLRenderer,
    LlamaRenderer,
    MessageRenderer,
    MistralRenderer,
    PlainRenderer,
    RawRenderer,
    TemplateRenderer,
    VicunaRenderer,
    ZephyrRenderer,
    create_chat_template,
    detect_chat_format,
    get_renderer,
    stop_strings,
)

__all__ = [
    "AlpacaRenderer",
    "ChatFormat",
    "ChatMLRenderer",
    "Conversation",
    "LlamaRenderer",
    "Message",
    "MessageRenderer",
    "MistralRenderer",
    "PlainRenderer",
    "RawRenderer",
    "RenderConfig",
    "Rendered",
    "RenderingError",
    "SupervisedExample",
    "TemplateRenderer",
    "VicunaRenderer",
    "ZephyrRenderer",
    "build_generation_prompt",
    "build_supervised_example",
    "convert_dataset_to_conversations",
    "create_chat_template",
    "detect_chat_format",
    "get_renderer",
    "stop_strings",
]

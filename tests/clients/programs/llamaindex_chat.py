"""LlamaIndex's OpenAILike, as a chat and as a completion model: python llamaindex_chat.py BASE_URL"""

import sys
from importlib.metadata import version

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

common = {
    "model": "tiny",
    "api_base": sys.argv[1],
    "api_key": "none",
    "max_tokens": 8,
    "context_window": 2048,
}
chat = OpenAILike(**common, is_chat_model=True, max_retries=0)
history = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Hello")]
answer = chat.chat(history)
assert answer.raw.usage.completion_tokens <= 8
history += [answer.message, ChatMessage(role="user", content="And again?")]
assert isinstance(chat.chat(history).message.content, str)
assert list(chat.stream_chat(history))
assert isinstance(chat.complete("Once").text, str)
text = OpenAILike(**common, is_chat_model=False, max_retries=0)
assert isinstance(text.complete("Once").text, str)
assert list(text.stream_complete("Once"))
print("llama-index-llms-openai-like", version("llama-index-llms-openai-like"))

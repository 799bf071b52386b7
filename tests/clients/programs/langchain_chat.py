"""LangChain's ChatOpenAI and OpenAI: python langchain_chat.py BASE_URL"""

import sys
from importlib.metadata import version

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI

common = {"base_url": sys.argv[1], "api_key": "none", "model": "tiny", "max_tokens": 8, "max_retries": 0}
chat = ChatOpenAI(**common, temperature=0, stream_usage=True)
history = [SystemMessage("Be brief."), HumanMessage("Hello")]
answer = chat.invoke(history)
assert answer.usage_metadata["output_tokens"] <= 8
history += [answer, HumanMessage("And again?")]
assert chat.invoke(history).response_metadata["finish_reason"] in ("stop", "length")
chunks = list(chat.stream(history))
assert sum((chunk.usage_metadata or {"output_tokens": 0})["output_tokens"] for chunk in chunks) > 0
assert len(chat.batch([history] * 3)) == 3
rated = chat.bind(logprobs=True, top_logprobs=2).invoke("x")
assert len(rated.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2
text = OpenAI(**common)
assert isinstance(text.invoke("Once"), str)
assert list(text.stream("Once"))
assert len(text.generate(["a", "b"]).generations) == 2
print("langchain-openai", version("langchain-openai"))

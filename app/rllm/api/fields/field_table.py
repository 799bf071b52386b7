"""The fields that OpenAI, vLLM, llama-server and Ollama know in requests for text, and what they do here.

docs/fields.md is made from this table (`python -m rllm.api.fields.field_page`). "Honoured" is whatever
the wire types of the doors have; a test holds the two together.
"""

from __future__ import annotations

from rllm.api.fields.known_fields import FieldTable, KnownField, Place, SameAs, Server, Use

_CHAT, _COMPLETION, _BOTH = Place.CHAT, Place.COMPLETION, Place.GENERATION
_MESSAGE, _PART, _STREAM = Place.MESSAGE, Place.PART, Place.STREAM_OPTIONS
_LETTERS = {
    "O": Server.OPENAI,
    "V": Server.VLLM,
    "L": Server.LLAMA,
    "A": Server.OLLAMA,
    "x": Server.OTHER,
}


def _servers(letters: str) -> Server:
    found = Server(0)
    for letter in letters:
        found |= _LETTERS[letter]
    return found


def _honoured(name: str, place: Place, servers: str, note: str = "", *neutral: object) -> KnownField:
    return KnownField(name, place, _servers(servers), Use.HONOURED, neutral, note)


def _no_effect(name: str, place: Place, servers: str, note: str) -> KnownField:
    return KnownField(name, place, _servers(servers), Use.NO_EFFECT, (), note)


def _refused(name: str, place: Place, servers: str, note: str, *neutral: object) -> KnownField:
    return KnownField(name, place, _servers(servers), Use.REFUSED, neutral, note)


def _renamed(name: str, place: Place, servers: str, other: str, *neutral: object) -> KnownField:
    return KnownField(name, place, _servers(servers), Use.RENAMED, neutral, "", other)


def _unknown(name: str, place: Place, servers: str, other: str) -> KnownField:
    return KnownField(name, place, _servers(servers), Use.UNKNOWN, (), "", other)


_CALLER = "names the caller; nothing depends on it"
_CACHE_HINT = "prefixes are found without a hint"
_NO_CALLS = "without tools there are no calls"
_NO_SHIFT = "a context is never shifted"
_EARLIER = "belongs to an earlier answer"
_FOR_TEMPLATE = "handed to the chat template, where that uses it"
_DRY = "only with `dry_multiplier`"
_MIROSTAT = "only with `mirostat`"
_ENFORCED = "[enforced or refused](structured-output.md)"
_CLIENTS = "belongs to the client"

_GENERATION = (
    _honoured("model", _BOTH, "OVLA", "a name from /v1/models; without one, the first model"),
    _honoured("stream", _BOTH, "OVLA", "", False),
    _honoured("stream_options", _BOTH, "OVLA", "only with `stream`", {}),
    _honoured("max_tokens", _BOTH, "OVLA", "cut to what the context has room for; -1: all of it", -1),
    _honoured("max_completion_tokens", _CHAT, "OVL", "of it and `max_tokens` the smaller one holds", -1),
    _honoured("min_tokens", _BOTH, "V", "", 0),
    _honoured("temperature", _BOTH, "OVLA", "0 is greedy"),
    _honoured("top_p", _BOTH, "OVLA"),
    _honoured("top_k", _BOTH, "VL", "0 or -1: off"),
    _honoured("min_p", _BOTH, "VL"),
    _honoured("typical_p", _BOTH, "L", "", 1.0),
    _honoured("repetition_penalty", _BOTH, "V", "", 1.0),
    _honoured("presence_penalty", _BOTH, "OVLA", "", 0),
    _honoured("frequency_penalty", _BOTH, "OVLA", "", 0),
    _honoured("seed", _BOTH, "OVLA"),
    _honoured("stop", _BOTH, "OVLA", "a string or several", []),
    _honoured("stop_token_ids", _BOTH, "V", "", []),
    _honoured("include_stop_str_in_output", _BOTH, "V", "", False),
    _honoured("skip_special_tokens", _BOTH, "V", "false: control tokens are text", True),
    _honoured("logit_bias", _BOTH, "OVL", "tokens by id or text; an object, or an array of pairs", {}, []),
    _honoured("allowed_token_ids", _BOTH, "V", "nothing else is drawn"),
    _honoured("bad_words", _BOTH, "V", "also after a space", []),
    _honoured("response_format", _BOTH, "OVLA", _ENFORCED, {"type": "text"}),
    _honoured("structured_outputs", _BOTH, "V", _ENFORCED, {}),
    _honoured("guided_json", _BOTH, "V", _ENFORCED),
    _honoured("guided_regex", _BOTH, "V", _ENFORCED),
    _honoured("guided_choice", _BOTH, "V", _ENFORCED, []),
    _honoured("guided_grammar", _BOTH, "V", _ENFORCED),
    _honoured("json_schema", _BOTH, "L", _ENFORCED, {}),
    _honoured("grammar", _BOTH, "L", _ENFORCED, ""),
    _honoured("repeat_last_n", _BOTH, "LA", "how far penalties look back; here all of the text", -1),
    _honoured("truncate_prompt_tokens", _BOTH, "V", "-1: what leaves room for the answer"),
    _honoured("truncation_side", _BOTH, "V", "left, if nothing is said"),
    _honoured("cache_prompt", _BOTH, "L", "false: no cached prefix is used", True),
    _honoured("return_token_ids", _BOTH, "V", "", False),
    _honoured("return_tokens_as_token_ids", _BOTH, "V", "", False),
    _honoured("timings_per_token", _BOTH, "L", "", False),
    _honoured("return_progress", _BOTH, "L", "", False),
    _honoured("stream_interval", _BOTH, "V", "", 1),
    _honoured("request_id", _BOTH, "V", "the end of the answer's `id`"),
    _honoured("prompt_logprobs", _BOTH, "V", "0: those of the prompt's own tokens; not with `stream`"),
    _honoured("n", _BOTH, "OVL", "", 1),
    _honoured("ignore_eos", _BOTH, "VL", "", False),
    _honoured("priority", _BOTH, "V", "lower runs earlier", 0),
    _honoured("cache_salt", _BOTH, "V", "prefixes are shared only under the same salt"),
    _honoured("messages", _CHAT, "OVLA"),
    _honoured("prompt", _COMPLETION, "OVLA"),
    _honoured("add_generation_prompt", _CHAT, "VL", "", True),
    _honoured("continue_final_message", _CHAT, "VL", "", False),
    _honoured("chat_template_kwargs", _CHAT, "VL", "variables, never a template", {}),
    _honoured("documents", _CHAT, "V", "only where the chat template uses it"),
    _honoured("chat_template", _CHAT, "VL", "only with --trust-request-chat-template", ""),
    _honoured("add_special_tokens", _COMPLETION, "V", "BOS in front, where the model wants it", True),
    _honoured("tools", _CHAT, "OVLA", "functions only; see tools.md", []),
    _honoured("tool_choice", _CHAT, "OVL", "`auto`, `none`, allowed_tools with mode `auto`"),
    _honoured("parallel_tool_calls", _CHAT, "OVL", "false: one call, what follows it is text", True),
    _honoured("functions", _CHAT, "O", "the older form of `tools`", []),
    _honoured("function_call", _CHAT, "O", "the older form of `tool_choice`"),
    _honoured("reasoning_effort", _CHAT, "OVLA", "where the chat template has use for it"),
    _honoured("include_reasoning", _CHAT, "V", "false: thoughts are left out", True),
    _honoured("logprobs", _BOTH, "OVLA"),
    _honoured("top_logprobs", _CHAT, "OVLA", "only with `logprobs`", 0),
    _honoured("echo", _COMPLETION, "OVL", "with `logprobs` also those of the prompt", False),
    _honoured("echo", _CHAT, "V", "the last message, if it is the assistant's", False),
)

_NAMES = (
    _renamed("n_predict", _BOTH, "L", "max_tokens"),
    _renamed("n_cmpl", _BOTH, "L", "n"),
    _renamed("repeat_penalty", _BOTH, "LA", "repetition_penalty"),
    _renamed("typ_p", _BOTH, "L", "typical_p"),
    _renamed("n_probs", _COMPLETION, "L", "logprobs", 0),
    _unknown("max_new_tokens", _BOTH, "x", "max_tokens"),
    _unknown("max_output_tokens", _BOTH, "x", "max_tokens"),
    _unknown("stop_sequences", _BOTH, "x", "stop"),
    _unknown("input", _CHAT, "x", "messages"),
    _unknown("input", _COMPLETION, "x", "prompt"),
)

_NO_EFFECT = (
    _no_effect("user", _BOTH, "OVLA", _CALLER),
    _no_effect("safety_identifier", _BOTH, "O", _CALLER),
    _no_effect("session_id", _BOTH, "V", _CALLER),
    _no_effect("metadata", _BOTH, "O", "belongs to stored answers, and nothing is stored"),
    _no_effect("store", _BOTH, "O", "**nothing is stored**, also with true"),
    _no_effect("prompt_cache_key", _BOTH, "O", _CACHE_HINT),
    _no_effect("prompt_cache_options", _BOTH, "O", _CACHE_HINT),
    _no_effect("parallel_tool_calls", _COMPLETION, "OVL", _NO_CALLS),
    _no_effect("parse_tool_calls", _BOTH, "L", _NO_CALLS),
    _no_effect("add_special_tokens", _CHAT, "V", "the prompt begins as the model wants it"),
    _no_effect("spaces_between_special_tokens", _BOTH, "V", "tokens are joined as they are"),
    _no_effect("keep_alive", _BOTH, "A", "models stay loaded"),
    _no_effect("n_keep", _BOTH, "L", _NO_SHIFT),
    _no_effect("n_discard", _BOTH, "L", _NO_SHIFT),
    _no_effect("shift", _BOTH, "A", _NO_SHIFT),
    _no_effect("backend_sampling", _BOTH, "L", "where tokens are drawn changes nothing"),
    _no_effect("return_mm_kwargs", _BOTH, "V", "belongs to images"),
    _no_effect("xtc_threshold", _BOTH, "L", "only with `xtc_probability`"),
    _no_effect("dynatemp_exponent", _BOTH, "L", "only with `dynatemp_range`"),
    _no_effect("mirostat_tau", _BOTH, "L", _MIROSTAT),
    _no_effect("mirostat_eta", _BOTH, "L", _MIROSTAT),
    _no_effect("dry_base", _BOTH, "L", _DRY),
    _no_effect("dry_allowed_length", _BOTH, "L", _DRY),
    _no_effect("dry_penalty_last_n", _BOTH, "L", _DRY),
    _no_effect("dry_sequence_breakers", _BOTH, "L", _DRY),
    _no_effect("adaptive_decay", _BOTH, "L", "only with `adaptive_target`"),
)

_NO_TOOLS = "tool calling is not supported by this server"
_NO_TRIGGERS = "a grammar holds from the first token on; structural tags are free before a trigger"
_NO_SAMPLER = "this way of drawing is not supported by this server"
_NO_STEERING = "the model's reasoning cannot be steered by this server"
_NO_MEDIA = "this server takes and produces text only"
_NO_TRANSFER = "the cache is not transferred between servers"
_NOT_REPORTED = "this is not reported by this server"

_REFUSED = (
    _refused("prompt_cache_retention", _BOTH, "O", "the prefix cache lives in memory only", "in_memory"),
    _refused("service_tier", _BOTH, "O", "there is one service tier", "auto", "default"),
    _refused("suffix", _COMPLETION, "OVLA", "fill-in-the-middle is not supported by this server", ""),
    _refused(
        "best_of", _COMPLETION, "O", "the best of several answers is not chosen here; use n", 1, SameAs("n")
    ),
    _refused("grammar_lazy", _BOTH, "L", _NO_TRIGGERS, False),
    _refused("grammar_triggers", _BOTH, "L", _NO_TRIGGERS, []),
    _refused("preserved_tokens", _BOTH, "L", _NO_TRIGGERS, []),
    _refused("format", _BOTH, "A", "use response_format", ""),
    _refused("use_beam_search", _BOTH, "V", "beam search is not supported by this server", False),
    _refused("length_penalty", _BOTH, "V", "beam search is not supported by this server", 1.0),
    _refused("detokenize", _BOTH, "V", "answers are text on this server", True),
    _refused("logits_processors", _BOTH, "V", "programs in requests are not run", []),
    _refused("logprob_token_ids", _BOTH, "V", _NOT_REPORTED),
    _refused("return_token_offsets", _BOTH, "V", _NOT_REPORTED, False),
    _refused("return_prompt_text", _CHAT, "V", _NOT_REPORTED, False),
    _refused("return_tokens", _BOTH, "L", "this is not reported by this server; see return_token_ids", False),
    _refused("response_fields", _BOTH, "L", "answers have all of their fields", []),
    _refused("verbose", _BOTH, "L", _NOT_REPORTED, False),
    _refused("_debug_render_only", _BOTH, "A", "see /tokenize", False),
    _refused("post_sampling_probs", _BOTH, "L", "log probabilities are those of the model", False),
    _refused("routed_experts_prompt_start", _BOTH, "V", _NOT_REPORTED, 0),
    _refused("sse_ping_interval", _BOTH, "L", "the operator sets it (--keepalive-s)"),
    _refused("n_cache_reuse", _BOTH, "L", _NO_SHIFT, 0),
    _refused("id_slot", _BOTH, "L", "the scheduler chooses the slot", -1),
    _refused("lora", _BOTH, "L", "adapters are not supported by this server", []),
    _refused("n_indent", _BOTH, "L", _NO_SAMPLER, 0),
    _refused("t_max_predict_ms", _BOTH, "L", "use the header x-request-timeout-ms", -1, 0),
    _refused("t_max_prompt_ms", _BOTH, "L", "use the header x-request-ttft-ms", -1, 0),
    _refused("top_n_sigma", _BOTH, "L", _NO_SAMPLER, -1),
    _refused("xtc_probability", _BOTH, "L", _NO_SAMPLER, 0),
    _refused("dynatemp_range", _BOTH, "L", _NO_SAMPLER, 0),
    _refused("dry_multiplier", _BOTH, "L", _NO_SAMPLER, 0),
    _refused("mirostat", _BOTH, "L", _NO_SAMPLER, 0),
    _refused("adaptive_target", _BOTH, "L", _NO_SAMPLER, -1),
    _refused("min_keep", _BOTH, "L", _NO_SAMPLER, 0),
    _refused("samplers", _BOTH, "L", "the order of the filters is fixed", []),
    _refused("watermarking", _BOTH, "V", _NO_SAMPLER, False),
    _refused("repetition_detection", _BOTH, "V", _NO_SAMPLER),
    _refused("n_probs", _CHAT, "L", "use logprobs and top_logprobs", 0),
    _refused("reasoning", _CHAT, "A", _NO_STEERING, {}, {"effort": "none"}),
    _refused("reasoning_format", _CHAT, "L", _NO_STEERING, "none", "auto"),
    _refused("reasoning_control", _CHAT, "L", _NO_STEERING, False),
    _refused("reasoning_budget_tokens", _CHAT, "L", _NO_STEERING, -1),
    _refused("thinking_token_budget", _BOTH, "V", _NO_STEERING, -1),
    _refused("think", _CHAT, "A", _NO_STEERING, False),
    _refused("verbosity", _CHAT, "O", "the model's verbosity cannot be steered by this server", "medium"),
    _refused("audio", _CHAT, "O", _NO_MEDIA),
    _refused("modalities", _CHAT, "O", _NO_MEDIA, ["text"], []),
    _refused("images", _BOTH, "A", _NO_MEDIA, []),
    _refused("prompt_embeds", _COMPLETION, "V", _NO_MEDIA, []),
    _refused("media_io_kwargs", _CHAT, "V", _NO_MEDIA, {}),
    _refused("mm_processor_kwargs", _CHAT, "V", _NO_MEDIA, {}),
    _refused("prediction", _CHAT, "O", "predicted outputs are not supported by this server"),
    _refused("web_search_options", _CHAT, "O", "web search is not supported by this server"),
    _refused("moderation", _CHAT, "O", "moderation is not supported by this server"),
    _refused("kv_transfer_params", _BOTH, "V", _NO_TRANSFER, {}),
    _refused("ec_transfer_params", _BOTH, "V", _NO_TRANSFER, {}),
    _refused("vllm_xargs", _BOTH, "V", "vLLM's extensions are not here", {}),
    _refused("options", _BOTH, "A", "options stand at the top of the request here", {}),
    _refused("truncate", _BOTH, "A", "prompts are not cut by this server", False),
    _refused("raw", _BOTH, "A", "/v1/completions is that", False),
    _refused("system", _BOTH, "A", "a message of role system is that", ""),
    _refused("template", _BOTH, "A", "the model's own chat template is used", ""),
    _refused("context", _BOTH, "A", "prompt takes token ids", []),
)

_MESSAGES = (
    _honoured("role", _MESSAGE, "OVLA", "any word that the model's chat template shows"),
    _honoured("content", _MESSAGE, "OVLA", "text, or an array of text parts; an assistant's may be missing"),
    _honoured("name", _MESSAGE, "OVL", _FOR_TEMPLATE),
    _honoured("tool_call_id", _MESSAGE, "OVLA", "of the call whose result this is"),
    _honoured("tool_calls", _MESSAGE, "OVLA", "an assistant's calls, shown as the model writes them", []),
    _honoured("function_call", _MESSAGE, "OV", "the older form of `tool_calls`"),
    _honoured("refusal", _MESSAGE, "OV", "an assistant's content, where it has no other", ""),
    _honoured("reasoning_content", _MESSAGE, "VL", _FOR_TEMPLATE, ""),
    _honoured("reasoning", _MESSAGE, "V", _FOR_TEMPLATE, ""),
    _honoured("thinking", _MESSAGE, "A", _FOR_TEMPLATE, ""),
    _no_effect("id", _MESSAGE, "x", _CLIENTS),
    _no_effect("annotations", _MESSAGE, "OV", _EARLIER),
    _no_effect("reasoning_details", _MESSAGE, "x", _EARLIER),
    _no_effect("thinking_blocks", _MESSAGE, "x", _EARLIER),
    _no_effect("provider_specific_fields", _MESSAGE, "x", _EARLIER),
    _no_effect("cache_control", _MESSAGE, "x", _CACHE_HINT),
    _refused("tool_name", _MESSAGE, "A", _NO_TOOLS, ""),
    _refused("audio", _MESSAGE, "O", _NO_MEDIA),
    _refused("images", _MESSAGE, "A", _NO_MEDIA, []),
    _refused("prefix", _MESSAGE, "x", "see continue_final_message", False),
    _refused("partial", _MESSAGE, "x", "see continue_final_message", False),
)

_PARTS = (
    _honoured("type", _PART, "OVL", "`text`, or `refusal` in an earlier answer"),
    _honoured("text", _PART, "OVL"),
    _honoured("refusal", _PART, "O"),
    _no_effect("id", _PART, "x", _CLIENTS),
    _no_effect("annotations", _PART, "x", _EARLIER),
    _no_effect("cache_control", _PART, "x", _CACHE_HINT),
    _no_effect("prompt_cache_breakpoint", _PART, "O", _CACHE_HINT),
)

_STREAM_OPTIONS = (
    _honoured("include_usage", _STREAM, "OVLA", "a last chunk holds the usage", False),
    _honoured("continuous_usage_stats", _STREAM, "V", "every chunk holds the usage so far", False),
    _refused("include_obfuscation", _STREAM, "O", "chunks are not padded by this server", False),
)

TABLE = FieldTable((*_GENERATION, *_NAMES, *_NO_EFFECT, *_REFUSED, *_MESSAGES, *_PARTS, *_STREAM_OPTIONS))

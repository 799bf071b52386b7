"""The doors of this server. A new one is a folder, and a line here."""

from __future__ import annotations

from rllm.api.doors.docs.routes import DOCS
from rllm.api.doors.live.routes import LIVE
from rllm.api.doors.models.routes import MODELS
from rllm.api.doors.openai_chat.routes import OPENAI_CHAT
from rllm.api.doors.openai_completions.routes import OPENAI_COMPLETIONS
from rllm.api.doors.operations.health import HEALTH
from rllm.api.doors.operations.status import STATUS
from rllm.api.doors.tokens.routes import TOKENS

DOORS = (
    OPENAI_CHAT,
    OPENAI_COMPLETIONS,
    MODELS,
    TOKENS,
    HEALTH,
    STATUS,
    DOCS,
    LIVE,
)
"""In the order of the OpenAPI document."""

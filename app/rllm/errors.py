"""Everything that can go wrong, as one tree.

    RllmError
    ├── BadRequest            the client's fault; names a field            400
    │   ├── PromptTooLong     prompt and max_tokens exceed the context     400
    │   ├── BodyTooLarge                                                   413
    │   ├── BodyTooSlow                                                    408
    │   ├── WrongMediaType                                                 415
    │   └── ConstraintRefused a schema or grammar that cannot be enforced  400
    ├── NotAuthorized         missing or wrong key                         401
    ├── Forbidden             not for this key, or under this name         403
    ├── NotFound              no such model or route                       404
    ├── Refused               the server protects itself; retry later
    │   ├── RateLimited       a key's own limit                            429
    │   └── Overloaded        queue full, draining, nothing healthy        503
    ├── TimedOut              a deadline passed after work had begun       504
    ├── EngineError           a worker failed while computing              500
    │   └── ConstraintBroken  one answer cannot go on as it must
    ├── StartError            the process cannot start; one line, exit 1   (CLI)
    │   ├── OutOfMemory       it might with fewer slots
    │   └── Miscomputed       it might with other kernels
    └── HubError              a model file could not be fetched or made    (CLI)

`rllm.api.http.errors` has the one table that turns these into a status and OpenAI's envelope.
Messages name the field, the value and the limit. They are shown to clients and hold no internals.
"""

from __future__ import annotations


class RllmError(Exception):
    """Root of the tree. ``str(error)`` is fit for a client."""

    code: str | None = None
    """Machine-readable, stable; OpenAI's where there is one."""
    param: str | None = None
    """The request field at fault, where there is one."""
    retry_after_s: float | None = None
    headers: tuple[tuple[str, str], ...] = ()
    """Further ones for the answer; they win over those of the error table."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        if param is not None:
            self.param = param
        if code is not None:
            self.code = code
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class BadRequest(RllmError):
    code = "invalid_value"


class PromptTooLong(BadRequest):
    code = "context_length_exceeded"


class BodyTooLarge(BadRequest):
    code = "body_too_large"


class BodyTooSlow(BadRequest):
    code = "body_timeout"


class WrongMediaType(BadRequest):
    code = "unsupported_media_type"


class ConstraintRefused(BadRequest):
    """What an answer must match is malformed, not supported, or too much."""

    code = "invalid_constraint"

    def __init__(self, path: str, reason: str, *, param: str | None = None) -> None:
        """``path``: where in the schema or grammar, "#" being all of it."""
        super().__init__(f"{path}: {reason}", param=param)
        self.path = path
        self.reason = reason


class NotAuthorized(RllmError):
    code = "invalid_api_key"


class Forbidden(RllmError):
    code = "forbidden"


class NotFound(RllmError):
    code = "not_found"


class Refused(RllmError):
    """Nothing was computed; the same request may be sent again later."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        bound: str = "",
    ) -> None:
        """``bound``: which of the limits behind one code was met; for metrics, one of a few words."""
        super().__init__(message, param=param, code=code, retry_after_s=retry_after_s)
        self.bound = bound


class RateLimited(Refused):
    code = "rate_limit_exceeded"


class Overloaded(Refused):
    code = "server_is_overloaded"


class TimedOut(RllmError):
    code = "timeout"


class EngineError(RllmError):
    code = "engine_error"


class ConstraintBroken(EngineError):
    code = "constraint_error"


class StartError(RllmError):
    """The server or a worker cannot start. The message is one line and says what to do."""

    code = "start_error"


class OutOfMemory(StartError):
    code = "out_of_memory"


class Miscomputed(StartError):
    """The model is loaded, and what it computes is wrong."""

    code = "miscomputed"


class HubError(RllmError):
    """A model file could not be fetched, checked or made. The message is one line and says what to do."""

    code = "model_file_error"

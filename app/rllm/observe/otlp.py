"""Whether requests are traced, and where to: `--otlp-endpoint`, or OpenTelemetry's own variables.

Imports nothing of OpenTelemetry before that is decided: an optional extra, and free where it is off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rllm import __version__
from rllm.errors import StartError

if TYPE_CHECKING:
    from rllm.observe.tracing import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def is_wanted(endpoint: str, environ: Mapping[str, str]) -> bool:
    if (
        environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environ.get("OTEL_TRACES_EXPORTER") == "none"
    ):
        return False
    return bool(endpoint or any(environ.get(name) for name in _ENDPOINTS))


def start_tracing(endpoint: str, environ: Mapping[str, str]) -> Tracing:
    """Spans go out from a thread of their own, in batches.

    Raises:
        StartError: the extra is not installed, or the protocol is one that we do not bring.
    """
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise StartError(f"--otlp-endpoint {endpoint}: must be http://HOST:PORT or https://HOST:PORT")
    protocol = next((value for name in _PROTOCOLS if (value := environ.get(name))), "http/protobuf")
    if protocol != "http/protobuf" and not endpoint:
        raise StartError(f"traces are sent as http/protobuf; the environment asks for {protocol}")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise StartError(
            "tracing needs packages: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        ) from None
    from rllm.observe.tracing import Tracing

    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    ours = {"service.version": __version__, **({} if named else {"service.name": "rllm"})}
    provider = TracerProvider(resource=Resource.create(ours), shutdown_on_exit=False)
    url = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return Tracing(provider)

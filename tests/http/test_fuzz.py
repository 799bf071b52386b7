from __future__ import annotations

import pytest
import requests
from fuzzing import fuzz, report
from http_api import CHAT, Api


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # schemathesis' own
def test_fuzzed_requests_do_no_harm(api: Api) -> None:
    """No 5xx, no hang, nothing undocumented; at least 30 % are answered; the next good request works."""
    outcome = fuzz(api.url, 200, timeout_s=20)
    assert not outcome.failures, report(outcome)
    assert outcome.share_ok >= 0.3, report(outcome)
    assert requests.post(f"{api.url}/v1/chat/completions", json=CHAT, timeout=20).status_code == 200
    assert api.service.idle.wait(10)

"""A shared prefix is computed once before a cell, and that is not measured."""

from __future__ import annotations

import urllib.request

from rllm_bench.load.client import Endpoint
from rllm_bench.load.direct import open_url
from rllm_bench.load.workload import Workload

_BEYOND = 10**7
"""Index of a unit that no cell reaches: its prefix is theirs, what follows is not."""


def warm_prefix(endpoint: Endpoint, workload: Workload, timeout_s: float = 60.0) -> None:
    """
    Raises:
        OSError: it was not answered.
    """
    for group in range(workload.spec.prefix_groups):
        index = _BEYOND - _BEYOND % workload.spec.prefix_groups + group
        data = endpoint.payload(workload.unit(index)[0])
        headers = {"Content-Type": "application/json", **endpoint.headers}
        request = urllib.request.Request(endpoint.url, data=data, headers=headers)
        with open_url(request, timeout_s) as response:
            response.read()

"""Measurements of rllm itself, one part each: `python -m micro.NAME --help` in an installed checkout."""

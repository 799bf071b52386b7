"""Command lines of rllm-bench, one module each: options in, one call, words out."""

"""The answer on one page: which quantization for how many users, from records, in English and Chinese."""

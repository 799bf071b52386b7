"""``python -m rllm_bench.quality``: loads llama.cpp before numpy, as its CUDA builds need."""

import rllm.backends.llama  # noqa: F401  # first, see above
from rllm_bench.commands.quality import quality

if __name__ == "__main__":
    quality()

from rllm_bench.study.cli import main

main()

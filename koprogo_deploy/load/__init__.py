"""The load test: profiles, a generator in a process of its own, and what it makes of the answers.

`run.execute` is the whole of it; the command line, `koprogo perf` and the benchmarks call it.
"""

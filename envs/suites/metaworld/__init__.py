"""Meta-World (Yu et al. 2020, arXiv 1910.10897): 50 tasks of a Sawyer arm.

Observations and success criteria are those of published VLA evaluations.
"""

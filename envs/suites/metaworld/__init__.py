"""Meta-World (Yu et al. 2020, arXiv 1910.10897): 50 tasks of a Sawyer arm, seen and judged as published VLAs are."""

"""How good a policy is, and whether a difference could be chance.

In come a policy and episodes; out go eval_info.json, success with intervals, blind controls, paired
comparisons and videos.
"""

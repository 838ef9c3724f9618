"""Usage and ablation of the action head's mixture-of-experts: `llamarm experts`.

In come a policy and episodes; out go experts.json, tables and a picture.
"""

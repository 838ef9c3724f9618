"""What the experts of the action head's mixture are for: `llamarm experts`.

In come a policy and episodes; out go experts.json, tables and a picture.
"""

"""Former names of options and fields, so that old command lines and files still work."""

from __future__ import annotations

from typing import Any

RENAMED = {
    "anchor_weight": "reference_kl_weight",
    "chunk_length": "chunk_size",
    "execute_steps": "n_action_steps",
    "film": "video",
    "films": "videos",
    "films_per_task": "videos_per_task",
    "renewal": "shrink_perturb",
    "no_see_failures": "no_auxiliary_failures",
    "see_failures": "auxiliary_failures",
    "seen": "auxiliary",
}
"""{old: new} names of fields, and of flags that switch one off; options on the command line have hyphens in place of
underscores."""


def with_new_names(content: Any) -> Any:
    """The content of a JSON file with current names as keys."""
    if isinstance(content, dict):
        return {RENAMED.get(key, key): with_new_names(value) for key, value in content.items()}
    if isinstance(content, list):
        return [with_new_names(value) for value in content]
    return content


def option_by_new_name(arg: str) -> str:
    """`--evaluation.execute-steps=2` as `--evaluation.n-action-steps=2`; anything else is returned unchanged."""
    if not arg.startswith("--"):
        return arg
    option, equals, value = arg.partition("=")
    names = [RENAMED.get(name.replace("-", "_"), name).replace("_", "-") for name in option[2:].split(".")]
    return f"--{'.'.join(names)}{equals}{value}"

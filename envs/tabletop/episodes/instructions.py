"""Names of things and directions in instructions, shared by all tasks."""

from __future__ import annotations

from envs.tabletop.episodes.episode import Episode

DIRECTION_WORDS = {
    "left": "to the left",
    "right": "to the right",
    "away": "away from the robot",
    "closer": "closer to the robot",
}


def name_object(episode: Episode, index: int) -> str:
    """A name such as "red cube"."""
    return f"{episode.colours[index]} {episode.shapes[index]}"


def name_receptacle(episode: Episode, index: int) -> str:
    """A name such as "blue bowl" or "blue zone"."""
    return f"{episode.receptacle_colours[index]} {episode.receptacle}"

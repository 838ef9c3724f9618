"""LIBERO's own tasks and arrangements in other words, colours and sizes: the variation "restyled", for training.

Things, goal and places are those of LIBERO, so only what is said and how things look is new: a sentence that LIBERO-PRO
says is drawn again, and no thing is as large as its resized ones.
"""

from __future__ import annotations

import re

import numpy as np

from envs.errors import UserError
from envs.seeds import seed_of
from envs.suites.libero.scene import InitialState, Scene, bddl_path
from envs.suites.libero.tasks import RESTYLED, TRAIN
from envs.suites.libero.wide.held_out import held_out, read_problem
from envs.suites.libero.wide.looks.colours import colours_of
from envs.suites.libero.wide.looks.sizes import declare, resized_in_place
from envs.suites.libero.wide.sentences import shortened
from envs.suites.libero.wide.vocabulary import NAMES

OWN_SENTENCE = 0.3
"""Probability of LIBERO's own sentence."""
_REPLACED = 0.7
"""Probability that a phrase is replaced by one of its equals."""
_MOST_SAMPLES = 200

PHRASES: tuple[tuple[str, ...], ...] = (
    ("pick up", "pick", "grab", "take", "lift", "get"),
    ("place it", "put it", "set it", "lay it"),
    ("put both", "place both", "set both"),
    ("put", "place", "set"),
    ("open", "pull open", "slide open"),
    ("push", "move", "slide"),
    ("turn on", "switch on", "start"),
    ("close it", "shut it", "push it shut"),
    ("next to", "beside", "by", "close to"),
    ("from table center", "in the middle of the table", "from the middle of the table", "at the center of the table"),
    ("on the stove and", "from the stove and", "that is on the stove and"),
    ("on the ramekin and", "from the ramekin and", "that is on the ramekin and"),
    ("on the cookies box and", "from the cookie box and", "that is on the box of cookies and"),
    ("on the wooden cabinet and", "from the cabinet and", "from the top of the cabinet and"),
    ("in the top layer of the wooden cabinet", "in the top drawer", "from the cabinet's top drawer"),
    ("middle layer of the drawer", "middle drawer", "middle drawer of the cabinet", "cabinet's middle drawer"),
    ("top layer of the drawer", "top drawer", "top drawer of the cabinet", "cabinet's top drawer"),
    ("bottom drawer of the cabinet", "bottom drawer", "cabinet's bottom drawer", "lowest drawer"),
    ("on the top of the drawer", "on the cabinet", "on top of the cabinet", "onto the cabinet"),
    ("to the front of the stove", "in front of the stove", "before the stove"),
    ("back compartment of the caddy", "caddy's back compartment", "back compartment"),
    ("in the basket", "into the basket", "inside the basket"),
    ("on the plate", "onto the plate", "on top of the plate"),
    ("on the bowl", "in the bowl", "into the bowl", "inside the bowl"),
    ("on the rack", "onto the rack", "on the wine rack", "onto the wine rack"),
    ("on the stove", "onto the stove", "on the burner", "on top of the stove"),
    ("put the bowl inside", "put the bowl in it", "place the bowl inside", "put the bowl into it"),
    ("in the microwave", "into the microwave", "inside the microwave"),
    ("to the right of the plate", "right of the plate", "on the plate's right side", "to its right"),
    ("cookies box", "cookie box", "box of cookies"),
    ("cream cheese box", *NAMES["cream_cheese"]),
    ("akita black bowl", *NAMES["akita_black_bowl"]),
    *NAMES.values(),
)
"""Phrases that say the same."""
_EQUALS = {phrase: equals for equals in reversed(PHRASES) for phrase in equals}
_PATTERN = re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, _EQUALS), key=len, reverse=True))})\b")


class RestyledScene(Scene):
    """A task's own scene of one number, in sizes of its own, whose episodes have words and colours of their own."""

    def __init__(self, task: str, number: int) -> None:
        """Compile, which takes 0.5 to 4 s.

        Args:
            task: a name in tasks.SUITES.
            number: tasks.scene_number of the seeds.
        """
        file = bddl_path(task, TRAIN)
        problem = read_problem(file)
        sizes = np.random.default_rng(seed_of("libero restyled sizes", task, number))
        super().__init__(task, RESTYLED, declare(file.read_text(), resized_in_place(problem, sizes)))
        self._own_sentence = self.instruction
        self._colours = colours_of(self, problem.categories)

    def initial_state(self, seed: int, attempt: int = 0) -> InitialState:
        """As Scene's, in other places from the second attempt on; sentence and colours are the episode's."""
        rng = np.random.default_rng(seed_of("libero restyled", self.task, int(seed)))
        self.instruction = reworded(self._own_sentence, rng)
        self._colours.draw(rng)
        return super().initial_state(seed if not attempt else seed_of(seed, attempt))

    def is_fair(self, start: InitialState) -> bool:
        """Whether nothing has fallen over or rolled away: the suite puts things of any size equally near together."""
        return self.has_stood(start)


def reworded(sentence: str, rng: np.random.Generator) -> str:
    """LIBERO's sentence in other words, sometimes as it is, and never one that LIBERO-PRO says for it alone.

    Raises:
        UserError: everything that was drawn is LIBERO-PRO's.
    """
    if rng.random() < OWN_SENTENCE:
        return sentence
    refused = held_out()

    def replaced(match: re.Match[str]) -> str:
        equals = _EQUALS[match.group()]
        return equals[int(rng.integers(len(equals)))] if rng.random() < _REPLACED else match.group()

    for _ in range(_MOST_SAMPLES):
        said = shortened(_PATTERN.sub(replaced, sentence), rng)
        if not refused.has_sentence(said):
            return said
    raise UserError(f"LIBERO-PRO has every sentence for {sentence!r}; leave the task out")

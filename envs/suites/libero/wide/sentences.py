"""Sentences for goals: what is asked, in other words than LIBERO-PRO's.

Words come from `vocabulary.py`; a sentence that LIBERO-PRO says is drawn again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from envs.errors import UserError
from envs.suites.libero.wide.held_out import HeldOut, Predicate, named_place
from envs.suites.libero.wide.vocabulary import NAMES, PLACES

_MOST_SAMPLES = 200
_LIFT = ("pick up", "grab", "take", "lift", "get")
_LAY = ("put", "place", "set")
_VERBS = {
    "open": ("open", "pull open", "slide open"),
    "close": ("close", "shut", "push in"),
    "turnon": ("turn on", "switch on", "start"),
}
_SHORT, _SHORTER = 0.3, 0.5
"""Probability that a sentence has no articles, and that it then has no "it" either."""


class Speaker:
    """Says goals of one scene."""

    def __init__(self, categories: Mapping[str, str], refused: HeldOut, rng: np.random.Generator) -> None:
        """
        Args:
            categories: {name: category} of all things in the scene.
        """
        self._categories, self._refused, self._rng = categories, refused, rng

    def say(self, goal: Sequence[Predicate], relations: Mapping[str, str]) -> str:
        """A sentence for a goal.

        Args:
            relations: {name: where it is}, of things that need it to be told from another of their kind; a word before
                the name such as "left", or words after it that begin with a preposition.

        Raises:
            UserError: everything that was drawn is LIBERO-PRO's.
        """
        for _ in range(_MOST_SAMPLES):
            sentence = shortened(self._sampled(goal, relations), self._rng)
            if not self._refused.has_sentence(sentence):
                return sentence
        raise UserError(f"LIBERO-PRO has every sentence for {goal}, such as {sentence!r}")

    def _sampled(self, goal: Sequence[Predicate], relations: Mapping[str, str]) -> str:
        placed = [predicate for predicate in goal if len(predicate) == 3]
        switched = [predicate for predicate in goal if len(predicate) == 2]
        if len(placed) == 2:
            return self._both(placed, relations)
        if not placed:
            return self._switch(switched[0])
        said = self._place(placed[0], relations)
        if not switched:
            return said
        kind, part = switched[0]
        if kind == "close":
            ending = ("close it", "shut it", "close the drawer" if "region" in part else "close the door")
            return f"{said} and {self._one(('', 'then '))}{self._one(ending)}"
        turn = self._switch(switched[0])
        with_it = f"{turn} and {self._one(_LAY)} the {self._thing(placed[0][1], relations)} on it"
        return self._one((with_it, f"{said} and {turn}"))

    def _place(self, predicate: Predicate, relations: Mapping[str, str]) -> str:
        _, name, target = predicate
        thing, place = self._thing(name, relations), self._where(target, relations)
        lifted = f"{self._one(_LIFT)} the {thing} and {self._one(_LAY)} it {place}"
        if " " in relations.get(name, ""):  # where it is must not be taken for where to
            return lifted
        return self._one((lifted, f"{self._one((*_LAY, 'move'))} the {thing} {place}"))

    def _both(self, placed: Sequence[Predicate], relations: Mapping[str, str]) -> str:
        (_, one, first), (_, other, second) = placed
        lay, ones, others = self._one(_LAY), self._thing(one, relations), self._thing(other, relations)
        if first != second:
            where, there = self._where(first, relations), self._where(second, relations)
            return f"{lay} the {ones} {where} and the {others} {there}"
        place = self._where(first, relations)
        return self._one(
            (
                f"{lay} both the {ones} and the {others} {place}",
                f"{lay} the {ones} and the {others} {place}",
                f"{self._one(_LIFT)} the {ones} and the {others} and {lay} them {place}",
            )
        )

    def _switch(self, predicate: Predicate) -> str:
        kind, name = predicate
        _, place = named_place(name, self._categories)
        nouns = {
            "microwave": ("microwave", "microwave door", "door of the microwave"),
            "flat_stove": ("stove", "burner"),
        }
        verb = self._one(_VERBS[kind])
        noun = self._one(nouns[place] if place in nouns else PLACES[place][1])
        if " " in verb and kind == "turnon" and self._rng.random() < 0.5:
            first, rest = verb.split(" ")
            return f"{first} the {noun} {rest}"
        return f"{verb} the {noun}"

    def _thing(self, name: str, relations: Mapping[str, str]) -> str:
        said = self._one(self._names(self._categories[name], NAMES[self._categories[name]]))
        return _related(said, relations.get(name))

    def _where(self, target: str, relations: Mapping[str, str]) -> str:
        thing, place = named_place(target, self._categories)
        prepositions, nouns = PLACES[place]
        noun = self._one(self._names(place, nouns))
        return f"{self._one(prepositions)} the {_related(noun, relations.get(thing or ''))}"

    def _names(self, category: str, names: Sequence[str]) -> Sequence[str]:
        """Those that no other category in the scene has."""
        others = {name for other in self._categories.values() if other != category for name in NAMES.get(other, ())}
        return [name for name in names if name not in others] or names

    def _one(self, choices: Sequence[str]) -> str:
        return choices[int(self._rng.integers(len(choices)))]


def shortened(sentence: str, rng: np.random.Generator) -> str:
    """The sentence as it is, or in note form: "take milk and put in basket"."""
    if rng.random() >= _SHORT:
        return sentence
    short = re.sub(r"\bthe ", "", sentence)
    return re.sub(r"\b(put|place|set|lay) it\b", r"\1", short) if rng.random() < _SHORTER else short


def _related(name: str, relation: str | None) -> str:
    if relation is None:
        return name
    return f"{relation} {name}" if " " not in relation else f"{name} {relation}"

"""Colours of surfaces, drawn per episode: tints, and things painted in one colour.

The renderer multiplies a texture by its material's colour, so a tint only darkens; what is dark is made light by paint,
which covers the texture.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.suites.libero.scene import Scene
from envs.suites.libero.wide.vocabulary import COLOURED, LABELLED

_CHANGED = 0.5
"""Probability that a thing, or the arena, has another colour."""
_PAINTED = 0.4
"""Probability that a thing with another colour is painted, and not tinted."""
_LABEL_PAINTED = 0.5
"""Probability that one of the things of LABELLED is painted."""
_DARKEST = 0.6
_MOST_OF_THINGS, _MOST_OF_ARENA = 0.85, 0.6
"""Saturation of a colour."""


class _Surface(NamedTuple):
    """What has one colour."""

    most: float
    materials: NDArray[np.int64]
    plain: NDArray[np.int64]  # geoms without a material
    covered: NDArray[np.int64]  # geoms that paint covers


class Colours:
    """The colours of a model's materials and geoms, as compiled and as drawn."""

    def __init__(
        self, model: mujoco.MjModel, things: Iterable[tuple[str, Iterable[int]]], arena: Iterable[int]
    ) -> None:
        """
        Args:
            things: category and geoms of each; those of COLOURED only become darker, and paint covers the label of
                at most one of LABELLED, so that the others' labels tell which it is.
            arena: geoms of the table, the floor and the walls; each material is tinted by itself.
        """
        self._model = model
        self._of_materials, self._of_geoms = model.mat_rgba.copy(), model.geom_rgba.copy()
        self._material_ids = model.geom_matid.copy()
        none = np.zeros(0, np.int64)
        self._surfaces: list[_Surface] = []
        self._labelled: list[_Surface] = []
        for category, of_thing in things:
            geoms = np.array(sorted(of_thing), np.int64)
            materials = model.geom_matid[geoms]
            most = 0.0 if category in COLOURED else _MOST_OF_THINGS
            covered = none if category in COLOURED else geoms[materials >= 0]
            surface = _Surface(most, np.unique(materials[materials >= 0]), geoms[materials < 0], covered)
            (self._labelled if category in LABELLED else self._surfaces).append(surface)
        for material in np.unique(model.geom_matid[sorted(arena)]):
            if material >= 0:
                self._surfaces.append(_Surface(_MOST_OF_ARENA, np.array([material]), none, none))

    def draw(self, rng: np.random.Generator) -> None:
        """Draw new colours; the model is rendered with them from now on."""
        model = self._model
        model.mat_rgba[:], model.geom_rgba[:] = self._of_materials, self._of_geoms
        model.geom_matid[:] = self._material_ids
        for surface in self._surfaces:
            colour, painted = _colour(rng, surface.most), rng.random() < _PAINTED
            if rng.random() < _CHANGED:
                self._change(surface, colour, painted)
        painted_label = self._label_to_paint(rng)
        for index, surface in enumerate(self._labelled):
            colour, painted = _colour(rng, surface.most), index == painted_label
            if painted or rng.random() < _CHANGED:
                self._change(surface, colour, painted)

    def _label_to_paint(self, rng: np.random.Generator) -> int | None:
        """Which of the labelled things is painted; None for none of them."""
        if not self._labelled or rng.random() >= _LABEL_PAINTED:
            return None
        return int(rng.integers(len(self._labelled)))

    def _change(self, surface: _Surface, colour: NDArray[np.float64], painted: bool) -> None:
        """Paint what paint may cover, and tint the rest."""
        model = self._model
        if painted and surface.covered.size:
            model.geom_matid[surface.covered] = -1
            model.geom_rgba[surface.covered, :3] = colour
        else:
            model.mat_rgba[surface.materials, :3] *= colour
            model.geom_rgba[surface.plain, :3] *= colour


def _colour(rng: np.random.Generator, most: float) -> NDArray[np.float64]:
    """Red, green and blue of a saturation up to `most`, [3]."""
    light, hue, saturation = rng.uniform(_DARKEST, 1.0), rng.random(), rng.random() * most
    return np.array(colorsys.hsv_to_rgb(hue, saturation, light))


def colours_of(scene: Scene, categories: Mapping[str, str]) -> Colours:
    """The colours of a compiled scene.

    Args:
        categories: {name: category} of all things in it.
    """
    model = scene.model
    of_things = {}
    for name, thing in (scene.objects | scene.fixtures).items():
        of_things[name] = np.flatnonzero(scene.bodies_of(thing.body_id)[model.geom_bodyid])
    others = np.ones(model.ngeom, bool)
    others[np.concatenate(list(of_things.values()))] = False
    others[[geom for geom in range(model.ngeom) if scene.is_of_robot(geom)]] = False
    named = [(categories[name], geoms) for name, geoms in of_things.items()]
    return Colours(model, named, np.flatnonzero(others))

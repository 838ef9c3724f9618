"""Words, pairs, looks and poses: what training sees and what is held out do not meet."""

from __future__ import annotations

import re
import string
from dataclasses import fields

import numpy as np
import pytest
from tables import spec

from envs.tabletop.episodes import variations
from envs.tabletop.episodes.episode import Episode
from envs.tabletop.episodes.layout import sample_episode
from envs.tabletop.episodes.variations import (
    HELD_OUT_EXECUTION,
    HELD_OUT_PAIRS,
    HELD_OUT_VISION,
    SYNONYMS,
    TRAIN_EXECUTION,
    TRAIN_VISION,
)
from envs.tabletop.scene.scene import TABLE_MATERIALS
from envs.tabletop.tasks import TASKS
from envs.types import MAX_INSTRUCTION_CHARS

OBJECT_TASKS = [name for name, task in TASKS.items() if task.kind == "objects"]
FAMILY = {
    "vision": {"look"},
    "paraphrase": {"instruction"},
    "synonym": {"instruction"},
    "execution": {"pose"},
    "combination": {"instruction", "colours", "shapes", "receptacle_colours"},
}
"""Variation: the only fields of an episode that it may change."""


def sampled(task: str, seed: int, variation: str = "train") -> Episode:
    return sample_episode(spec(task, seed, variation), TASKS[task], num_joints=7)


def pair_of_target(episode: Episode) -> tuple[str, str]:
    return episode.colours[episode.target], episode.shapes[episode.target]


def held_out_names_in(sentence: str) -> list[tuple[str, str]]:
    return [pair for pair in HELD_OUT_PAIRS if re.search(rf"\b{pair[0]} {pair[1]}\b", sentence)]


@pytest.mark.parametrize("name", TASKS)
def test_paraphrase_banks_are_large_disjoint_and_a_quarter_is_held_out(name: str) -> None:
    train, held_out = TASKS[name].paraphrases, TASKS[name].held_out_paraphrases
    assert len(train) + len(held_out) >= 8
    assert len(held_out) / (len(train) + len(held_out)) >= 0.25
    assert len(set(train) | set(held_out)) == len(train) + len(held_out)


DECIDES = {
    "reach": {"object"},
    "lift": {"object"},
    "sort": {"object"},
    "pick_place": {"object", "bowl"},
    "place": {"object", "zone"},
    "push": {"object", "zone"},
    "stack": {"object", "base"},
    "slide": {"object", "direction"},
    "open_drawer": {"colour"},
    "close_drawer": {"colour"},
    "press_button": {"colour"},
    "turn_dial": {"side"},
}
"""Task: what its instruction must say, for it decides the episode."""


@pytest.mark.parametrize("name", TASKS)
def test_every_template_is_filled_with_short_printable_words(name: str) -> None:
    task = TASKS[name]
    for seed in range(6):
        episode = sampled(name, seed)
        words = task.words(episode)
        for template in (*task.paraphrases, *task.held_out_paraphrases):
            slots = {field for _, field, _, _ in string.Formatter().parse(template) if field}
            assert slots == DECIDES[name], f"{template!r} leaves out what decides the episode"
            sentence = template.format(**words)
            assert 0 < len(sentence) <= MAX_INSTRUCTION_CHARS
            assert sentence.isascii()
            assert sentence.isprintable()
            assert "{" not in sentence
            assert all(words[slot] in sentence for slot in slots)


@pytest.mark.parametrize("name", TASKS)
def test_training_uses_training_paraphrases_and_the_paraphrase_variation_held_out_ones(name: str) -> None:
    task = TASKS[name]
    found: dict[str, set[str]] = {"train": set(), "paraphrase": set()}
    for variation, bank in (("train", task.paraphrases), ("paraphrase", task.held_out_paraphrases)):
        for seed in range(60):
            episode = sampled(name, seed, variation)
            matching = [t for t in bank if t.format(**task.words(episode)) == episode.instruction]
            assert matching, episode.instruction
            found[variation].update(matching)
        assert found[variation] == set(bank), "every template is sampled at some time"


@pytest.mark.parametrize("name", TASKS)
def test_synonyms_never_occur_in_training_and_replace_every_word_that_has_one(name: str) -> None:
    unseen = {word for synonyms in SYNONYMS.values() for word in synonyms}
    for seed in range(60):
        trained, varied = (sampled(name, seed, variation).instruction.split() for variation in ("train", "synonym"))
        assert not unseen & set(trained)
        assert not SYNONYMS.keys() & set(varied)
        for word, said in zip(trained, varied, strict=True):
            assert said in SYNONYMS.get(word, (word,))


def test_no_synonym_has_two_meanings() -> None:
    names = {"knob": "dial"}
    stands_for = {
        word: {names.get(w, w) for w, s in SYNONYMS.items() if word in s} for s in SYNONYMS.values() for word in s
    }
    assert all(len(words) == 1 for words in stands_for.values())
    assert not stands_for.keys() & SYNONYMS.keys()


def test_held_out_pairs_are_never_named_in_training_and_always_acted_on_in_their_variation() -> None:
    lying_about = set()
    for task in OBJECT_TASKS:
        for seed in range(40):
            for variation in ("train", "vision", "paraphrase", "execution"):
                episode = sampled(task, seed, variation)
                assert not held_out_names_in(episode.instruction), (task, variation, seed, episode.instruction)
            lying_about |= set(zip(episode.colours, episode.shapes, strict=True)) & HELD_OUT_PAIRS
            unseen = sampled(task, seed, "combination")
            assert held_out_names_in(unseen.instruction) == [pair_of_target(unseen)], (task, seed)
    assert lying_about == HELD_OUT_PAIRS


def test_sort_has_a_bowl_of_the_targets_colour_and_one_of_another() -> None:
    for variation in ("train", "combination"):
        for seed in range(80):
            episode = sampled("sort", seed, variation)
            matching = [c == episode.colours[episode.target] for c in episode.receptacle_colours]
            assert matching.index(True) == episode.goal
            assert matching.count(True) == 1


@pytest.mark.parametrize("variation", FAMILY)
@pytest.mark.parametrize("name", TASKS)
def test_a_variation_changes_only_its_own_family(name: str, variation: str) -> None:
    changed = set()
    for seed in range(30):
        train, varied = sampled(name, seed), sampled(name, seed, variation)
        for field in (f.name for f in fields(Episode) if f.name != "spec"):
            if not np.array_equal(getattr(train, field), getattr(varied, field)):
                changed.add(field)
    assert changed <= FAMILY[variation]
    assert changed or (variation == "combination" and TASKS[name].kind == "fixtures")


@pytest.mark.parametrize("name", TASKS)
def test_seeds_and_tasks_give_different_episodes(name: str) -> None:
    looks = {sampled(name, seed).look for seed in range(20)}
    assert len(looks) == 20
    other = next(task for task in TASKS if task != name)
    assert sampled(name, 0).look != sampled(other, 0).look


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        (TRAIN_VISION.table_brightness, HELD_OUT_VISION.table_brightness),
        (TRAIN_VISION.light_elevation_rad, HELD_OUT_VISION.light_elevation_rad),
        (TRAIN_VISION.light_diffuse, HELD_OUT_VISION.light_diffuse),
        (TRAIN_VISION.camera_shift_m, HELD_OUT_VISION.camera_shift_m),
        (TRAIN_VISION.num_distractors, HELD_OUT_VISION.num_distractors),
        (TRAIN_EXECUTION.object_yaw_rad, HELD_OUT_EXECUTION.object_yaw_rad),
        (TRAIN_EXECUTION.base_height_m, HELD_OUT_EXECUTION.base_height_m),
    ],
)
def test_train_and_held_out_ranges_do_not_overlap(train: tuple[float, float], held_out: tuple[float, float]) -> None:
    assert train[0] <= train[1] and held_out[0] <= held_out[1]
    assert train[1] < held_out[0] or held_out[1] < train[0]


def test_table_materials_do_not_overlap_and_all_exist() -> None:
    train, held_out = set(TRAIN_VISION.table_materials), set(HELD_OUT_VISION.table_materials)
    assert not train & held_out
    assert train | held_out == set(TABLE_MATERIALS)


def test_sampled_looks_and_poses_lie_in_their_ranges() -> None:
    for held_out, vision, execution in (
        (False, TRAIN_VISION, TRAIN_EXECUTION),
        (True, HELD_OUT_VISION, HELD_OUT_EXECUTION),
    ):
        for seed in range(100):
            rng = np.random.default_rng(seed)
            look = variations.sample_look(rng, held_out)
            shift_m = np.linalg.norm(np.subtract(look.camera_pos_m, variations.FRONT_CAMERA_POS_M))
            assert look.table_material in vision.table_materials
            assert vision.camera_shift_m[0] <= shift_m <= vision.camera_shift_m[1] + 1e-12
            assert vision.light_diffuse[0] <= look.light_diffuse <= vision.light_diffuse[1]
            assert vision.num_distractors[0] <= len(look.distractor_xy_m) <= vision.num_distractors[1]
            elevation = np.arcsin(-look.light_dir[2])
            assert vision.light_elevation_rad[0] - 1e-9 <= elevation <= vision.light_elevation_rad[1] + 1e-9
            pose = variations.sample_pose(rng, held_out, 3, 7)
            assert execution.base_height_m[0] <= abs(pose.base_height_m) <= execution.base_height_m[1]
            for yaw in pose.object_yaw_rad:
                assert execution.object_yaw_rad[0] <= abs(yaw) <= execution.object_yaw_rad[1]


def test_things_on_a_table_have_different_names() -> None:
    for task in OBJECT_TASKS:
        for seed in range(40):
            episode = sampled(task, seed)
            names = [episode.object_name(i) for i in range(len(episode.colours))]
            assert len(set(names)) == len(names)
            assert len(set(episode.receptacle_colours)) == len(episode.receptacle_colours)


def test_a_layout_does_not_determine_the_task() -> None:
    for kind in ("objects", "fixtures"):
        tasks = [task for task in TASKS.values() if task.kind == kind]
        assert len(tasks) >= 2
    shapes = [sampled("pick_place", seed).shapes.count("cube") for seed in range(40)]
    assert len(set(shapes)) > 1

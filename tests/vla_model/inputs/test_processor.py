"""The processor: both directions, its errors, and the tokenizer that reads instructions."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import STATISTICS, WORLD_SPEC, observe, tiny_processor, vector

from benchmarks.make_tokenizer import sentences
from envs.types import CameraSpec, Observation
from vla_model.files.deployment import Deployment
from vla_model.inputs.processor import Processor


def test_states_are_normalised_and_outliers_clipped() -> None:
    state = np.array([[0.1, 0.2, 0.3, 0.4], [0.6, -0.4, 1e6, -1e6]], np.float32)
    encoded = tiny_processor().encode_state(state)
    torch.testing.assert_close(encoded, torch.tensor([[0.0, 0, 0, 0], [1.0, -1.0, 10.0, -10.0]]))


def test_decoding_undoes_the_normalisation_of_actions() -> None:
    processor, actions = tiny_processor(), np.random.default_rng(0).uniform(-1, 1, (2, 4, 3)).astype(np.float32)
    decoded = processor.decode(processor.normalise_actions(actions))
    assert decoded.dtype == torch.float32
    np.testing.assert_allclose(decoded, actions, atol=1e-6)


def test_decoded_actions_are_clipped_to_their_range() -> None:
    decoded = tiny_processor().decode(torch.tensor([[[9.0, -9.0, 0.0]]], dtype=torch.bfloat16))
    np.testing.assert_allclose(decoded, [[[1.0, -1.0, -0.1]]], atol=1e-6)


def test_localization_is_normalised_by_its_statistics() -> None:
    normalised = tiny_processor().normalise_localization(np.array([[0.4, -0.4]], np.float32))
    torch.testing.assert_close(normalised, torch.tensor([[1.0, -2.0]]))


def test_labels_of_fallen_objects_are_clipped() -> None:
    normalised = tiny_processor().normalise_localization(np.array([[-100.0, 0.4]], np.float32))
    torch.testing.assert_close(normalised, torch.tensor([[-5.0, 2.0]]))


def test_frames_are_passed_on_unchanged() -> None:
    observation = observe(3)
    inputs = tiny_processor().encode(observation)
    for name, frames in observation["frames"].items():
        assert inputs.frames[name].dtype == torch.uint8
        np.testing.assert_array_equal(inputs.frames[name].numpy(), frames)


def still(**std: list[float]) -> Processor:
    """A processor of data in which some numbers moved as said."""
    names = {"state": "observation.state", "action": "action", "localization": "label.localization"}
    changed = {names[name]: STATISTICS[names[name]] | {"std": values} for name, values in std.items()}
    return Processor.from_statistics(WORLD_SPEC, STATISTICS | changed)


@pytest.mark.parametrize("std", [0.0, 1e-9, 0.99e-4])
def test_a_state_element_constant_in_training_is_ignored(std: float) -> None:
    processor = still(state=[0.5, 0.6, 0.7, std])  # its range is -1 to 1: under 1e-4 nothing moved
    for off in (0.0, 1e-3, 0.02, 5.0):
        encoded = processor.encode_state([[0.6, 0.2, 0.3, 0.4 + off]])
        torch.testing.assert_close(encoded, torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert processor.warnings([]) == ["elements of the state that are constant in the data are ignored: opening"]


def test_a_state_element_of_small_variance_is_normalised_in_any_unit() -> None:
    assert still(state=[0.5, 0.6, 0.7, 5e-4]).encode_state([[0.1, 0.2, 0.3, 0.401]])[0, 3] == pytest.approx(2.0, 1e-3)
    kilometres = replace(WORLD_SPEC, state=replace(WORLD_SPEC.state, low=(-1e-3,) * 4, high=(1e-3,) * 4))
    moved = {"observation.state": {"mean": [0.0] * 4, "std": [2e-7, 2e-6, 1e-5, 0.0]}}
    encoded = Processor.from_statistics(kilometres, STATISTICS | moved).encode_state([[1e-5] * 4])
    torch.testing.assert_close(encoded, torch.tensor([[10.0, 5.0, 1.0, 0.0]]))
    largest = float(np.finfo(np.float32).max)
    unbounded = replace(WORLD_SPEC, state=replace(WORLD_SPEC.state, low=(-largest,) * 4, high=(largest,) * 4))
    encoded = Processor.from_statistics(unbounded, STATISTICS | moved).encode_state([[1e-5] * 4])
    torch.testing.assert_close(encoded, torch.tensor([[0.0, 5.0, 1.0, 0.0]]))


def test_a_constant_action_keeps_its_value_and_a_constant_label_is_ignored() -> None:
    processor = still(action=[0.5, 0.0, 1.0], localization=[0.0, 0.2])
    assert processor.decode(torch.full((1, 3), 3.0))[0].tolist() == pytest.approx([1.0, 0.1, 1.0])
    assert processor.normalise_actions([0.5, 0.9, -0.1]).tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert processor.normalise_localization([[9.0, 0.4]]).tolist() == [[0.0, 2.0]]
    assert processor.warnings([]) == ["elements of the action that are constant in the data always keep that value: dy"]


def test_constant_elements_are_saved_and_read_from_older_files(tmp_path: Path) -> None:
    still(state=[0.5, 0.6, 0.7, 0.0]).save(tmp_path)
    assert Processor.load(tmp_path).normalisations["state"].constant == [3]
    content = json.loads((tmp_path / "processor.json").read_text())
    del content["format"]  # where whatever moved by less than a thousandth was written as one
    content["statistics"]["state"]["std"] = [0.5, 0.6, 2e-3, 1e-3]
    (tmp_path / "processor.json").write_text(json.dumps(content))
    before = Processor.load(tmp_path).normalisations["state"]
    np.testing.assert_array_equal(before.std, np.array([0.5, 0.6, 2e-3, 0.0], np.float32))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"action": None}, "statistics of 'action' are missing"),
        ({"action": {"mean": [0.0] * 3}}, "statistics of 'action' have no 'std'"),
        ({"action": {"mean": [0.0] * 2, "std": [1.0] * 3}}, "mean of 'action' must be 3 finite numbers"),
        ({"action": {"mean": [], "std": []}}, "mean of 'action' must be 3 finite numbers"),
        ({"observation.state": {"mean": [0.0] * 4, "std": [1.0, np.nan, 1.0, 1.0]}}, "std of 'observation.state'"),
        ({"observation.state": {"mean": [0.0] * 4, "std": [1.0, -1.0, 1.0, 1.0]}}, "must not be negative"),
        ({"action": {"mean": [0.0] * 3, "std": [1.0, np.inf, 1.0]}}, "std of 'action' must be 3 finite numbers"),
        ({"label.localization": None}, "'label.localization' are missing"),
    ],
)
def test_statistics_that_are_missing_or_unusable_are_refused(changed: dict[str, Any], message: str) -> None:
    statistics = {name: given for name, given in (STATISTICS | changed).items() if given is not None}
    with pytest.raises(ValueError, match=message):
        Processor.from_statistics(WORLD_SPEC, statistics)


def test_a_world_without_localization_needs_no_statistics_of_it() -> None:
    statistics = {name: STATISTICS[name] for name in ("observation.state", "action")}
    processor = Processor.from_statistics(replace(WORLD_SPEC, localization=vector()), statistics)
    assert processor.normalise_localization(np.zeros((5, 0), np.float32)).shape == (5, 0)


def test_the_processors_own_world_passes_the_check() -> None:
    more_cameras = (*WORLD_SPEC.cameras, CameraSpec(name="ceiling", height=9, width=9))
    tiny_processor().check(replace(WORLD_SPEC, cameras=more_cameras))


def test_the_check_lists_every_difference() -> None:
    other = replace(
        WORLD_SPEC,
        cameras=(CameraSpec(name="front", height=64, width=48),),
        state=vector("x", "y", "z", "angle"),
        action=replace(WORLD_SPEC.action, units=("m", "rad", "m")),
        control_dt_s=0.05,
    )
    with pytest.raises(ValueError, match="made for another world") as raised:
        tiny_processor().check(other)
    message = str(raised.value)
    for part in (
        "camera 'front' is 64x48, expected 32x48",
        "camera 'wrist' is missing; cameras: front",
        "state names are ('x', 'y', 'z', 'angle')",
        "action units are ('m', 'rad', 'm')",
        "control_dt_s is 0.05, expected 0.1",
        "\nuse it in a world like its own, or train a policy for this world",
    ):
        assert part in message
    deployed = tiny_processor()
    deployed.deployment = Deployment(n_action_steps=2, world="tabletop")
    with pytest.raises(ValueError, match="\nuse it in tabletop, or train a policy for this world"):
        deployed.check(other)


def test_observations_of_another_shape_are_refused() -> None:
    processor, good = tiny_processor(), observe(2)
    frames = good["frames"]
    no_wrist = Observation(**(good | {"frames": {"front": frames["front"]}}))
    with pytest.raises(ValueError, match="camera 'wrist' is not observed; cameras: front"):
        processor.encode(no_wrist)
    with pytest.raises(ValueError, match=r"camera 'wrist' gives torch.float32 \(2, 16, 16, 3\)"):
        processor.encode_frames(frames | {"wrist": frames["wrist"].astype(np.float32)})
    with pytest.raises(ValueError, match=r"state has shape \(2, 3\), expected \(B, 4\)"):
        processor.encode(Observation(**(good | {"state": good["state"][:, :3]})))


def test_a_processor_round_trips_through_its_files(tmp_path: Path) -> None:
    ours = tiny_processor()
    ours.save(tmp_path)
    theirs = Processor.load(tmp_path)
    assert theirs.world_spec == WORLD_SPEC
    for name, normalisation in ours.normalisations.items():
        np.testing.assert_array_equal(theirs.normalisations[name].mean, normalisation.mean)
        np.testing.assert_array_equal(theirs.normalisations[name].std, normalisation.std)
    text = ("Push the crimson cube!",)
    for a, b in zip(ours.encode_instructions(text), theirs.encode_instructions(text), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("world_spec"),
        lambda content: content.update(world_spec=5),
        lambda content: content.update(format=99),
        lambda content: content.update(instruction_length="long"),
        lambda content: content.update(deployment=[2]),
        lambda content: content["statistics"].pop("state"),
        lambda content: content["statistics"].update(action=[1.0]),
        lambda content: content["statistics"]["action"].update(std="x"),
        lambda content: content["statistics"]["action"].update(std=[float("nan")] * 3),
    ],
)
def test_a_processor_file_that_lacks_or_misuses_a_part_is_named(tmp_path: Path, change: Any) -> None:
    tiny_processor().save(tmp_path)
    content = json.loads((tmp_path / "processor.json").read_text())
    change(content)
    (tmp_path / "processor.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{tmp_path}/processor.json is damaged.*; take another copy") as caught:
        Processor.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_file_of_something_else_is_named(tmp_path: Path) -> None:
    tiny_processor().save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json is damaged \(Model missing"):
        Processor.load(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("instruction_length",), 0, "instruction_length is 0, expected 1 to 10000 tokens"),
        (("instruction_length",), "24", "instruction_length is '24', expected 1 to 10000 tokens"),
        (("world_spec",), [], "its world_spec lacks or misuses "),
        (("world_spec", "state"), None, "its world_spec lacks or misuses "),
        (("world_spec", "state", "low", 0), "0", "its world_spec has invalid values: '0' is a bound of the state"),
        (("world_spec", "action", "names", 0), 7, "7 is a name, a unit or a camera of the action"),
        (("world_spec", "control_dt_s"), 0.0, "control_dt_s is 0.0"),
        (("world_spec", "control_dt_s"), True, "control_dt_s is True"),
        (("world_spec", "cameras", 0, "height"), -4, "a camera 'front' of -4x48 pixels"),
        (("world_spec", "cameras", 0), "overhead", "its world_spec lacks or misuses "),
        (("statistics", "state"), 3, "processor.json is damaged ("),
        (("statistics", "state", "mean", 0), {}, "processor.json is damaged ("),
    ],
)
def test_a_processor_file_with_invalid_values_is_rejected(
    tmp_path: Path, place: tuple[Any, ...], value: object, message: str
) -> None:
    tiny_processor().save(tmp_path)
    file = tmp_path / "processor.json"
    part = content = json.loads(file.read_text())
    for key in place[:-1]:
        part = part[key]
    assert part[place[-1]] != value
    part[place[-1]] = value
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(message)):
        Processor.load(tmp_path)


def test_instructions_begin_with_a_token_and_are_padded_and_masked() -> None:
    ids, mask = tiny_processor().encode_instructions(("lift the red cube", ""))
    assert ids.shape == mask.shape == (2, 24)
    assert mask.sum(1).tolist() == [5, 1]
    assert ids[0, 0] == ids[1, 0] == 1
    assert ids[~mask].unique().tolist() == [0]


def test_common_words_of_instructions_are_single_tokens() -> None:
    words = "red crimson cube drawer bowl push lift stack left clockwise slowly two"
    _, mask = tiny_processor().encode_instructions((words,))
    assert mask.sum().item() == len(words.split()) + 1


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("  PUSH the Red cube ", "push the red cube"),
        ("Push the red cube. ", "push the red cube"),
        ("open the cabinet\u2019s \u201cmiddle\u201d drawer!", "open the cabinet's middle drawer"),
        ("put the yellow\u2013white mug on the plate", "put the yellow white mug on the plate"),
        ("turn the dial counter-clockwise", "turn the dial counter clockwise"),
    ],
)
def test_how_a_sentence_is_typed_does_not_matter(typed: str, plain: str) -> None:
    ids, _ = tiny_processor().encode_instructions((typed, plain))
    assert torch.equal(ids[0], ids[1])


def test_numbers_keep_their_points_signs_and_hyphens() -> None:
    texts = ("move 0.5 m", "move 05 m", "turn -90 degrees", "turn 90 degrees", "box-4", "box 4")
    ids, _ = tiny_processor().encode_instructions(texts)
    assert len({tuple(row.tolist()) for row in ids}) == len(texts)


def test_any_text_is_encoded_distinguishably() -> None:
    texts = ("zażółć gęślą", "推 红色 方块", "\x00\t\n", "🤖🤖", "xqzzy blorp", "push " * 99)
    ids, mask = tiny_processor().encode_instructions(texts)
    assert mask.any(1).all()
    assert len({tuple(row.tolist()) for row in ids}) == len(texts)


def test_most_instructions_fit_without_truncation() -> None:
    _, mask = tiny_processor().encode_instructions(sentences(500, seed=7))
    assert (mask.sum(1) < 24).float().mean() > 0.95


def test_tokens_survive_a_round_trip_to_text() -> None:
    tokenizer = tiny_processor().tokenizer
    text = "put the vermilion dodecahedron beside box-4"
    assert tokenizer.decode(tokenizer.encode(text).ids).strip() == text


LONG = (
    "first move the arm slowly to the far left corner of the wooden table near the window and then go on, " + "on, " * 5
)


def test_truncated_and_thereby_equal_instructions_are_reported_once() -> None:
    processor = tiny_processor()
    sentences = [
        "lift it",
        LONG + "push the red cube",
        LONG + "lift the blue ball",
        "lift it",
        LONG + "lift the blue ball",
    ]
    cut, same = processor.warnings(sentences)
    assert cut.count("is longer than the 24 tokens that the policy reads: it reads 'first move") == 2
    assert "--model.instruction-length reads more" in cut
    assert (
        same == f"instructions that are equal once truncated: {LONG + 'push the red cube'!r}; "
        f"{LONG + 'lift the blue ball'!r}"
    )
    assert processor.warnings(["lift it", "Lift it", "push it"]) == []
    assert tiny_processor(60).warnings(sentences) == []


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("", "expected text that says what to do"),
        (" \n", "expected text that says what to do"),
        (3, "is 3, expected text"),
        (None, "is None, expected text"),
        ("ab" * 200, "has 400 characters, expected 1 to 256"),
        ("lift \ud83d", "lone surrogate"),
        (LONG + "lift it", "longer than the 24 tokens that the policy reads"),
    ],
)
def test_invalid_and_too_long_instructions_are_rejected(instruction: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_processor().check_instruction(instruction)
    tiny_processor().check_instruction("lift it")


def test_action_limits_are_normalised_and_arbitrary_for_a_constant_action() -> None:
    limits = still(action=[0.5, 0.0, 1.0]).action_limits()
    assert limits[0] == pytest.approx([-2.0, 2.0])  # mean 0, std 0.5
    assert limits[1] == [-1.0, 1.0]
    assert limits[2] == pytest.approx([-0.9, 1.1])  # mean -0.1, std 1

"""Vision: every kind does what a policy needs, and a model from a folder sees as transformers has it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import STATISTICS, WORLD_SPEC, observe, tiny_config
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig

from vla_model.create import check_model, create_policy, shape_of
from vla_model.inputs.inputs import fake_inputs
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.sizes import ModelConfig
from vla_model.vision.image_encoder import ImageEncoder, encoder_shape, load_image_encoder, vit_config
from vla_model.vision.resampler import Queries
from vla_model.weights.checkpoint import load_policy, save_policy
from vla_model.weights.config import FineTuning
from vla_model.weights.finetune import prepare

SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 8,
}
LARGER: dict[str, Any] = SHAPE | {"image_size": 40}
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 8,
}
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
FAMILIES: dict[str, PretrainedConfig] = {
    "siglip": AutoConfig.for_model("siglip", text_config=TEXT, vision_config=SHAPE),
    "siglip_vision_model": AutoConfig.for_model("siglip_vision_model", **SHAPE),
    "clip": AutoConfig.for_model("clip", text_config=TEXT, vision_config=SHAPE, projection_dim=16),
    "clip_vision_model": AutoConfig.for_model("clip_vision_model", **SHAPE),
    "dinov2": AutoConfig.for_model("dinov2", **LARGER),
    "vit": vit_config(24, 24, channels=16, layers=2, patch_px=8),
}
every_family = pytest.mark.parametrize("family", FAMILIES)
KINDS = ("conv", "vit", "siglip", "clip", "dinov2")


def folder_of(root: Path, family: str, **preprocessing: Any) -> Path:
    """A model's folder as the hub has it, with random weights."""
    folder = root / family
    torch.manual_seed(1)
    AutoModel.from_config(FAMILIES[family]).save_pretrained(folder)
    content = {"do_normalize": True, "image_mean": MEAN, "image_std": STD, "size": {"height": 24, "width": 24}}
    (folder / "preprocessor_config.json").write_text(json.dumps(content | preprocessing))
    return folder


def create(root: Path, kind: str, **fields: Any) -> tuple[VLA, Processor]:
    """A policy that sees with that kind."""
    vision = kind if kind in ("conv", "vit") else str(folder_of(root, kind))
    sizes: dict[str, Any] = {"hidden_size": 32, "num_layers": 2, "vision_channels": 16, "vision_layers": 2}
    torch.manual_seed(0)
    return create_policy(ModelConfig(vision=vision, **(sizes | fields)), WORLD_SPEC, STATISTICS)


@every_family
def test_a_folder_becomes_an_encoder_that_sees_what_transformers_sees(family: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, family)
    loaded, shape = load_image_encoder(folder), encoder_shape(folder)
    assert (shape.mean, shape.std, shape.size_px) == (MEAN, STD, [24, 24])
    encoder = ImageEncoder(shape.config, shape.size_px, shape.mean, shape.std, loaded).eval()
    frames = torch.randint(0, 256, (2, 24, 24, 3), dtype=torch.uint8)
    whole = AutoModel.from_pretrained(folder).eval()
    reference = getattr(whole, "vision_model", whole)
    pixels = (frames / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        hidden = reference(pixel_values=pixels.permute(0, 3, 1, 2)).last_hidden_state[:, -9:]
        seen = encoder(frames)
    torch.testing.assert_close(seen, hidden.mT.unflatten(2, (3, 3)), atol=1e-5, rtol=1e-5)


def test_frames_of_another_size_are_resized_whole_and_lit_before_they_are_normalised(tmp_path: Path) -> None:
    loaded = load_image_encoder(folder_of(tmp_path, "siglip_vision_model"))
    encoder = ImageEncoder(loaded.config, [24, 24], MEAN, STD, loaded).eval()
    frames, light = torch.randint(0, 120, (1, 32, 48, 3), dtype=torch.uint8), torch.tensor([[2.0, 1.0, 0.5]])
    pixels = (frames.permute(0, 3, 1, 2).float() / 255) * light[:, :, None, None]
    pixels = F.interpolate(pixels, (24, 24), mode="bilinear", antialias=True)
    pixels = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        expected = loaded(pixel_values=pixels).last_hidden_state
        torch.testing.assert_close(encoder(frames, light).flatten(2).mT, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["siglip", "clip", "dinov2"])
def test_the_image_processors_size_is_taken_and_positions_are_interpolated(family: str, tmp_path: Path) -> None:
    size: dict[str, Any] = {
        "size": {"shortest_edge": 40},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
    }
    asked = ModelConfig(vision=str(folder_of(tmp_path, family, **size)))
    model, _ = create_policy(asked, WORLD_SPEC, STATISTICS)
    assert model.config.image_size_px == shape_of(asked, WORLD_SPEC).image_size_px == [32, 32]
    assert model.image_encoder is not None
    assert model.image_encoder(torch.zeros(1, 32, 48, 3, dtype=torch.uint8)).shape == (1, 16, 4, 4)


def test_a_processor_that_does_not_normalise_is_heard(tmp_path: Path) -> None:
    shape = encoder_shape(folder_of(tmp_path, "dinov2", do_normalize=False))
    assert (shape.mean, shape.std) == ([0.0] * 3, [1.0] * 3)


def test_an_encoder_that_was_saved_in_bfloat16_is_trained_and_kept_in_float32(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "siglip")
    AutoModel.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    model, processor = create_policy(ModelConfig(vision=str(folder)), WORLD_SPEC, STATISTICS)
    assert model.image_encoder is not None
    with torch.no_grad():
        for weight in model.image_encoder.parameters():
            weight.add_(1e-4)
    save_policy(tmp_path / "policy", model, processor)
    again, _ = load_policy(tmp_path / "policy")
    assert again.image_encoder is not None
    for ours, theirs in zip(model.image_encoder.parameters(), again.image_encoder.parameters(), strict=True):
        assert ours.dtype == theirs.dtype == torch.float32
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("queries", [0, 3])
def test_every_kind_learns_is_saved_and_acts(kind: str, queries: int, tmp_path: Path) -> None:
    model, processor = create(tmp_path, kind, image_queries=queries or None, image_token_grid=2)
    inputs = fake_inputs(model.config, 3)
    with torch.no_grad():
        per_camera = (queries or 4) + 1
        assert model.encode_observation(inputs, model.encode_instruction(inputs)).tokens.shape == (
            3,
            2 * per_camera + 1,
            32,
        )
        torch.testing.assert_close(
            model(inputs, model.encode_instruction(inputs)).actions.loc, model(inputs).actions.loc
        )
    model.train()
    output = model(inputs)
    (output.actions.loc.square().sum() + output.localization_from_vision.square().sum()).backward()
    eyes = [p for name, p in model.named_parameters() if name.startswith(("image_encoder.", "cameras."))]
    assert np.mean([p.grad is not None and bool(p.grad.any()) for p in eyes]) > 0.8
    save_policy(tmp_path / "policy", model.eval(), processor)
    actions, observation = [], observe(2)
    for acting in ((model, processor), load_policy(tmp_path / "policy")):
        policy = VLAPolicy(*acting, dtype="float32")
        policy.begin(range(2), observation["instruction"], (0, 1))
        actions.append(policy.act(range(2), observation).actions)
    np.testing.assert_array_equal(*actions)
    assert np.isfinite(actions[0]).all()


def test_cameras_share_one_encoder_which_keeps_its_weights_and_can_stay_as_it_is(tmp_path: Path) -> None:
    model, _ = create(tmp_path, "siglip")
    assert model.image_encoder is not None
    loaded = load_image_encoder(tmp_path / "siglip").state_dict()
    own = model.image_encoder.model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in loaded.items())
    names = [name for name, _ in model.named_parameters()]
    assert len([name for name in names if "patch_embedding.weight" in name]) == 1
    prepare(model, FineTuning(freeze_image_encoder=True))
    learn = {name.split(".")[0]: p.requires_grad for name, p in model.named_parameters()}
    assert learn == dict.fromkeys(learn, True) | {"image_encoder": False}


def test_an_encoder_in_bf16_autocast_gives_finite_actions(tmp_path: Path) -> None:
    model, processor = create(tmp_path, "dinov2", image_queries=2)
    policy, observation = VLAPolicy(model.eval(), processor, dtype="bfloat16"), observe(1)
    policy.begin([0], observation["instruction"], (0,))
    assert np.isfinite(policy.act([0], observation).actions).all()


def test_what_is_missing_broken_or_of_another_kind_is_refused_with_the_reason(tmp_path: Path) -> None:
    def refused(folder: Path, match: str) -> None:
        with pytest.raises(ValueError, match=match):
            load_image_encoder(folder)

    refused(tmp_path, "has no config.json, so it is no model folder")
    folder = folder_of(tmp_path, "clip")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    refused(folder, "model.safetensors is broken or truncated")
    weights.unlink()
    refused(folder, "lacks model.safetensors")
    weights.write_bytes(content)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5]}')
    refused(folder, "must have image_mean and image_std of three numbers each")
    (folder / "preprocessor_config.json").unlink()
    refused(folder, "lacks preprocessor_config.json")
    siglip = folder_of(tmp_path, "siglip_vision_model")
    config = json.loads((siglip / "config.json").read_text())
    (siglip / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    refused(siglip, r"the weights in .* lack .*encoder\.layers\.2")
    (siglip / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}))
    refused(siglip, "the weights in .* do not fit its config")
    (siglip / "config.json").write_text(json.dumps(AutoConfig.for_model("resnet").to_dict()))
    refused(siglip, "'resnet', which has no patches")


def test_a_vision_that_does_not_exist_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    for vision in ("cnn", "pretrained", str(tmp_path / "nothing")):
        with pytest.raises(ValueError, match=r"does not exist; vision: conv, vit, or the local folder"):
            check_model(ModelConfig(vision=vision))
    with pytest.raises(ValueError, match=r"has no config\.json"):
        check_model(ModelConfig(vision=str(tmp_path)))
    with pytest.raises(ValueError, match="patches of 7 pixels do not fill a frame of 32 x 48"):
        create_policy(ModelConfig(vision="vit", vision_patch_px=7), WORLD_SPEC, STATISTICS)


def test_learned_queries_know_where_a_cell_is() -> None:
    """One bright cell: moving it changes what is gathered, although every cell is attended alike."""
    torch.manual_seed(0)
    resampler = Queries(16, 2)
    x = torch.zeros(3, 16, 4, 6)
    x[0, :, 1, 1] = x[1, :, 1, 2] = x[2, :, 1, 1] = torch.randn(16)
    gathered = resampler(x)
    assert gathered.shape == (3, 2, 16)
    torch.testing.assert_close(gathered[0], gathered[2])
    assert (gathered[0] - gathered[1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="multiples of 16, got 24"):
        Queries(24, 2)


def test_fields_reach_the_model_and_none_leaves_them_alone() -> None:
    plain, _ = create_policy(ModelConfig(), WORLD_SPEC, STATISTICS)
    model, processor = create_policy(
        ModelConfig(num_layers=2, hidden_size=64, num_experts=6, top_k_experts=1, instruction_length=40, chunk_size=3),
        WORLD_SPEC,
        STATISTICS,
    )
    decoder = model.backbone.decoder.config
    assert (decoder.num_hidden_layers, decoder.hidden_size, decoder.intermediate_size) == (2, 64, 176)
    assert decoder.head_dim == 16 and decoder.num_attention_heads == 4
    assert model(fake_inputs(model.config, 1)).routing[0].logits.shape == (1, 3, 6)
    assert processor.instruction_length == model.config.instruction_length == 40
    changed = {"num_experts", "top_k_experts", "instruction_length", "chunk_size", "backbone"}
    before, after = plain.config.to_dict(), model.config.to_dict()
    assert {name for name in before if before[name] != after[name]} == changed
    with pytest.raises(ValueError, match="hidden_size must be a multiple of 8, two for each head, got 60"):
        create_policy(replace(ModelConfig(), hidden_size=60), WORLD_SPEC, STATISTICS)


def test_the_towers_of_a_tiny_config_name_a_vision_that_exists() -> None:
    with pytest.raises(ValueError, match="vision 'eyes' does not exist; vision: conv, vit, pretrained"):
        VLA(tiny_config(vision="eyes"))

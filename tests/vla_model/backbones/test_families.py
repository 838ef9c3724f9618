"""Every family at toy size does what a policy needs, and the published sizes are what was published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grok_language_model  # noqa: F401 - registers Grok-1 with AutoModelForCausalLM
import numpy as np
import pytest
import torch
from families import toy_configs
from tiny_model import observe, tiny_config, tiny_processor
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaModel

from vla_model.backbones.decoder import Backbone
from vla_model.backbones.presets import FAMILIES, PRESETS
from vla_model.inputs.inputs import ModelInputs, fake_inputs
from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.weights.checkpoint import load_policy, save_policy

CONFIGS = toy_configs()
every_family = pytest.mark.parametrize("family", CONFIGS)


def toy_vla(family: str) -> VLA:
    torch.manual_seed(0)
    return VLA(tiny_config(backbone=toy_configs()[family])).eval()


def one_pass(backbone: Backbone, ids: Tensor, rest: Tensor) -> Tensor:
    """Hidden states of the rest without a cache, behind an instruction of full length."""
    embeddings = backbone.decoder.get_input_embeddings()(ids)
    hidden = backbone.decoder(inputs_embeds=torch.cat([embeddings, rest], dim=1), use_cache=False)
    return hidden.last_hidden_state[:, ids.shape[1] :]


def test_there_is_a_toy_of_every_family() -> None:
    assert {config.model_type for config in CONFIGS.values()} == FAMILIES.keys()


PARAMETERS = {
    "llama1_7b": 6.7e9,
    "llama1_13b": 13.0e9,
    "llama1_33b": 32.5e9,
    "llama1_65b": 65.2e9,
    "llama2_7b": 6.74e9,
    "llama2_13b": 13.02e9,
    "llama2_70b": 68.98e9,
    "llama3_8b": 8.03e9,
    "llama3_70b": 70.6e9,
    "llama3.1_405b": 405e9,
    "llama3.2_1b": 1.23e9,
    "llama3.2_3b": 3.21e9,
    "mistral_7b": 7.24e9,
    "mixtral_8x7b": 46.7e9,
    "mixtral_8x22b": 141e9,
    "gemma_2b": 2.51e9,
    "gemma_7b": 8.54e9,
    "grok_314b": 314e9,
}
"""With the language head, from the paper, model card or weight files."""


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(PRESETS[name]())
    assert model.num_parameters() == pytest.approx(PARAMETERS[name], rel=0.01)


@every_family
def test_gradients_reach_every_parameter_of_the_decoder(family: str) -> None:
    model = toy_vla(family).train()
    output = model(fake_inputs(model.config, 16))
    (output.actions.loc.square().sum() + output.load_balancing_loss()).backward()
    unreached = [name for name, p in model.backbone.decoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unreached


@every_family
def test_actions_with_the_cached_prefix_equal_those_of_one_pass(family: str) -> None:
    model = toy_vla(family)
    inputs = fake_inputs(model.config, 3)
    with torch.no_grad():
        cached = model(inputs, model.encode_instruction(inputs)).actions.loc
        model.backbone.forward = lambda prefix, rest: _uncached(model.backbone, inputs, rest)
        torch.testing.assert_close(model(inputs).actions.loc, cached, atol=1e-5, rtol=0)


def _uncached(backbone: Backbone, inputs: ModelInputs, rest: Tensor) -> Tensor:
    """Row by row, each instruction in its place and nothing of its padding, by transformers alone."""
    rows = []
    for ids, mask, tokens in zip(inputs.instruction_ids, inputs.instruction_mask, rest, strict=True):
        embeddings = torch.cat([backbone.decoder.get_input_embeddings()(ids), tokens])[None]
        seen = torch.cat([mask, torch.ones(len(tokens), dtype=torch.bool)])[None]
        positions = torch.arange(embeddings.shape[1])[None]
        hidden = backbone.decoder(
            inputs_embeds=embeddings, attention_mask=seen, position_ids=positions, use_cache=False
        ).last_hidden_state[0, len(ids) :]
        rows.append(hidden)
    return torch.stack(rows)


@every_family
def test_padding_and_other_rows_of_the_batch_change_nothing(family: str) -> None:
    backbone = toy_vla(family).backbone
    ids = torch.randint(0, 2048, (2, 24), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(24) < torch.tensor([[5], [24]])
    rest = torch.randn(2, 7, 32)
    with torch.no_grad():
        together = backbone(backbone.prefill(ids, mask), rest)
        alone = backbone(backbone.prefill(ids[:1], mask[:1]), rest[:1])
        torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together[1:], one_pass(backbone, ids[1:], rest[1:]), atol=1e-5, rtol=1e-5)


@every_family
def test_a_saved_policy_gives_the_same_actions(family: str, tmp_path: Path) -> None:
    observation, model = observe(2), toy_vla(family)
    save_policy(tmp_path / "policy", model, tiny_processor())
    loaded, processor = load_policy(tmp_path / "policy")
    assert type(loaded.backbone.decoder) is type(model.backbone.decoder)
    actions = []
    for policy in (VLAPolicy(model, tiny_processor(), dtype="float32"), VLAPolicy(loaded, processor, dtype="float32")):
        policy.begin(range(2), observation["instruction"], (0, 1))
        actions.append(policy.act(range(2), observation).actions)
    np.testing.assert_array_equal(*actions)
    assert np.isfinite(actions[0]).all()


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3"])
def test_a_sliding_window_ends_at_its_length(family: str) -> None:
    """In a decoder of one windowed layer a token sees the 8 last ones, itself included, by position."""
    config = toy_configs()[family]
    config.num_hidden_layers = 1
    if family != "mistral":
        config.layer_types = ["sliding_attention"]
    torch.manual_seed(0)
    backbone = Backbone(tiny_config(backbone=config)).eval()
    ids, mask = torch.randint(0, 2048, (1, 24)), torch.arange(24)[None] < 20
    rest = torch.randn(1, 6, 32)
    hidden = []
    for word in range(24):
        changed = ids.clone()
        changed[0, word] = (ids[0, word] + 1) % 2048
        hidden.append(backbone(backbone.prefill(changed, mask), rest)[0])
    reference = backbone(backbone.prefill(ids, mask), rest)[0]  # [R, d]
    sees = torch.stack([(states - reference).abs().amax(-1) > 1e-6 for states in hidden])  # [I, R]
    for word in range(24):
        for token in range(6):
            assert sees[word, token] == (word < 20 and 24 + token - word < 8), (word, token)


def test_without_images_the_decoder_equals_transformers_llama() -> None:
    """The rest being words too, prefix and rest together are one sentence for a LlamaModel of the same weights."""
    backbone = toy_vla("llama3.1").backbone
    config = CONFIGS["llama3.1"]
    assert isinstance(config, LlamaConfig)
    reference = LlamaModel(config).eval()
    reference.load_state_dict(backbone.decoder.state_dict())
    ids = torch.randint(0, 2048, (2, 31), generator=torch.Generator().manual_seed(2))
    words = backbone.decoder.get_input_embeddings()(ids)
    prefix = backbone.prefill(ids[:, :24], torch.ones(2, 24, dtype=torch.bool))
    ours = backbone(prefix, words[:, 24:])
    theirs = reference(inputs_embeds=words, use_cache=False).last_hidden_state
    torch.testing.assert_close(ours, theirs[:, 24:], atol=1e-5, rtol=1e-5)


ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "dynamic": {"factor": 2.0},
    "longrope": {
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "factor": 2.0,
        "original_max_position_embeddings": 512,
    },
}


def scaled_llama(rope_type: str, positions: int) -> LlamaConfig:
    rope = {"rope_type": rope_type, "rope_theta": 1e4} | ROPES[rope_type]
    size: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return LlamaConfig(
        **size, vocab_size=2048, num_attention_heads=4, max_position_embeddings=positions, rope_parameters=rope
    )


@pytest.mark.parametrize("rope_type", ROPES)
def test_rope_scaling_of_a_long_prompt_equals_transformers(rope_type: str) -> None:
    torch.manual_seed(0)
    config = scaled_llama(rope_type, positions=512)
    backbone = Backbone(tiny_config(backbone=config, instruction_length=300)).eval()
    reference = LlamaModel(config).eval()
    reference.load_state_dict(backbone.decoder.state_dict())
    words = backbone.decoder.get_input_embeddings()(torch.randint(0, 2048, (2, 320)))
    ids = torch.randint(0, 2048, (2, 300))
    words[:, :300] = backbone.decoder.get_input_embeddings()(ids)
    with torch.no_grad():
        ours = backbone(backbone.prefill(ids, torch.ones(2, 300, dtype=torch.bool)), words[:, 300:])
        theirs = reference(inputs_embeds=words, use_cache=False).last_hidden_state
    torch.testing.assert_close(ours, theirs[:, 300:], atol=1e-5, rtol=1e-5)


def test_a_sequence_long_enough_for_dynamic_rope_scaling_is_rejected() -> None:
    for rope_type, positions in (("dynamic", 256), ("longrope", 1024)):
        config = scaled_llama(rope_type, positions)
        Backbone(tiny_config(backbone=config, instruction_length=200))
        with pytest.raises(ValueError, match=r"a sequence takes up to .* but the decoder has \d+ positions"):
            Backbone(tiny_config(backbone=config, instruction_length=500))


def test_the_end_of_a_long_prompt_affects_the_output() -> None:
    long = tiny_processor(instruction_length=200)
    model = VLA(tiny_config(instruction_length=200)).eval()
    sentences = [f"{'go on and ' * 40}lift the {colour} cube" for colour in ("red", "blue")]
    ids, mask = long.encode_instructions(sentences)
    assert 80 < mask.sum(1).min() <= mask.sum(1).max() < 200
    prefix = model.backbone.prefill(ids, mask)
    assert (prefix.summary[0] - prefix.summary[1]).abs().max() > 1e-4
    short, _ = tiny_processor().encode_instructions(sentences)
    assert torch.equal(short[0], short[1])


def test_rope_scaling_changes_attention_between_distant_tokens() -> None:
    plain, scaled = (AutoModel.from_config(CONFIGS[name]) for name in ("llama2", "llama3.1"))
    assert not torch.allclose(plain.rotary_emb.inv_freq, scaled.rotary_emb.inv_freq)
    base = 500_000.0 ** -(torch.arange(4) / 4)
    wavelengths = 2 * torch.pi / base
    assert (wavelengths > 8192).any()
    torch.testing.assert_close(scaled.rotary_emb.inv_freq[wavelengths > 8192], base[wavelengths > 8192] / 8)

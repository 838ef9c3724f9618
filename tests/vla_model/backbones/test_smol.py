"""Conversion of the package's file, tried on a small file that is written here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import STATISTICS, WORLD_SPEC
from written_models import states, write_gguf

from vla_model.backbones.pretrained import load_backbone
from vla_model.backbones.smol import convert, smol_folder
from vla_model.create import SMOL_LAYERS, create_policy
from vla_model.sizes import ModelConfig


def test_the_converted_folder_equals_the_file_in_bfloat16_and_adds_a_bos_token(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", "llama", quantised=True)
    (tmp_path / ".folder.new").mkdir()
    convert(tmp_path / "model.gguf", tmp_path / "folder", begin="<pad>")
    ours, theirs = load_backbone(tmp_path / "folder"), load_backbone(tmp_path / "model.gguf")
    for name, parameter in ours.decoder.named_parameters():
        assert torch.equal(parameter, theirs.decoder.get_parameter(name).bfloat16().float()), name
    torch.testing.assert_close(states(ours.decoder), states(theirs.decoder), atol=0.1, rtol=0.1)
    assert ours.tokenizer.encode("push it").tokens[0] == "<pad>"
    assert ours.tokenizer.encode("push it").ids[1:] == theirs.tokenizer.encode("push it").ids[1:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "model.gguf"]


@pytest.mark.skipif(not smol_folder().exists(), reason="needs the weights of make smol")
def test_smol_has_the_first_layers_of_smollm2() -> None:
    model, processor = create_policy(ModelConfig(name="smol"), WORLD_SPEC, STATISTICS)
    config = model.backbone.decoder.config
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (SMOL_LAYERS, 576, 49_152)
    ids, mask = processor.encode_instructions(["push the red cube to the left"])
    assert int(mask.sum()) == 8, "a beginning and seven words"
    assert processor.tokenizer.decode(ids[0][mask[0]].tolist()) == "push the red cube to the left"

"""Folders with a damaged part are refused in one line that names it: policies, decoders and image encoders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import tiny_processor, tiny_vla
from transformers import AutoModel
from written_models import write_folder

from vla_model.backbones.pretrained import load_backbone
from vla_model.vision.image_encoder import load_image_encoder, vit_config
from vla_model.weights.checkpoint import load_policy, save_policy

LOAD: dict[str, Callable[[Path], object]] = {
    "policy": load_policy,
    "decoder": load_backbone,
    "image encoder": load_image_encoder,
}
NEEDED = {
    "policy": ("config.json", "model.safetensors", "processor.json", "tokenizer.json"),
    "decoder": ("config.json", "model.safetensors", "tokenizer.json"),
    "image encoder": ("config.json", "model.safetensors", "preprocessor_config.json"),
}
CONTENTS = (b"", b"{}", b"[]", b"null", b"3", b"\xff\xfe\x00")
AT_WEIGHTS = {"policy": "queries", "decoder": "model.norm.weight", "image encoder": "layernorm.weight"}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    save_policy(root / "policy", tiny_vla(), tiny_processor())
    write_folder(root / "decoder")
    AutoModel.from_config(vit_config(32, 32, channels=32, layers=1, patch_px=8)).save_pretrained(root / "image encoder")
    pixels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (root / "image encoder" / "preprocessor_config.json").write_text(json.dumps(pixels))
    return root


def refused(kind: str, folder: Path, *names: str) -> None:
    """In one line of reasonable length that holds each name."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 - what it says is looked at here
        LOAD[kind](folder)
    said = str(error.value)
    assert "\n" not in said
    assert len(said) < 700
    assert "above report" not in said
    assert all(name in said for name in names), said


def parts() -> Iterator[Any]:
    for kind, files in NEEDED.items():
        for file in files:
            for content in (None, "half", *CONTENTS):
                yield pytest.param(kind, file, content, id=f"{kind} {file} {content!r}")


@pytest.mark.parametrize(("kind", "file", "content"), list(parts()))
def test_a_missing_truncated_or_wrong_part_is_named(
    sound: Path, tmp_path: Path, kind: str, file: str, content: bytes | str | None
) -> None:
    folder = shutil.copytree(sound / kind, tmp_path / "x")
    path = folder / file
    if file == "preprocessor_config.json" and content == b"{}":
        refused_name = "image_mean"
    else:
        refused_name = "family" if file == "config.json" and content == b"{}" else file.split(".", maxsplit=1)[0]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if isinstance(content, str) else content)
    refused(kind, folder, "" if refused_name == "family" else refused_name)


@pytest.mark.parametrize("kind", LOAD)
def test_the_error_for_mismatching_weights_names_the_tensor_and_both_shapes(
    sound: Path, tmp_path: Path, kind: str
) -> None:
    folder = shutil.copytree(sound / kind, tmp_path / "x")
    path, name = folder / "model.safetensors", AT_WEIGHTS[kind]
    weights = load_file(path)
    expected = tuple(weights[name].shape)
    save_file(weights | {name: torch.zeros(3, 5)}, path, metadata={"format": "pt"})
    refused(kind, folder, name.removeprefix("model."), "(3, 5)", f"expected {expected}")
    del weights[name]
    save_file(weights, path, metadata={"format": "pt"})
    refused(kind, folder, name.removeprefix("model."))


@pytest.mark.parametrize("kind", ["decoder", "image encoder"])
@pytest.mark.parametrize(
    "index", [{}, [], {"weight_map": {}}, {"weight_map": 3}, {"weight_map": {"a": 3}}, {"weight_map": {"a": "gone.st"}}]
)
def test_a_damaged_shard_index_is_named(sound: Path, tmp_path: Path, kind: str, index: object) -> None:
    folder = shutil.copytree(sound / kind, tmp_path / "x")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(kind, folder, "gone.st" if "gone" in json.dumps(index) else "model.safetensors.index.json")


@pytest.mark.parametrize("key", ["instruction_length", "world_spec", "statistics"])
@pytest.mark.parametrize("value", [None, "text", -1, 0, [], {}])
def test_a_processor_with_a_part_of_another_type_is_rejected(
    sound: Path, tmp_path: Path, key: str, value: object
) -> None:
    folder = shutil.copytree(sound / "policy", tmp_path / "x")
    content = json.loads((folder / "processor.json").read_text())
    (folder / "processor.json").write_text(json.dumps(content | {key: value}))
    refused("policy", folder, "processor.json")


def test_a_folder_that_is_no_decoder_is_rejected_in_one_line(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy", tiny_vla(), tiny_processor())
    with pytest.raises(
        ValueError, match=r"policy is a policy of llamarm, expected a pretrained model's folder; --init takes"
    ):
        load_backbone(tmp_path / "policy")
    (tmp_path / "config.json").write_text('{"model_type": "not_yet"}')
    with pytest.raises(ValueError, match=r"config.json is damaged or of an unknown model: .*not_yet") as caught:
        load_backbone(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"config.json is damaged or of an unknown model: .*not_yet") as caught:
        load_image_encoder(tmp_path)
    assert "\n" not in str(caught.value)

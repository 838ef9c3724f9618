"""Weights that were damaged or are not finite are refused by name, wherever they are read."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import tiny_processor, tiny_vla
from written_models import write_folder, write_gguf

from vla_model.backbones.pretrained import load_backbone
from vla_model.files.weight_files import load_tensors, save_tensors, write_tensors
from vla_model.weights.adapters import load_adapted, save_adapter
from vla_model.weights.checkpoint import load_policy, save_policy
from vla_model.weights.config import FineTuning
from vla_model.weights.finetune import prepare

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2]), "c.d": torch.ones(4, dtype=torch.bfloat16)}


def flip(path: Path, byte: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_equal_weights_are_equal_files_byte_for_byte(tmp_path: Path) -> None:
    for number in range(16):
        save_tensors(tmp_path / f"{number}.safetensors", WEIGHTS)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_tensors(tmp_path / "w.safetensors", WEIGHTS)
    return tmp_path / "w.safetensors"


def test_tensors_round_trip_and_other_readers_can_read_the_file(file: Path) -> None:
    for found in (load_tensors(file), load_file(file)):
        assert found.keys() == WEIGHTS.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items())


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_detected_and_its_tensor_named(file: Path, bit: int) -> None:
    size = file.stat().st_size
    flip(
        file, size - 3, bit
    )  # the last of the numbers' bytes are a's or b's: safetensors sorts by the size of a number
    last = max(load_file(file).items(), key=lambda item: not torch.equal(item[1], WEIGHTS[item[0]]))[0]
    with pytest.raises(ValueError, match=rf"is damaged: {last} has another checksum"):
        load_tensors(file)


def test_an_older_file_without_checksums_is_read(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert torch.equal(load_tensors(tmp_path / "w.safetensors")["a"], WEIGHTS["a"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_neither_written_nor_read(tmp_path: Path, value: float) -> None:
    broken = WEIGHTS | {"c.d": torch.tensor([1.0, value])}
    with pytest.raises(ValueError, match=r"not finite: c\.d"):
        save_tensors(tmp_path / "w.safetensors", broken)
    assert not (tmp_path / "w.safetensors").exists()
    save_file(broken, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"not finite: c\.d"):
        load_tensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "int8"])
def test_a_policy_with_a_flipped_exponent_bit_is_rejected_with_the_weights_name(tmp_path: Path, dtype: str) -> None:
    save_policy(tmp_path / "policy", tiny_vla(), tiny_processor())
    path = tmp_path / "policy" / "model.safetensors"
    flip(path, path.stat().st_size - 1, 5)  # 2**64 times as much: finite, and useless
    with pytest.raises(ValueError, match=r"model\.safetensors in .* is damaged: \w.* has another checksum"):
        load_policy(tmp_path / "policy", dtype=dtype)  # ty: ignore[invalid-argument-type]


def test_an_older_policy_with_non_finite_weights_is_rejected(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy", tiny_vla(), tiny_processor())
    path = tmp_path / "policy" / "model.safetensors"
    weights = load_file(path)
    save_file(weights, path)  # without checksums, as it was written before
    load_policy(tmp_path / "policy")
    weights["queries"][0, 0] = float("nan")
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"policy/model\.safetensors has weights that are not finite: queries"):
        load_policy(tmp_path / "policy")


def test_a_policy_with_a_non_finite_weight_is_not_saved_and_the_old_one_is_kept(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy", tiny_vla(), tiny_processor())
    broken = tiny_vla()
    broken.queries.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match="not finite: queries"):
        save_policy(tmp_path / "policy", broken, tiny_processor())
    assert torch.equal(load_policy(tmp_path / "policy")[0].queries, tiny_vla().queries)


@pytest.mark.parametrize("part", ["heads.safetensors", "adapter_model.safetensors"])
def test_a_damaged_adapter_is_refused(tmp_path: Path, part: str) -> None:
    lora = FineTuning(mode="lora", lora_rank=2)
    model = tiny_vla()
    save_policy(tmp_path / "base", model, tiny_processor())
    prepare(model, lora)
    save_adapter(tmp_path / "adapter", model, lora)
    path = tmp_path / "adapter" / part
    flip(path, path.stat().st_size - 1, 2)
    with pytest.raises(ValueError, match=rf"{part} in .*adapter is damaged"):
        load_adapted(tmp_path / "base", tmp_path / "adapter")


def test_a_pretrained_decoder_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder")
    path = tmp_path / "folder" / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][3, 4] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"folder has weights that are not finite: layers\.1\.mlp\.up_proj\.weight"):
        load_backbone(tmp_path / "folder")
    write_gguf(tmp_path / "x.gguf", "mistral")
    content = bytearray((tmp_path / "x.gguf").read_bytes())
    content[-4:] = b"\x00\x00\x80\x7f"  # infinity
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.gguf has weights that are not finite: \w"):
        load_backbone(tmp_path / "x.gguf")


def test_a_full_disk_raises_an_os_error_with_its_number_and_the_file(tmp_path: Path) -> None:
    path, (soft, hard) = tmp_path / "w.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_tensors(path, {"a": torch.ones(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert not path.exists()


@pytest.mark.parametrize(("folder_mode", "mode"), [(0o755, 0o644), (0o750, 0o640), (0o700, 0o600)])
def test_weights_have_the_read_permissions_of_their_folder(tmp_path: Path, folder_mode: int, mode: int) -> None:
    tmp_path.chmod(folder_mode)
    write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)})
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == mode

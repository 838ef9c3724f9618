"""The tokenizer of a GGUF file, equal to llama.cpp's.

transformers builds it. Added here are the tokens that llama.cpp puts before and after a text, by its defaults if the
file does not specify them, and the rules of some vocabularies. Unsupported keys are rejected by name.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from envs.errors import UserError

_WITH_BEGIN = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken")
"""Values of tokenizer.ggml.pre: byte-level vocabularies with a BOS token by default (add_bos_token), in which a word of
the vocabulary is one token, whatever the merges."""
_PRE = ("default", "gpt-2", "smollm", *GGUF_PRE_TOKENIZER_SPLITS)
"""Supported pre-tokenizers."""
_KNOWN = set(
    """model pre tokens scores merges token_type token_type_count add_bos_token add_eos_token add_space_prefix
    add_sep_token remove_extra_whitespaces""".split()
)


def gguf_tokenizer(path: Path, metadata: Mapping[str, Any]) -> Tokenizer:
    """
    Args:
        path: of the file.
        metadata: its keys and values.

    Raises:
        UserError: transformers cannot build the file's tokenizer, or one of its keys is not supported.
    """
    given = {key.removeprefix(_PREFIX): value for key, value in metadata.items() if key.startswith(_PREFIX)}
    _check(path, given)
    try:
        architecture, vocabulary, named = get_gguf_tokenizer(str(path))
        tokenizer, _ = convert_gguf_tokenizer(architecture, vocabulary)
    except (KeyError, ValueError, IndexError, TypeError, struct.error) as error:
        raise UserError(
            f"{path} has no tokenizer that can be read: {error!r}; take another file of the model"
        ) from error
    is_bytes, pre = given["model"] == "gpt2", given.get("pre", "default")
    if is_bytes and pre in _WITH_BEGIN:
        assert isinstance(tokenizer.model, models.BPE)
        tokenizer.model.ignore_merges = True
    if is_bytes and pre == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if given["model"] == "llama" and architecture == "llama" and not given.get("add_space_prefix", True):
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    begins = given.get("add_bos_token", not is_bytes or pre in _WITH_BEGIN)
    ends = given.get("add_eos_token", False)
    around = {}
    for name, is_asked in (("bos_token", begins), ("eos_token", ends)):
        if is_asked and named[name] is None:
            raise UserError(f"{path} adds a {name} to every text, but lacks {_PREFIX}{name}_id")
        around[name] = named[name] if is_asked else None
    before, after = around["bos_token"], around["eos_token"]
    if before is not None or after is not None:
        tokens = [token for token in (before, after) if token is not None]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(filter(None, (before, "$A", after))),
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(tokens)],
        )
    return tokenizer


_PREFIX = "tokenizer.ggml."


def _check(path: Path, given: Mapping[str, Any]) -> None:
    """
    Raises:
        UserError: a key has an unsupported value.
    """
    kind, pre = given.get("model"), given.get("pre", "default")
    if kind not in ("llama", "gpt2"):
        raise UserError(f"{path} has a tokenizer of {_PREFIX}model {kind!r}, not supported; known: llama, gpt2")
    if kind == "gpt2" and pre not in _PRE:
        raise UserError(f"{path} splits texts by {_PREFIX}pre {pre!r}, not supported; known: {', '.join(sorted(_PRE))}")
    for name in ("add_sep_token", "remove_extra_whitespaces"):
        if given.get(name, False):
            raise UserError(f"{path} sets {_PREFIX}{name}, which is not supported")
    others = sorted(name for name in given.keys() - _KNOWN if not name.endswith(("token_id", "token_ids")))
    if others:
        warnings.warn(
            f"{path} has keys of its tokenizer that are not supported and are ignored: "
            f"{', '.join(_PREFIX + name for name in others)}",
            stacklevel=2,
        )

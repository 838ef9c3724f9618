"""Names of number formats, for options and configs; importing this loads nothing."""

from __future__ import annotations

from typing import Literal

DtypeName = Literal["auto", "float32", "bfloat16", "int8"]
"""What a policy computes in, and how it holds its weights (vla_model/weights/weight_formats.py)."""

"""Names of number formats, for options and configs; importing this loads no library."""

from __future__ import annotations

from typing import Literal

DtypeName = Literal["auto", "float32", "bfloat16", "int8"]
"""Number format of a policy's computation and weights (vla_model/weights/weight_formats.py)."""

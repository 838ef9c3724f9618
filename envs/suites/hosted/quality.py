"""Quality: what a suite's frames cost to render. Both interpreters import it, so it imports no simulator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The defaults render the model's meshes and textures as they are."""

    shadows: bool = False
    """Whether to render shadows and reflections."""
    samples: int = 0
    """Multisampling: samples per pixel."""
    cell_m: float = 0.0
    """Cell size of mesh decimation: vertices of large meshes in one cube of this side are merged; 0 turns it off."""
    cell_share: float = 0.0
    """Least cell size, as a share of the mesh's longest side: of a wall's mesh less is seen than of a cup's."""
    textured: bool = False
    """Whether textured meshes are decimated too."""
    texture_px: int = 0
    """About the longest side of a texture; 0 keeps their sizes."""

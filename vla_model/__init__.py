"""The model: camera frames and an instruction in, action chunks out."""

"""Vision towers: camera frames -> image tokens and keypoints."""

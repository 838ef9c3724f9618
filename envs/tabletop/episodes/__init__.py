"""Episodes: from an EpisodeSpec and a task to a sampled layout, the simulator's initial fields, and a View.

- `variations -> episode -> task -> layout`: ranges, the sampled Episode, the Task interface, and the sampling
- `phases`: phases of a motion
- `placing, reading`: writing the simulator's arrays, and reading them
"""

"""Episodes: an EpisodeSpec and a task enter; a drawn layout, the simulator's numbers that begin it, and a View leave.

variations -> episode -> task -> layout     what may differ, what was drawn, what a task asks, and the draw
instructions, phases                        words for things, and parts of a motion
placing, reading                            into the simulator's arrays, and out of them
"""

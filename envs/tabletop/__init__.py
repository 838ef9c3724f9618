"""The tabletop suite: one arm, one table, many objects, and instructions that decide what to do with them.

    arm/         an arm as data, and the way from an action to its joints
    scene/       the MuJoCo model: table, things, cameras, and where things appear in the frames
    episodes/    what an episode is drawn from, how it begins, what a task asks and sees of it
    tasks/       one file per task, made of terms.py (conditions of success) and experts.py (motions)
    world.py     N tables behind envs.world.World; running.py keeps the books of their episodes
    env.py       one table behind gymnasium.Env; view.py shows and disturbs one for people

An EpisodeSpec and actions enter; frames, states, rewards, labels and success leave.
"""

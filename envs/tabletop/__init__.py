"""The tabletop suite: one arm, one table, many objects, and instructions that decide what to do with them.

    arm/         the arm's specification, and the conversion of actions to joint targets
    scene/       the MuJoCo model: table, things, cameras, and image coordinates of things
    episodes/    sampling and reset of episodes, the Task interface and its View of the state
    tasks/       one file per task, made of terms.py (conditions of success) and experts.py (motions)
    world.py     N tables behind envs.world.World; running.py tracks their episodes
    env.py       one table behind gymnasium.Env; view.py lets people watch and disturb one

Inputs: an EpisodeSpec and actions. Outputs: frames, states, rewards, labels and success.
"""

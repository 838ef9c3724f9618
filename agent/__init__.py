"""Learning and acting.

`cli` dispatches commands, `recipes` are named configs; the folders, in the order of their imports:

    runs         a run's folder, its lock, config checks, progress bars, interrupts
    learning     one optimiser, and the gradient of a batch
    algorithms   what is learned from a batch: sft, rft, dagger, ppo, grpo
    evaluation   success on fixed episodes, controls, statistics, comparisons
    training     the two loops: from recordings, and from own practice
    report       a run as one HTML page
    studies      what `llamarm experts` and `llamarm scale` measure
    robot, serve, console    a policy on a robot, behind a websocket, on a live page
    commands     one file per command of `llamarm`
"""

"""LIBERO's variation "wide": training episodes beyond the suite's, without what LIBERO-PRO evaluates.

A task of the suite gives the arena and the first things; a wide scene of it has others exchanged and added, and is
compiled once for EPISODES_PER_SCENE seeds. Each of its episodes has a goal of its own that the scene affords, another
sentence, things and fixtures all over the reachable table, and colours of its own.

`composition.py` says what is in a scene; `shapes.py` how much room things take; `goals.py` what can be asked;
`layout.py` where things stand; `relations.py`, `sentences.py` and `vocabulary.py` what is said; `looks` in which
colours and sizes; `held_out.py` what LIBERO-PRO evaluates; `scene.py` makes the episodes.
"""

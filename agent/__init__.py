"""Learning and acting: recipes, the loop, evaluation, reports and the command line."""

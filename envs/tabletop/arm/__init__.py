"""The arm: its model, and the conversion of actions to joint targets."""

"""Looking into a trained mixture of experts: the command `llamarm experts`."""

"""The weights of a policy: fine-tuning modes, checkpoints, adapters, number formats and memory."""

"""Files and folders that appear whole or not at all, checked tensors, and how a policy is to be used."""

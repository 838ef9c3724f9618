"""The weights of a policy: which of them learn, on disk whole or as adapters, in fewer bits and their memory."""

"""Other people's policies: an openpi or vla-eval server, or a function, as a Policy in our worlds."""

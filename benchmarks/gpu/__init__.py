"""What runs on a GPU, measured in steps that can be interrupted; see __main__.py."""

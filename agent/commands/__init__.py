"""The commands of `llamarm`, one file each, and the options that they share.

A command's file has its options, a frozen dataclass, and `run(args)`, which parses the arguments after the command's
name and does the work. At its top stands what options are made of. What does the work is imported in functions, after
the options and the names in them are checked: torch and transformers take seconds, and help and refusals need neither
(tests/agent/commands/test_start_up.py).
"""

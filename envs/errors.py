"""What a user is told, apart from what is a bug."""


class UserError(ValueError):
    """An input that cannot be used; the message, one line, is for whoever gave it.

    It says what came, what was expected, what exists and what to do. The command line prints it and exits with status
    2; any other error is a bug and keeps its traceback. Our code raises this or a subclass, never ValueError itself.
    """

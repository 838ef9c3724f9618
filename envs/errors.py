"""UserError: errors of the user's input, as opposed to bugs."""


class UserError(ValueError):
    """Invalid input; the message is one line for the user.

    It says what was given, what was expected, what exists and what to do. The command line prints it and exits with
    status 2; any other error is a bug and keeps its traceback. Our code raises this or a subclass, never ValueError.
    """

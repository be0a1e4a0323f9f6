"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """Something the user can put right: a name, a size, a path.

    The message is one clear line that says what is wrong, with the numbers, and what to write
    instead. The command line prints it and exits with code 2, without a stack trace.
    """

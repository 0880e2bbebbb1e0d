"""The one exception that users are meant to see."""


class UserError(Exception):
    """A mistake the user can mend: printed as one message, exit code 2."""

"""The errors a user can meet; the command line turns each into one line and an exit code."""


class PocketcortexError(Exception):
    """Anything pocketcortex refuses or fails to do, in words meant for the user."""


class InputError(PocketcortexError, ValueError):
    """The input is at fault: says what was wrong, what was got and what to do."""


class MissingRepeatsError(InputError):
    """A noise-corrected figure was asked of a session that has only repeat averages."""

"""The errors a user can meet; the command line turns each into one line and an exit code."""


class PocketcortexError(Exception):
    """Anything pocketcortex refuses or fails to do, in words meant for the user."""


class InputError(PocketcortexError, ValueError):
    """The input is at fault: says what was wrong, what was got and what to do."""


class MissingRepeatsError(InputError):
    """A noise-corrected figure was asked of a session that has only repeat averages."""


def in_brief(error: BaseException, most: int = 300) -> str:
    """Return what an error says in one line of at most so many letters; its kind if nothing.

    What a library says of a damaged file may quote all of it.

    Parameters
    ----------
    error
        Any error.
    most
        Letters that are kept.
    """
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= most else f"{words[:most]} ..."

"""The one error for data on disk that is not what it should be.

Misuse (a wrong argument, an unknown name) is `ValueError`; the command line turns
that into exit code 2 and `ZooError` into exit code 1.
"""


class ZooError(Exception):
    """A file, folder or remote is missing, damaged, or contradicts its index."""

"""What a person did that the program cannot work with, said in one sentence."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the input: one sentence that names the file, the value and the remedy.

    The command line prints the sentence and exits with code 2; napari shows it as a notification.
    Every other exception is a defect of the program and keeps its traceback.
    """


class UserWarningMessage(UserWarning):
    """Something in the input that works but is probably not meant; one sentence, as above."""

"""The command line of a script of the workflow."""

import gc

import typer


def new_app() -> typer.Typer:
    """The app of a script, to be made when all that the script imports is there.

    What was imported lives as long as the process: Python need not look through hundreds of
    thousands of objects for garbage, at its end at the latest, which takes it up to seconds.
    """
    gc.freeze()
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False)

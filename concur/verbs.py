"""What a package tells the `concur` command of its verbs, so that the command loads one only to run it."""

from typing import NamedTuple


class Verb(NamedTuple):
    """A verb of the command: its name, a line of help, and where its Typer application is, `module:name`.

    `extra` names the optional dependencies that it cannot do without. A package names a sequence of its verbs
    under the entry-point group `concur.verbs`.
    """

    name: str
    help: str
    application: str
    extra: str = "lab"

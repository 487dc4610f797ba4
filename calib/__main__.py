"""`python -m calib calibrate ...`: the calibration verbs on a machine where the project is not installed."""

import sys

import typer

from concur.calib.cli import app as calibrate
from concur.errors import ConcurError


def main() -> None:
    """Run the command; exit status 2 and one line on stderr for anything that the user can mend."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.add_typer(calibrate, name="calibrate")
    try:
        app()
    except ConcurError as error:
        print(f"concur: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

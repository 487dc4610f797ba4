"""The calibration verbs."""

import typer

from concur.calib.fit.fit_cli import add_fit_verbs
from concur.calib.measure.profile_cli import add_profile_verbs


def register(app: typer.Typer) -> None:
    """Add this package's verbs to the `concur` command."""
    calibrate = typer.Typer(help="Step times from measurement.", no_args_is_help=True)
    add_profile_verbs(calibrate)
    add_fit_verbs(calibrate)
    app.add_typer(calibrate, name="calibrate")

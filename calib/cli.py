"""The calibration verbs."""

import typer

from concur.calib.fit.fit_cli import add_fit_verbs
from concur.calib.measure.profile_cli import add_profile_verbs

app = typer.Typer(help="Step times from measurement.", no_args_is_help=True)
add_profile_verbs(app)
add_fit_verbs(app)

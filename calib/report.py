"""The report of a profile against samples: one self-contained HTML page."""

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Final

from matplotlib.figure import Figure

from calib.check import check_profile
from calib.errors import FitError
from calib.figures import agreement_figure, residual_figure
from calib.files import whole_file
from calib.regressors import predicted_s, regressors_of
from calib.samples import Samples
from sim.engine.roofline import RooflineStepTime
from sim.figures import style
from sim.profile import Regime, RegimeErrors, StepTimeProfile

_PAGE: Final = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title><style>
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; color: #222;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-size: 13px }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
img { max-width: 100%; height: auto } .warning { background: #fff3cd; padding: .5rem .8rem }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto }
</style></head><body><h1>$title</h1>
$body
</body></html>
""")


def write_report(profile: StepTimeProfile, samples: Samples, path: Path) -> None:
    """Write the page: errors by regime, measured against predicted, residuals, coefficients, warnings.

    Raises
    ------
    FitError
        If the place cannot be written to.
    """
    regressors = regressors_of(samples)
    step_s = samples.steps["step_s"].to_numpy(dtype=float)
    predicted = predicted_s(RooflineStepTime(profile), regressors)
    with style():
        images = [
            _image(agreement_figure(regressors, step_s, predicted), "measured against predicted"),
            _image(residual_figure(regressors, step_s, predicted), "residuals against each regressor"),
        ]
    source = samples.provenance
    parts = [f'<p class="warning">{html.escape(warning)}</p>' for warning in profile.warnings]
    parts.append(
        f"<p>{len(samples)} steps: {html.escape(source.model_name)} on {html.escape(source.device)}, "
        f"tensor_parallel_size = {source.tensor_parallel_size}, {html.escape(source.engine)}, "
        f"{html.escape(source.source)}, {html.escape('; '.join((source.date, *source.notes)))}"
        ".</p>"
    )
    parts.append("<h2>these samples</h2>" + _error_table(check_profile(profile, samples)))
    parts.append("<h2>held out of the fit</h2>" + _error_table(profile.held_out))
    parts += images
    coefficients = profile.coefficients.model_dump_json(indent=1)
    parts.append(f"<h2>coefficients</h2><pre>{html.escape(coefficients)}</pre>")
    page = _PAGE.substitute(title=html.escape(profile.name), body="\n".join(parts))
    with whole_file(path, FitError) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _error_table(errors: Mapping[Regime, RegimeErrors]) -> str:
    rows = "".join(
        f"<tr><td>{regime}</td><td>{e.num_steps}</td><td>{e.median_ape:.2%}</td><td>{e.p95_ape:.2%}</td>"
        f"<td>{e.bias:+.2%}</td></tr>"
        for regime, e in errors.items()
    )
    heads = "".join(f"<th>{name}</th>" for name in ("regime", "steps", "median APE", "p95 APE", "bias"))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _image(figure: Figure, name: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{encoded}">'

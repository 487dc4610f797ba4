"""The report of a profile against samples: one self-contained HTML page."""

import html
from pathlib import Path

from calib.check import check_profile, errors_table
from calib.errors import FitError
from calib.figures import agreement_figure, residual_figure
from calib.regressors import predicted_s, regressors_of
from calib.samples import Samples
from sim.engine.roofline import RooflineStepTime
from sim.figures import png_bytes, style
from sim.files import whole_file
from sim.pages import embedded_image, html_table, page_text
from sim.profile import StepTimeProfile


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
            embedded_image(
                png_bytes(agreement_figure(regressors, step_s, predicted)), "measured against predicted"
            ),
            embedded_image(
                png_bytes(residual_figure(regressors, step_s, predicted)), "residuals against each regressor"
            ),
        ]
    source = samples.provenance
    parts = [f'<p class="warning">{html.escape(warning)}</p>' for warning in profile.warnings]
    parts.append(
        f"<p>{len(samples)} steps: {html.escape(source.model_name)} on {html.escape(source.device)}, "
        f"tensor_parallel_size = {source.tensor_parallel_size}, {html.escape(source.engine)}, "
        f"{html.escape(source.source)}, {html.escape('; '.join((source.date, *source.notes)))}"
        ".</p>"
    )
    parts.append("<h2>these samples</h2>" + html_table(errors_table(check_profile(profile, samples))))
    parts.append("<h2>held out of the fit</h2>" + html_table(errors_table(profile.held_out)))
    parts += images
    coefficients = profile.coefficients.model_dump_json(indent=1)
    parts.append(f"<h2>coefficients</h2><pre>{html.escape(coefficients)}</pre>")
    page = page_text(profile.name, "\n".join(parts))
    with whole_file(path, FitError) as temporary:
        temporary.write_text(page, encoding="utf-8")

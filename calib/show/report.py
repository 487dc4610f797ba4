"""The report of a profile against samples: one self-contained HTML page."""

import html
from pathlib import Path

from concur.calib.errors import FitError
from concur.calib.fit.check import check_profile, errors_table
from concur.calib.fit.regressors import predicted_s, regressors_of
from concur.calib.fit.samples import Samples
from concur.calib.show.figures import agreement_figure, residual_figure
from concur.sim.files import whole_file
from concur.sim.show.facts import head_html, profile_facts
from concur.sim.show.figures import png_bytes, style
from concur.sim.show.pages import embedded_image, html_table, page_text, warnings_html
from concur.sim.step_time.profile import StepTimeProfile
from concur.sim.step_time.roofline import RooflineStepTime


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
    parts = [head_html(profile_facts(profile), in_a_sentence(profile))]
    parts.append(
        f"<p>{len(samples)} steps: {html.escape(source.model_name)} on {html.escape(source.device)}, "
        f"tensor_parallel_size = {source.tensor_parallel_size}, {html.escape(source.engine)}, "
        f"{html.escape(source.source)}, {html.escape('; '.join((source.date, *source.notes)))}"
        ".</p>"
    )
    parts.append(
        "<h2>these samples</h2>"
        + html_table(errors_table(check_profile(profile, samples), "errors on these samples"))
    )
    parts.append(
        "<h2>held out of the fit</h2>"
        + html_table(errors_table(profile.held_out, "errors on what was held out"))
    )
    parts += images
    coefficients = profile.coefficients.model_dump_json(indent=1)
    parts.append(f"<h2>coefficients</h2><pre tabindex=0>{html.escape(coefficients)}</pre>")
    parts.append(warnings_html(profile.warnings))
    page = page_text(profile.name, "\n".join(parts))
    with whole_file(path, FitError) as temporary:
        temporary.write_text(page, encoding="utf-8")


def in_a_sentence(profile: StepTimeProfile) -> str:
    """Return how far step times are off that the fit has not seen."""
    found = profile.held_out["all"]
    return (
        f"Of steps that the fit has not seen, half are predicted within {100 * found.median_ape:.1f} % "
        f"and 95 of 100 within {100 * found.p95_ape:.1f} %; the mean error is {100 * found.bias:+.1f} %."
    )

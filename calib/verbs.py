"""The calibration verbs."""

from concur.verbs import Verb

VERBS = (Verb("calibrate", "Step times from measurement.", "concur.calib.cli:app"),)

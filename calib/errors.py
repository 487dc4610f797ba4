"""Errors of the calibration kit, under the project's one root.

ConcurError
├── SamplesError      a samples file that cannot be read, or holds what no engine measures
├── SiliconError      the database of measured kernels is missing, or lacks what is asked of it
├── FitError          samples that cannot determine the model
└── EngineError       the engine to be measured cannot be started
"""

from concur.errors import ConcurError


class SamplesError(ConcurError, ValueError):
    """Report a broken samples file: file, row, column, remedy."""


class SiliconError(ConcurError, ValueError):
    """Report what the database of measured kernels lacks, and what it has."""


class FitError(ConcurError, ValueError):
    """Report samples from which the model cannot be determined."""


class EngineError(ConcurError, RuntimeError):
    """Report an engine that cannot be started for measurement."""

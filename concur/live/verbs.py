"""The verbs for running engines."""

from concur.verbs import Verb

VERBS = (Verb("doctor", "What phase running engines are in.", "concur.live.doctor_cli:app", extra="live"),)

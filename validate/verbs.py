"""The validation verbs."""

from concur.verbs import Verb

VERBS = (Verb("validate", "Hold the simulator against vLLM.", "concur.validate.cli:app", extra="validate"),)

"""The validation verbs."""

from concur.verbs import Verb

VERBS = (
    Verb("advise", "Which policy and window suit a batch on an engine.", "concur.validate.advise:app"),
    Verb("validate", "Hold the simulator against vLLM.", "concur.validate.cli:app", extra="validate"),
)

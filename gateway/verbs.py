"""The gateway's verb."""

from concur.verbs import Verb

VERBS = (Verb("gateway", "The gate as a proxy in front of engines.", "concur.gateway.cli:app", extra="live"),)

"""Step times from measurement: profile a real vLLM or import measured silicon data, fit, report."""

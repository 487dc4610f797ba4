"""The CONCUR paper's tables and figures from calibrated step times, beside the printed numbers."""

"""The CONCUR paper's tables and figures again, from calibrated step times, each number beside the printed one."""

"""Many runs: one workload under several policies, on several seeds, on all cores."""

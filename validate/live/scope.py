"""What the simulated world has and the real one has not."""

from concur.sim.scenario.scenario import Scenario
from concur.validate.errors import OutOfScopeError


def check_both_worlds(scenario: Scenario) -> None:
    """Refuse a scenario that only the simulator can run.

    Raises
    ------
    OutOfScopeError
        If it has a tenant: nobody plays that part on a live engine, or on vLLM's scheduler. If an engine of
        its fleet comes back from an outage: a server that is killed stays dead.
    """
    for outage in scenario.fleet.outages if scenario.fleet is not None else ():
        if outage.until_s is not None:
            raise OutOfScopeError(
                f"fleet.outages: engine {outage.engine} is back at {outage.until_s} s but only the simulator "
                "starts engines again; leave until_s out"
            )
    if scenario.tenant.num_requests:
        raise OutOfScopeError(
            f"tenant.num_requests = {scenario.tenant.num_requests} but only the simulator has tenants; "
            "set it to 0"
        )

"""thr_probe: which tokens of your rollouts steer a policy towards exploitation or exploration."""

__version__ = "0.1.0"

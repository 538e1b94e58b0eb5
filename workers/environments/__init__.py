"""Environments of jobs: what replies to the policy in an episode, over HTTP or in the sandbox."""

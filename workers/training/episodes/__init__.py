"""Episodes: completions of several turns, in which an environment replies to the policy."""

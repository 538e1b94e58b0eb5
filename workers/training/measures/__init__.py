"""What a run measures of its policy beside the reward: how far it has moved, and what it has forgotten."""

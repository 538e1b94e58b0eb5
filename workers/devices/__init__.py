"""How trainings and the sampler of a machine come by their devices, and start on them."""

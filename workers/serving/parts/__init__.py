"""Thoughts and tool calls in what the sampler tells, and what holds completions to tools."""

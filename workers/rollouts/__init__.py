"""Rollouts from a vLLM server: it is given the policy's adapter by step, and asked in token ids."""

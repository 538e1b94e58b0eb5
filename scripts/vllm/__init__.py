"""Holds the service against a real vLLM server: `make vllm`."""

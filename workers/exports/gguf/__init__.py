"""Checkpoints as GGUF files, which llama.cpp and Ollama run: start with write.py."""

from workers.exports.gguf.refused import GgufRefused
from workers.exports.gguf.write import write_gguf

__all__ = ["GgufRefused", "write_gguf"]

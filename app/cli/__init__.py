"""The `cherry` command."""

from importlib.util import find_spec

if find_spec("fcntl") is None:  # Windows: locks, limits and signals that services and graders are built on
    raise SystemExit(
        "cherry: Cherry needs Linux or macOS. On Windows run it in WSL 2. A service that runs elsewhere can"
        " be used from Windows with the official `openai` client, and its dashboard with a browser."
    )

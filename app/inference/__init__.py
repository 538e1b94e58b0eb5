"""What the endpoints that ask a model share: the server behind them, its streams, and sampling parameters."""

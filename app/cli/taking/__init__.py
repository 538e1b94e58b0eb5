"""Models taken home: downloads that go on where they stopped, and lines that use them."""

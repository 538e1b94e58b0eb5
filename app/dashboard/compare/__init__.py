"""Up to six jobs side by side: their curves, what they have come to, and where their settings differ."""

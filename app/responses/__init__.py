"""The Responses API: a reply to items, with its history kept for the next turn."""

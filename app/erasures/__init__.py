"""What of the stored goes: when its time is over or its owner says so, with a record of what went."""

"""What torch and transformers know, told to a process that loads neither (`app/inspection.py` asks)."""

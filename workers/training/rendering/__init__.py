"""What a chat template makes of conversations: the form that it reads, and what it leaves out."""

"""Learning from written completions: the methods supervised and dpo, with TRL's trainers as their engine.

It knows no database, no job and no HTTP, like workers/training, whose policy, states, checkpoints and
measures it shares. What a run does is in run.py; docs/methods.md says it for users.
"""

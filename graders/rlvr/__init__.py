"""Grades `rlvr`: published RLVR rows as they are, each by the verifier that its row names."""

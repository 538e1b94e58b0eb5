"""Three recipes on SmolLM2-135M-Instruct (docs/recipes.md): sums, slots, intents."""

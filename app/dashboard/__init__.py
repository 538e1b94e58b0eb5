"""Pages for people: jobs, curves, samples, checkpoints. Rendered here; htmx and uPlot make them live."""

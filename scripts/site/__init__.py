"""The documentation as a site: its pages are `docs/`, its settings `mkdocs.yml`, its generator Zensical."""

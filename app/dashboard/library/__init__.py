"""What a project has beside jobs: files, models, keys, webhooks, evals; and the settings of the service."""

"""The room where jobs and graders are made: the form of a new job, and the playground for graders."""

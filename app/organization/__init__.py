"""Managing an organisation with an admin key: projects, their keys and service accounts, admin keys."""

"""Everything `cherry up` runs on one machine without other installations: Postgres, Valkey, supervisor."""

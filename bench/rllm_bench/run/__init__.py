"""Plans carried out: servers up, cells measured, records kept."""

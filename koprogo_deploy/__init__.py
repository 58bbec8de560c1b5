"""Deploy KoproGo to one small VPS, and prove that it fits and runs well."""

"""One module per family of cases; each exports ``cases()``."""

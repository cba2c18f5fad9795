"""The command line: ``dlc bench | tune | show | compile | train | records | doctor``."""

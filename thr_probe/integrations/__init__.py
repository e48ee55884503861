"""THR inside other trainers; each module needs the tool it is for. Nothing is loaded from here."""

"""The paper at desk scale: its rows as training runs on the lab, evaluated alike, in tables."""

"""How good estimated starts are: the Philly trace through the engine, with a forecast at submission, scored against what happened."""

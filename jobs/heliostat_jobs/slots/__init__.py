"""Who inside one job uses which slot of its lease: plain tasks and actors, Tune's trials, the trainers that trials build."""

"""What follows from config, data and machine before anything runs."""

from facescale.plan.plan import Plan, make_plan, pick_precision

__all__ = ["Plan", "make_plan", "pick_precision"]

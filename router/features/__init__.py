"""Temporary."""
from router.features import delivery
ALL = (delivery.feature,)

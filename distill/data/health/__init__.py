"""What is the matter with a data source, before anything is trained on it."""

from distill.data.health.copies import Copies, Pair, find_copies
from distill.data.health.findings import Health, check_health
from distill.data.health.survey import SurveyedPart, survey

__all__ = ["Copies", "Health", "Pair", "SurveyedPart", "check_health", "find_copies", "survey"]

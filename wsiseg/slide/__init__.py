"""Slides: opening them, and reading them as network rows in a ring, every segment decoded once."""

from wsiseg.slide.plan import ReadPlan, ring_bytes
from wsiseg.slide.pool import DecodePool
from wsiseg.slide.ring import NetworkReader, ReadStats
from wsiseg.slide.slide import Slide, open_slide, slide_id

__all__ = [
    "DecodePool",
    "NetworkReader",
    "ReadPlan",
    "ReadStats",
    "Slide",
    "open_slide",
    "ring_bytes",
    "slide_id",
]

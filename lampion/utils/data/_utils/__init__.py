"""The parts of DataLoader: fetching, collating, workers and how batches travel."""

from . import collate, fetch, worker

__all__ = ["collate", "fetch", "worker"]

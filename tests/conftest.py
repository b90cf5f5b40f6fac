"""What holds for every test: no network, one thread, and the shared tables importable."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch; more cost time on tiny tensors

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

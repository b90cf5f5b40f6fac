"""What holds for every test: no network, two threads, and the shared tables importable."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported

import sys
from pathlib import Path

import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(2)
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

"""What kernels started by nbval find in their environment: no progress bars, this checkout's package."""

import os
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"  # nbval compares stderr, and a bar is never the same twice
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the committed outputs are a CPU's
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")])
)

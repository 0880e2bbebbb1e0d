"""Mirror of a run in Weights & Biases. Never asks for anything: without a key or a network it writes offline files.

WANDB_MODE=disabled turns it off (and leaves wandb unimported), online or offline force that mode; WANDB_PROJECT,
WANDB_ENTITY and WANDB_RUN_NAME name the run. Offline files lie in the run folder; `wandb sync` uploads them later.
"""

import netrc
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

PROJECT = "rlhf-course"


def start(run_path: Path, config: dict[str, Any], resume: bool):
    """The wandb run that mirrors the run folder `run_path`, or None when it is switched off or does not start."""
    mode = choose_mode()
    if mode == "disabled":
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb

        return wandb.init(
            mode=mode,
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            entity=os.environ.get("WANDB_ENTITY"),
            name=os.environ.get("WANDB_RUN_NAME", run_path.name),
            id=run_path.name,
            resume="allow" if resume else None,
            dir=run_path,
            config=config,
            settings=wandb.Settings(silent=True, console="off", init_timeout=15, x_disable_stats=True),
        )
    except Exception as error:  # the mirror is a convenience; the run folder has everything
        print(f"wandb does not start ({type(error).__name__}: {error}); the run goes on without it.")
        return None


def choose_mode() -> str:
    """WANDB_MODE when it is set; else online with a key and a network, else offline."""
    mode = os.environ.get("WANDB_MODE", "").lower()
    if mode:
        return mode
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or "api.wandb.ai"
    return "online" if has_key(host) and reachable(host) else "offline"


def has_key(host: str) -> bool:
    """Is there an API key, in WANDB_API_KEY or in ~/.netrc?"""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def reachable(host: str, timeout: float = 2.0) -> bool:
    """Does `host` accept a connection within `timeout` seconds?"""
    try:
        with socket.create_connection((host, 443), timeout=timeout):
            return True
    except OSError:
        return False

"""`fklit serve-reward`: any reward as a service that `fklit.rewards.HTTPReward` asks, until it is told to stop."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from fklit.rewards import Reward

_EXAMPLE = "fklit serve-reward --reward CLIPScore --reward.model_name fklit:emoji_clip --port 8080"


def run(words: Sequence[str]) -> None:
    """Runs `fklit serve-reward WORDS`; returns after SIGTERM or Ctrl-C, when the requests in work are answered.

    Args:
        words: The options; see `--help`.

    Raises:
        ValueError, OSError: The reward cannot be made or loaded, or the port is taken.
        SystemExit: The words could not be understood.
    """
    parser = argparse.ArgumentParser(
        prog="fklit serve-reward",
        description="Serve a reward over HTTP: POST /score, GET /health, GET /rewards. Ask it by "
        "fklit.rewards.HTTPReward(URL, NAME).",
        epilog=f"Example: {_EXAMPLE}",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--reward",
        required=True,
        metavar="CLASS",
        help="class path or short name of the reward, or a YAML file with class_path and init_args; its arguments "
        "follow as --reward.NAME VALUE",
    )
    parser.add_argument("--name", help="what clients call it; default: the name of its class")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; the default is this machine only")
    parser.add_argument("--port", type=int, default=8080, help="port to listen at; 0 for a free one")
    parser.add_argument("--device", default=None, help="device of the reward; default: cuda if there is one, else cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="precision of its weights")
    parser.add_argument("--max_request_mb", type=int, default=256, help="largest request in MiB; default: 256")
    parser.add_argument("--api_key_env", help="environment variable with a key that clients must send; default: none")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options, more = parser.parse_known_args(list(words))
    stray = [word for word in more if word.startswith("-") and not word.startswith("--reward.")]
    if stray or (more and not more[0].startswith("--reward.")):
        parser.error(f"expected options, got {(stray or more)[0]}; `fklit serve-reward --help` lists them.")
    key = None
    if options.api_key_env is not None:
        key = os.environ.get(options.api_key_env, "").strip()
        if not key:
            parser.error(f"expected a key in the environment variable {options.api_key_env}, got none; set it.")

    import torch  # after --help, which is quick

    from fklit.rewards import RewardServer

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    reward = _instantiate(options.reward, more).to(device)
    if options.dtype is not None:
        reward = reward.to(getattr(torch, options.dtype))
    with RewardServer(
        reward,
        options.name,
        host=options.host,
        port=options.port,
        max_request_bytes=options.max_request_mb * 2**20,
        api_key=key,
    ) as server:
        stops = (signal.SIGTERM, signal.SIGINT)

        def stop(signum: int, frame: FrameType | None) -> None:
            # From another thread, as `shutdown` waits for the loop that this signal interrupts. Not a daemon: one that
            # outlives the interpreter aborts the process.
            threading.Thread(target=server.shutdown).start()

        before = {number: signal.signal(number, stop) for number in stops}
        try:
            host, port = server.server_address[:2]
            shown = host if isinstance(host, str) else host.decode()
            where = f"http://{shown}:{port} on {device}"
            print(f"{server.name} is served at {where}; Ctrl-C or SIGTERM stops it", flush=True)
            server.serve_forever()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    print("stopped", flush=True)


def _instantiate(reward: str, more: Sequence[str]) -> "Reward":
    # Not the parser of the other subcommands, whose imports would double the time to start.
    from jsonargparse import ArgumentParser

    from fklit.rewards import Reward

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            from fklit.cli.classes import short_names
            from fklit.cli.messages import explain

            sys.stderr.write(f"fklit: error: {explain(message, short_names())}\n(fklit serve-reward --help)\n")
            sys.exit(2)

    parser = Parser(prog="fklit serve-reward")
    parser.add_subclass_arguments(Reward, "reward", required=True)
    made: Reward = parser.instantiate(parser.parse_args([f"--reward={reward}", *more])).reward
    return made

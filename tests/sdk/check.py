#!/usr/bin/env python3
"""Every way an upstream fails, as the official SDKs see it through the gateway.

Environment:
  OUTRIGGER_BIN  the binary; it is both the gateway and the stand-in model server
  NODE_DRIVERS   the folder with the Node drivers and their modules; unset: they are left out
  ONLY           run only the cases whose name contains this

Each case gets a stand-in and a gateway of its own: one case's failures never open another's breaker.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "python"))

import anthropic_cases
import openai_cases
from report import check, done, fail
from servers import gateway, mock

SCENARIO = str(HERE / "scenario.yaml")


def run_python(name: str, case) -> None:
    with check(f"sdk: {name}"):
        with mock(SCENARIO) as upstream, gateway(f"{upstream}/v1") as through:
            case(through, upstream)


def run_node(name: str) -> None:
    """The driver prints its own verdict, unless it does not come to its end."""
    try:
        with mock(SCENARIO) as upstream, gateway(f"{upstream}/v1") as through:
            environment = {**os.environ, "BASE_URL": through.base, "MOCK_URL": upstream, "CASE": name}
            driver = ["node", f"{os.environ['NODE_DRIVERS']}/cases.mjs"]
            subprocess.run(driver, env=environment, timeout=60, check=True)
    except (RuntimeError, subprocess.SubprocessError) as error:
        fail(f"sdk, Node: {name}", error)


def node_cases() -> list[str]:
    driver = ["node", f"{os.environ['NODE_DRIVERS']}/cases.mjs", "--list"]
    return subprocess.run(driver, check=True, capture_output=True, text=True).stdout.split("\n")[:-1]


def main() -> None:
    only = os.environ.get("ONLY", "")
    for module in (openai_cases, anthropic_cases):
        for name, case in module.CASES.items():
            if only in name:
                run_python(name, case)
    if os.environ.get("NODE_DRIVERS"):
        for name in node_cases():
            if only in name:
                run_node(name)
    done()


if __name__ == "__main__":
    main()

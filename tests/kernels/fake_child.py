"""In place of the process that tries a backend: the backend's name says what it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def tell(**what):
    print(f"msclr-qualify {json.dumps(what)}", flush=True)


def main():
    spec = json.loads(sys.argv[1])
    if spec["backend"] == "does not start":
        sys.exit("no module named torch")
    for family in spec["families"]:
        tell(family=family, at="'a case' in float32")
        bad = family == "half"
        match spec["backend"]:
            case "aborts" if bad:
                os.abort()
            case "leaves" if bad:
                os._exit(0)
            case "hangs" if bad:
                subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
                time.sleep(60)
            case "takes long":
                for step in range(100):
                    time.sleep(0.1)
                    tell(family=family, at=f"step {step}")
            case "prints":
                print("Assertion `index` failed", end="")
                print("msclr-qualify {not JSON")
        tell(family=family, verdict={"adopted": True, "reason": "right", "seconds": 0.5})


if __name__ == "__main__":
    main()

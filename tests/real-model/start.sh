#!/usr/bin/env bash
# Starts the model server that setup.sh installed, waits until it answers, and prints its pid.
#
#   start.sh DIR PORT        the caller ends it: kill PID
#
# Environment: see serve.py. The server's log is DIR/PORT.log.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: start.sh DIR PORT}
port=${2:?usage: start.sh DIR PORT}
log=$dir/$port.log
health=http://127.0.0.1:$port/health

if curl --silent --output /dev/null --max-time 1 "$health"; then
  echo "port $port is in use already" >&2
  exit 1
fi

nohup "$dir/venv/bin/python" "$here/serve.py" "$dir/SmolLM2-135M-Instruct.Q4_1.gguf" "$port" >"$log" 2>&1 </dev/null &
pid=$!

# Loading takes about a second, three on a cold disk; a busy machine gets a minute.
deadline=$((SECONDS + 60))
until curl --silent --fail --output /dev/null --max-time 1 "$health"; do
  if ! kill -0 "$pid" 2>/dev/null; then
    echo "the model server ended while loading:" >&2
    tail -n 5 "$log" >&2
    exit 1
  fi
  if [ "$SECONDS" -ge "$deadline" ]; then
    kill "$pid"
    echo "the model server is not ready after 60 s, see $log" >&2
    exit 1
  fi
  sleep 0.1
done
echo "$pid"

#!/usr/bin/env python3
"""Reads secrets from Secret Manager into environment variables, and runs a command.

    with_secrets my-project WANDB_API_KEY OTHER_KEY -- switch_jax train ...

On a host of Google Cloud, whose account must be allowed to read them. Their newest versions are
taken. If one is missing or refused, the exit code is 2: another start would fail alike.
"""

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

METADATA = "http://metadata.google.internal"
SECRET_MANAGER = "https://secretmanager.googleapis.com"
_TOKEN = "computeMetadata/v1/instance/service-accounts/default/token"
_TIMEOUT = 60.0  # seconds for an answer


def main() -> None:
    """Becomes the command, with the variables that sys.argv names."""
    end = sys.argv.index("--")
    (project, *names), command = sys.argv[1:end], sys.argv[end + 1 :]
    try:
        token = _get(f"{METADATA}/{_TOKEN}", {"Metadata-Flavor": "Google"})["access_token"]
        for name in names:
            newest = f"v1/projects/{project}/secrets/{name}/versions/latest:access"
            found = _get(f"{SECRET_MANAGER}/{newest}", {"Authorization": f"Bearer {token}"})
            # As with $(gcloud secrets versions access latest), line breaks at the end are no part.
            os.environb[name.encode()] = base64.b64decode(found["payload"]["data"]).rstrip(b"\n")
    except urllib.error.HTTPError as error:
        reason = " ".join(error.read().decode(errors="replace").split())
        print(f"with_secrets: {error.code} for {error.url}: {reason}", file=sys.stderr)
        sys.exit(2 if error.code in (400, 403, 404) else 1)
    except OSError as error:
        sys.exit(f"with_secrets: {error}")
    os.execvp(command[0], command)


def _get(url: str, headers: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()

"""Commands that a person runs once, before the first job. The launcher prints them only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from switch_jax.launch.commands import Command, Piped

if TYPE_CHECKING:  # it imports this module
    from switch_jax.launch.google_cloud import GoogleCloudTarget


_ONCE = "once, run it yourself: "


def one_time(argv: tuple[str, ...], why: str) -> Command:
    return Command(argv, f"{_ONCE}{why}")


def store_secret(name: str, command: str) -> Command:
    """Gives the value of this shell's variable to a command that reads and keeps it."""
    argv = ("bash", "-c", f': "${{{name}:?}}"; printf %s "${name}" | {command}')
    return one_time(argv, f"keep the value of {name}, a variable of this shell (export {name}=...)")


def secret_manager(job: GoogleCloudTarget) -> list[Command]:
    """Keeps the job's secrets in Secret Manager, where the hosts read them."""
    create = f"--data-file=- --project={job.project}"
    return [store_secret(name, f"gcloud secrets create {name} {create}") for name in job.secret]


def image(job: GoogleCloudTarget) -> list[Command | Piped]:
    """Makes the image, with the job's own files; one named by its digest is there already."""
    if "@" in job.image:
        return []
    base = f"{job.image}-base" if job.user_files else job.image
    build = ("docker", "build", "--platform=linux/amd64")
    commands: list[Command | Piped] = [
        one_time(
            (*build, "--file=launch/Dockerfile", f"--tag={base}", "."),
            "build the image of switch_jax, from a checkout",
        )
    ]
    if job.user_files:
        # Each file goes to the folder that it has here, below the image's working directory.
        folders = [f"/app/{file[: file.rfind('/') + 1]}" for file in job.user_files]
        pairs = zip(job.user_files, folders, strict=True)
        copies = (f"COPY {json.dumps(pair)}" for pair in pairs)
        own = (*build, f"--tag={job.image}", "--file=-", ".")
        why = f"{_ONCE}build one with your files on top of it, from the folder that has them"
        commands.append(Piped((f"FROM {base}", *copies), own, why))
    push = ("docker", "push", job.image)
    return [*commands, one_time(push, "push the image to where the hosts pull it from")]

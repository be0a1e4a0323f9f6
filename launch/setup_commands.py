"""Commands that a person runs once, before the first job. The launcher prints them only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from switch_jax.launch.commands import Command, Piped

if TYPE_CHECKING:  # it imports this module
    from switch_jax.launch.google_cloud import GoogleCloudTarget


_ONCE = "once, run it yourself: "


def one_time(argv: tuple[str, ...], why: str) -> Command:
    """A command that a person runs once, before the first job."""
    return Command(argv, f"{_ONCE}{why}")


def store_secret(name: str, command: str) -> Command:
    """A command that stores the value of a variable of this shell by another command."""
    argv = ("bash", "-c", f': "${{{name}:?}}"; printf %s "${name}" | {command}')
    return one_time(argv, f"keep the value of {name}, a variable of this shell (export {name}=...)")


def image(job: GoogleCloudTarget) -> list[Command | Piped]:
    """Commands that build the image with the user's files; one named by a digest exists already."""
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
        on_top = (*build, f"--tag={job.image}", "--file=-", ".")
        why = f"{_ONCE}build one with your files on top of it, from the folder that has them"
        commands.append(Piped((f"FROM {base}", *copies), on_top, why))
    push = ("docker", "push", job.image)
    return [*commands, one_time(push, "push the image to where the hosts pull it from")]

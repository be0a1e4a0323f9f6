"""Has a run be killed in its save of step 8: all is there but what says that it is whole."""

import os
import signal

from orbax.checkpoint._src.path import async_path

write_text = async_path.write_text


async def write_or_die(path, *args, **options):
    if path.name == "commit_success.txt" and path.parent.name.split(".")[0] == "8":
        os.kill(os.getpid(), signal.SIGKILL)
    return await write_text(path, *args, **options)


async_path.write_text = write_or_die

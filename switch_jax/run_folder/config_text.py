"""The values in the text of a config.gin."""

import re


def config_values(text: str) -> dict[str, str]:
    """What the text sets, by macro or parameter, as it is written there."""
    # Gin begins a long value in a new line after a backslash, and goes on in further ones.
    lines = re.sub(r"( \\)?\n +", " ", text).splitlines()
    found = [re.fullmatch(r"([\w./]+) = (.*)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def value_of(name: str, values: dict[str, str]) -> str:
    """The value, with those of the macros that it refers to in their place.

    A reference that leads back to a value that it is in stays as it is.
    """
    others = {other: text for other, text in values.items() if other != name}

    def value(reference: re.Match[str]) -> str:
        return value_of(reference[1], others) if reference[1] in others else reference[0]

    return re.sub(r"%([\w./]+)", value, values[name])

"""Reading what the compiler prints."""

import re


def require_match(pattern: str | re.Pattern[str], text: str) -> re.Match[str]:
    """The first match.

    Raises:
      ValueError: there is none: this compiler prints programs in another way.
    """
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"the compiled program has a line that cannot be read: {text[:1000]}")
    return found

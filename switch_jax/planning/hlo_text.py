"""Regular expressions over the text of a compiled program."""

import re


def require_match(pattern: str | re.Pattern[str], text: str) -> re.Match[str]:
    """The first match of the pattern in the text.

    Raises:
      ValueError: there is none, since this compiler prints programs in another form.
    """
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"the compiled program has a line that cannot be read: {text[:1000]}")
    return match

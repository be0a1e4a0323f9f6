import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_the_image_takes_from_the_checkout_is_there():
    """No image can be built here."""
    text = (ROOT / "launch/Dockerfile").read_text()
    copied = re.findall(r"(?m)^COPY (\S+)", text)
    programs = dict(re.findall(r"\binstall (launch/\S+) /usr/local/bin/(\S+)", text))
    assert programs == {"launch/with_secrets.py": "with_secrets"}
    assert copied and all((ROOT / path).exists() for path in [*copied, *programs])

"""Recognises variables and options that hold secrets, and hides their values in messages."""

import re

from switch_jax.launch.commands import quote

# Words of a name that tell of a secret wherever they stand, and those that do as its last word, or
# before a number or the form of what it holds: API_KEY_2, AUTH_HEADER.
_ANYWHERE = (
    r"[a-z]*(password|passwd|passphrase|secret|credential)s?|creds|(access|api|private)_?keys?"
    r"|authorization|bearer|cookies?|webhook"
)
_LAST = r"keys?|[a-z]*tokens?|(ssh)?pass|auth|pat|jwt|dsn|signatures?|(?<=_)pwd"
_FORM = r"[0-9]+|b(ase)?64|header|json|pem|string|value"
# What names a secret's place, and a key that is no secret.
_NO_SECRET = r"google_application_credentials|.*_(dir|file|name|path)|.*public_key"
_SECRET_NAME = re.compile(
    rf"(?i)(?!({_NO_SECRET})$)(.*_)?(({_ANYWHERE})(_.*)?|({_LAST})(_({_FORM}))?)"
)
_SECRET_VALUE = re.compile(
    r"(?i)(^|//)[^\s/:@]*:[^\s/@]+@"  # user:password@host
    r"|https?://[^\s/@]+@"  # token@host
    r"|(password|pwd|secret|token|(access|account|api)[-_]?key)=\S|\bbearer \S|private key-----"
    # Tokens of GitHub, GitLab, Hugging Face, OpenAI and others, Slack, AWS and Google.
    r"|\b(gh[oprsu]_|github_pat_|glpat-|xox[abprs]-|ya29\.)[\w-]{10,}"
    r"|\b(?-i:hf_[A-Za-z0-9]{30,}|sk-(?=[\w-]*[0-9])(?=[\w-]*[A-Z])[\w-]{20,}"
    r"|AKIA[0-9A-Z]{16}|AIza[\w-]{30,})"
)
_COUNT = re.compile(r"(?i).*(tokens|keys)")
_SWITCH = re.compile(r"(?i)[01]?|true|false|yes|no|on|off")


def looks_secret(name: str, value: str) -> bool:
    """Whether a variable seems to hold a secret, by name or value; switches and counts never do."""
    if _SWITCH.fullmatch(value) or (_COUNT.fullmatch(name) and value.isdecimal()):
        return False
    return bool(_SECRET_NAME.fullmatch(name) or _SECRET_VALUE.search(value))


def hide_value(variable: str) -> str:
    """Returns NAME=... for NAME=VALUE; a text without "=" may be a value, and gives "..."."""
    name, equals, _ = variable.partition("=")
    return f"{quote(name)}=..." if equals else "..."

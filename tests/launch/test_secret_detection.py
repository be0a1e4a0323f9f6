"""Which variables hold secrets, and that no message repeats what may be one."""

import pytest

from switch_jax.launch.secret_detection import looks_secret
from switch_jax.utils.errors import UserError
from tests.launch.jobs import make_job

SECRET = """
HF_TOKEN WANDB_API_KEY my_token KEY API_KEYS GITHUB_PAT NPM_AUTH AUTH BASIC_AUTH AUTHORIZATION
DB_PASS DB_PASS_2 MYSQL_PWD DB_PASSWD PGPASSWORD SSHPASS GPG_PASSPHRASE PASSWORD_DB CREDENTIALS
GCP_CREDENTIALS CREDENTIALS_JSON GOOGLE_CREDS CLIENT_SECRET SECRET_KEY_BASE OPENAI_APIKEY
PRIVATE_KEY TLS_PRIVATE_KEY_PEM SSH_PRIVATE_KEY_BASE64 AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
AWS_SESSION_TOKEN BEARER BEARER_TOKEN SESSION_COOKIE COOKIE SIGNATURE SENTRY_DSN ID_JWT
AUTH_HEADER SLACK_WEBHOOK_URL _1_TOKEN
""".split()
SHOWN = """
COMPASS MONKEY KEYBOARD TOKENIZERS_PARALLELISM PATH XLA_FLAGS PWD OLDPWD BYPASS PATTERN AUTHOR
GOOGLE_APPLICATION_CREDENTIALS AWS_SHARED_CREDENTIALS_FILE WANDB_API_KEY_FILE KEY_FILE PASSWORD_PATH
TOKEN_LIMIT SSH_PUBLIC_KEY SECRETARY AUTHORS_NAME LIBTPU_INIT_ARGS SPATIAL HF_HUB_OFFLINE
""".split()
SECRET_VALUES = [
    "postgres://me:s3cret@db:5432/x", "me:s3cret@tcp(db:3306)/x", "redis://:s3cret@cache",
    "http://me:s3cret@proxy:3128", "https://s3cret@github.com/me/data",
    "-----BEGIN RSA PRIVATE KEY-----\ns3cret", "Authorization=Bearer s3cret",
    "AccountName=me;AccountKey=s3cret", "host=db password=s3cret", "https://x/y?access_token=s3cret",
    "ghp_0123456789abcdefABCDEF012345", "github_pat_11AAAAAAA0abcdefghij_0123", "gho_abcdefghij",
    "hf_abcdefghijABCDEFGHIJabcdefghijABCD", "sk-abcdefghijABCD0123456789",
    "sk-proj-abcdABCD0123456789", "glpat-abcdefghij0123456789", "xoxb-0123456789-abc",
    "AKIA0123456789ABCDEF",
    "x,hf_abcdefghijABCDEFGHIJabcdefghijABCD", "AIzaSyA-abcdefghijABCDEFGHIJ0123456789_",
]  # fmt: skip
SHOWN_VALUES = [
    "postgres://me@db/x", "https://pypi.org/simple", "ssh://git@github.com/me/x", "me@my.org",
    "gs://bucket/x@2", "localhost:8476", "--xla_dump_to=/tmp/x --xla_a=1", "a=b, $c", "12:30", "",
    "hf_xet", "sk-learn", "task-sk", "runs/hf_model", "/data/disk-0123456789abc", "gs://ghp_x/y",
    "/mnt/hf_datasets_cache", "gs://b/sk-wikipedia-2020", "gs://bucket/sk-jax-cache-folder",
    "hf_datasets_nightly", "gs://b/aizawa-dataset-of-2020",
]  # fmt: skip


def test_a_name_that_says_so_is_a_secret_unless_it_is_a_switch():
    assert [name for name in SECRET if not looks_secret(name, "x1")] == []
    assert [name for name in SHOWN if looks_secret(name, "x1")] == []
    assert not looks_secret("MAX_TOKENS", "512") and looks_secret("DB_PASS", "512")
    switches = ("", "0", "1", "true", "False")
    assert not any(looks_secret(name, switch) for name in SECRET for switch in switches)


def test_a_value_with_a_password_is_a_secret_under_any_name():
    assert [value for value in SECRET_VALUES if not looks_secret("ANY", value)] == []
    assert [value for value in SHOWN_VALUES if looks_secret("ANY", value)] == []


@pytest.mark.parametrize(
    ("flag", "given", "message"),
    [
        ("env", "DB_PASS=s3cret", "--env=DB_PASS=...: this looks like a secret, and every printed"),
        ("env", "ANY=redis://:s3cret@cache", "--env=ANY=...: this looks like a secret, and every"),
        ("env", "MY-NAME=s3cret", "--env=MY-NAME=...: write --env=NAME=VALUE"),
        ("env", "s3cret", "--env=...: write --env=NAME=VALUE"),
        ("secret", "A_KEY=s3cret", "--secret=A_KEY=...: write the name alone, as in --secret=WAN"),
        ("secret", "s3cret", "--secret=...: write the name alone, as in --secret=WANDB_API_KEY"),
    ],
)
def test_no_message_repeats_a_value(flag, given, message):
    with pytest.raises(UserError) as error:
        make_job("v5e-16", **{flag: (given,)})
    assert str(error.value).startswith(message)
    assert "s3cret" not in str(error.value)

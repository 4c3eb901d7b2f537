"""Settings from the environment, which no other module reads. docs/operations.md lists each variable."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Built once by each process; the field names in capitals are the environment variables."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    database_url: str = Field(description="PostgreSQL, e.g. postgresql://user:password@host:5432/loraloom")
    broker_url: str = Field(description="a Redis-protocol broker, e.g. redis://:password@host:6379/0")
    broker_prefix: str = Field("", description="put before every key, where instances share one broker")
    s3_endpoint_url: str | None = Field(None, description="the S3 server; unset means Amazon's own")
    s3_bucket: str = Field("loraloom", description="the bucket, created if it is not there")
    s3_region: str = Field("us-east-1", description="the bucket's region")
    aws_access_key_id: str | None = Field(None, description="S3 key id; unset means the machine's own role")
    aws_secret_access_key: str | None = Field(None, description="S3 secret key")
    s3_public_url: str | None = Field(
        None, description="if set, downloads are redirected to presigned addresses on this S3 host"
    )
    cache_dir: Path = Field(
        Path("data/cache"), description="where a worker keeps inputs by hash and converted base models"
    )
    base_cache_bytes: int | None = Field(
        None, description="most bytes of downloaded bases that a worker keeps there; unset means no limit"
    )
    teachers_file: Path | None = Field(
        None,
        description="a JSON file that names OpenAI-compatible servers which may vote on examples; unset means none",
    )
    starter: bool = Field(True, description="publish the starter library when the instance is first seeded")
    max_upload_bytes: int = Field(4 * 2**30, description="largest body of one upload")
    lfs_part_bytes: int = Field(512 * 2**20, description="files larger than this come by LFS in parts of this size")
    upstream_url: str | None = Field(
        None, description="another hub whose repos are answered for here, e.g. https://huggingface.co; unset means none"
    )
    upstream_token: str | None = Field(None, description="the token that this hub shows to the upstream, if any")
    upstream_namespaces: str = Field(
        "", description="namespaces of the upstream that are answered for, with spaces between"
    )
    upstream_days: float = Field(30.0, description="how long what came from the upstream is kept")
    job_hours: float = Field(24.0, description="longest that any job may take, its waiting aside")
    lease_seconds: float = Field(30.0, description="how long a worker holds a job between two heartbeats")
    checkpoint_seconds: float = Field(30.0, description="pause between two checkpoints of a training job")
    sweep_seconds: float = Field(5.0, description="pause between two rounds of the sweep")
    blob_grace_hours: float = Field(48.0, description="age at which bytes that nothing needs are collected")
    restore_days: float = Field(7.0, description="how long a deleted repo can be restored")
    session_days: float = Field(14.0, description="how long a browser session lasts")
    requests_per_minute: int = Field(
        3_000, description="requests that one token, session or, of visitors, address may send in a minute; 0: no limit"
    )
    sign_in_attempts: int = Field(
        10,
        description="failed sign-ins within five minutes for one user, and ten times as many from one address; 0: no limit",
    )
    oidc_issuer: str | None = Field(
        None,
        description="OpenID Connect provider that people sign in by, e.g. https://login.example.org; unset means none",
    )
    oidc_client_id: str = Field("", description="what this hub is called there")
    oidc_client_secret: str | None = Field(None, description="its secret there, if it has one")
    oidc_label: str = Field("your organization", description="what the button on the sign-in page calls the provider")
    oidc_admit: bool = Field(True, description="every user of the provider gets a user here at their first sign-in")
    webhook_hosts: str = Field(
        "",
        description="hosts that webhooks may be sent to, with spaces between: host or host:port, by https; http://host where that is meant",
    )
    cookie_secure: bool = Field(False, description="set the session cookie for https only")


def load_settings() -> Settings:
    """The settings of this process. Raises pydantic's ValidationError naming each variable that is missing."""
    return Settings()


class ExternalServices(BaseSettings):
    """Services that somebody else runs. `python -m hub up` starts from wheels whatever is not set here."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    database_url: str | None = None
    broker_url: str | None = None
    s3_endpoint_url: str | None = None
    aws_access_key_id: str | None = None
    aws_secret_access_key: str | None = None


def load_external_services() -> ExternalServices:
    return ExternalServices()

"""Tables of who may do what: users, namespaces, memberships, and every secret that signs somebody in, as a hash."""

import uuid
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Identity,
    Index,
    String,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from hub.registry.models.columns import Json, Sha256, Time, one_of
from hub.registry.platform.db import Table
from hub.vocabulary import NamespaceKind, Role


class User(Table):
    __tablename__ = "users"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    name: Mapped[str] = mapped_column(String(96), unique=True)
    is_admin: Mapped[bool] = mapped_column(server_default=text("false"))
    password_hash: Mapped[str | None] = mapped_column(Text)  # argon2id; null: signs in by other means
    # Set for a service account, which is not a person: it belongs to this organization and has only tokens.
    service_of: Mapped[str | None] = mapped_column(ForeignKey("namespaces.name"), index=True)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    # Names that differ only in case would be told apart by programs and not by people.
    __table_args__ = (Index("ix_users_lower_name", func.lower(name), unique=True),)


class Namespace(Table):
    """A person's or an organization's; what owns repos, jobs and holdings."""

    __tablename__ = "namespaces"
    name: Mapped[str] = mapped_column(String(96), primary_key=True)
    kind: Mapped[NamespaceKind] = mapped_column(String(12))
    quota_bytes: Mapped[int | None] = mapped_column(BigInteger)  # null: as the instance's settings say
    quota_jobs: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    __table_args__ = (
        one_of("kind", NamespaceKind),
        Index("ix_namespaces_lower_name", func.lower(name), unique=True),
    )


class Membership(Table):
    """What a user may do in a namespace. A person is admin of the namespace of their name."""

    __tablename__ = "memberships"
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True)
    role: Mapped[Role] = mapped_column(String(5))
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    __table_args__ = (one_of("role", Role),)


class Invitation(Table):
    """A link that makes the first signed-in person who accepts it a member."""

    __tablename__ = "invitations"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name", ondelete="CASCADE"), index=True)
    hash: Mapped[str] = mapped_column(Sha256, unique=True)
    role: Mapped[Role] = mapped_column(String(5))
    invited_by: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(Time)
    __table_args__ = (one_of("role", Role),)


class OpenIdentity(Table):
    """A user as an OpenID Connect provider knows them: the pair of issuer and subject never changes, names and addresses may."""

    __tablename__ = "identities"
    issuer: Mapped[str] = mapped_column(Text, primary_key=True)
    subject: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())


class Token(Table):
    """A secret for programs. Only its SHA-256 is kept: the secret has 256 random bits, so a slow hash adds nothing."""

    __tablename__ = "tokens"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(96))
    hash: Mapped[str] = mapped_column(Sha256, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String(10)))
    repos: Mapped[list[str] | None] = mapped_column(
        ARRAY(Text)
    )  # null: wherever its user may; else these, or "namespace/*"
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    expires_at: Mapped[datetime | None] = mapped_column(Time)


class BrowserSession(Table):
    __tablename__ = "sessions"
    hash: Mapped[str] = mapped_column(Sha256, primary_key=True)
    id: Mapped[uuid.UUID] = mapped_column(unique=True, server_default=text("uuidv7()"))
    agent: Mapped[str] = mapped_column(String(300), server_default="")  # the browser as it names itself
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(Time)


class DeviceLogin(Table):
    """A program that waits to be signed in: it polls with the device code while a person enters the user code on a page."""

    __tablename__ = "device_logins"
    hash: Mapped[str] = mapped_column(Sha256, primary_key=True)  # of the device code
    user_code: Mapped[str] = mapped_column(String(9), unique=True)
    user_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))  # who approved it
    denied: Mapped[bool] = mapped_column(server_default=text("false"))
    expires_at: Mapped[datetime] = mapped_column(Time)


class AuditEvent(Table):
    """Who did what. Rows are only added; names are kept as they were, so that they outlive what was deleted later."""

    __tablename__ = "audit_events"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(Time, server_default=func.now())
    actor: Mapped[str | None] = mapped_column(Text)  # null: nobody who is signed in
    action: Mapped[str] = mapped_column(String(40))
    namespace: Mapped[str | None] = mapped_column(Text)  # null: of the instance as a whole
    subject: Mapped[str] = mapped_column(Text)
    details: Mapped[Json] = mapped_column(JSONB)
    __table_args__ = (Index("ix_audit_events_namespace", "namespace", "id"),)

"""facts found fast

A migration runs while the previous version of the code still serves: add what is new now, remove what is old in a later release. What that
version publishes meanwhile is found by words of one or two characters once it is published again.

Revision: 0013, after 0012
"""

import re
from itertools import pairwise

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None

LISTED = sa.text('current and not deleted')
FILTERED = ('base', 'method', 'task', 'rank', 'namespace', 'name', 'visibility')
BY = {'base': 'base', 'method': 'method', 'task': 'task', 'owner': 'namespace', 'visibility': 'visibility'}
NEWEST = [sa.literal_column(f'{column} DESC') for column in ('published_at', 'commit_id', 'folder')]


def upgrade() -> None:
    # How the rows lie: what lists and filters read stays together, the large rest goes out of the way; and enough of the searched texts
    # is known to tell a rare word from a frequent one.
    op.execute("ALTER TABLE adapter_facts SET (toast_tuple_target = 256)")
    op.add_column('adapter_facts', sa.Column('short', postgresql.ARRAY(sa.Text()), server_default='{}', nullable=False))
    for column in ('search', 'short', 'tags'):
        op.execute(f"ALTER TABLE adapter_facts ALTER COLUMN {column} SET STORAGE MAIN")
    op.execute("ALTER TABLE adapter_facts ALTER COLUMN search SET STATISTICS 300")
    for name in BY:
        op.drop_index(f'ix_adapter_facts_by_{name}', table_name='adapter_facts')
    op.drop_index('ix_adapter_facts_by_newest', table_name='adapter_facts')
    fill_short()
    op.create_index('ix_adapter_facts_by_newest', 'adapter_facts', NEWEST, postgresql_where=LISTED, postgresql_include=FILTERED)
    for name, column in {**BY, 'rank': 'rank'}.items():
        others = [each for each in FILTERED if each != column]
        op.create_index(f'ix_adapter_facts_by_{name}', 'adapter_facts', [column, NEWEST[0]], postgresql_where=LISTED, postgresql_include=others)
    op.create_index('ix_adapter_facts_by_short', 'adapter_facts', ['short'], postgresql_using='gin', postgresql_where=LISTED)


def fill_short() -> None:
    facts = sa.table('adapter_facts', *map(sa.column, ('commit_id', 'folder', 'search')), sa.column('short', postgresql.ARRAY(sa.Text())))
    found = op.get_bind().execute(sa.select(facts.c.commit_id, facts.c.folder, facts.c.search)).all()
    change = (
        sa.update(facts)
        .where(facts.c.commit_id == sa.bindparam('of_commit'), facts.c.folder == sa.bindparam('of_folder'))
        .values(short=sa.bindparam('words'))
    )
    rows = [{'of_commit': commit, 'of_folder': folder, 'words': short_words(text)} for commit, folder, text in found]
    if rows:
        op.get_bind().execute(change, rows)


def short_words(text: str) -> list[str]:
    """As hub.registry.repos made them when this was written."""
    found = {start[:length] for start in re.findall('[a-z0-9]+', text) for length in (1, 2)}
    for piece in text.split():
        found.update(char for char in piece if not (char.isascii() and char.isalnum()))
        found.update(first + second for first, second in pairwise(piece) if not (first + second).isascii())
    return sorted(found)


def downgrade() -> None:
    for name in (*BY, 'rank', 'newest', 'short'):
        op.drop_index(f'ix_adapter_facts_by_{name}', table_name='adapter_facts')
    op.create_index('ix_adapter_facts_by_newest', 'adapter_facts', NEWEST, postgresql_where=LISTED)
    for name, column in BY.items():
        op.create_index(f'ix_adapter_facts_by_{name}', 'adapter_facts', [column, NEWEST[0]], postgresql_where=LISTED)
    op.drop_column('adapter_facts', 'short')
    op.execute("ALTER TABLE adapter_facts ALTER COLUMN search SET STATISTICS -1")
    for column in ('search', 'tags'):
        op.execute(f"ALTER TABLE adapter_facts ALTER COLUMN {column} SET STORAGE EXTENDED")
    op.execute("ALTER TABLE adapter_facts RESET (toast_tuple_target)")

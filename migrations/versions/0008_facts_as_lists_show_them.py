"""facts as lists show them

A migration runs while the previous version of the code still serves: add what is new now, remove what is old in a later release.

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None

AS_REPO = """
UPDATE adapter_facts SET namespace = repos.namespace, name = repos.name, visibility = repos.visibility, deleted = repos.deleted
FROM repos WHERE repos.id = adapter_facts.repo_id
"""

# What the job that made a module measured on it.
OWN_SCORES = """
UPDATE adapter_facts SET measured = own.measured
FROM (
    SELECT DISTINCT ON (commits.id) commits.id, jsonb_build_object(
        'metric', metric, 'value', value, 'low', low, 'high', high, 'examples', examples
    ) AS measured
    FROM scores JOIN commits ON commits.id = scores.commit_id AND commits.job_id = scores.job_id
    WHERE metric <> 'target_loss' ORDER BY commits.id, metric <> 'exact_match', metric
) AS own WHERE own.id = adapter_facts.commit_id
"""

# For what the previous version publishes meanwhile, which does not know these columns; a later release may drop it.
FILL_IN = """
CREATE FUNCTION adapter_facts_fill_in() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT namespace, name, visibility, deleted INTO NEW.namespace, NEW.name, NEW.visibility, NEW.deleted
    FROM repos WHERE id = NEW.repo_id;
    RETURN NEW;
END $$;
CREATE TRIGGER fill_in BEFORE INSERT ON adapter_facts FOR EACH ROW WHEN (NEW.namespace IS NULL)
EXECUTE FUNCTION adapter_facts_fill_in();
"""


def upgrade() -> None:
    op.add_column('repos', sa.Column('deleted', sa.Boolean(), sa.Computed('deleted_at is not null', persisted=True), nullable=False))
    op.create_unique_constraint(op.f('uq_repos_id_namespace_name_visibility_deleted'), 'repos', ['id', 'namespace', 'name', 'visibility', 'deleted'])
    op.add_column('adapter_facts', sa.Column('namespace', sa.String(length=96), nullable=True))
    op.add_column('adapter_facts', sa.Column('name', sa.String(length=96), nullable=True))
    op.add_column('adapter_facts', sa.Column('visibility', sa.String(length=10), nullable=True))
    op.add_column('adapter_facts', sa.Column('deleted', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.add_column('adapter_facts', sa.Column('base', sa.Text(), sa.Computed('coalesce(base_id, base_model)', persisted=True), nullable=True))
    op.add_column('adapter_facts', sa.Column('task', sa.Text(), sa.Computed("facts ->> 'task_type'", persisted=True), nullable=True))
    op.add_column('adapter_facts', sa.Column('licence', sa.Text(), sa.Computed("facts ->> 'licence'", persisted=True), nullable=True))
    op.add_column('adapter_facts', sa.Column('parameters', sa.BigInteger(), sa.Computed("coalesce((facts ->> 'parameters')::bigint, 0)", persisted=True), nullable=False))
    op.add_column('adapter_facts', sa.Column('size_bytes', sa.BigInteger(), sa.Computed("coalesce((facts ->> 'size_bytes')::bigint, 0)", persisted=True), nullable=False))
    op.add_column('adapter_facts', sa.Column('measured', postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column('adapter_facts', sa.Column('score', sa.Double(), sa.Computed("coalesce((measured ->> 'value')::double precision, -1)", persisted=True), nullable=False))
    op.execute(AS_REPO)
    op.execute(OWN_SCORES)
    for column in ('namespace', 'name', 'visibility'):
        op.alter_column('adapter_facts', column, nullable=False)
    op.execute(FILL_IN)
    op.drop_index(op.f('ix_adapter_facts_base'), table_name='adapter_facts', postgresql_where='current')
    op.drop_index(op.f('ix_adapter_facts_listing'), table_name='adapter_facts', postgresql_where='current')
    op.drop_index(op.f('ix_adapter_facts_search'), table_name='adapter_facts', postgresql_ops={'search': 'gin_trgm_ops'}, postgresql_using='gin', postgresql_where='current')
    op.drop_index(op.f('ix_adapter_facts_tags'), table_name='adapter_facts', postgresql_using='gin', postgresql_where='current')
    op.create_index('ix_adapter_facts_by_base', 'adapter_facts', ['base', sa.literal_column('published_at DESC')], unique=False, postgresql_where=sa.text('current and not deleted'))
    op.create_index('ix_adapter_facts_by_method', 'adapter_facts', ['method', sa.literal_column('published_at DESC')], unique=False, postgresql_where=sa.text('current and not deleted'))
    op.create_index('ix_adapter_facts_by_name', 'adapter_facts', ['namespace', 'name', 'folder'], unique=False, postgresql_where=sa.text('current and not deleted'))
    op.create_index('ix_adapter_facts_by_newest', 'adapter_facts', [sa.literal_column('published_at DESC'), sa.literal_column('commit_id DESC'), sa.literal_column('folder DESC')], unique=False, postgresql_where=sa.text('current and not deleted'))
    op.create_index('ix_adapter_facts_by_owner', 'adapter_facts', ['namespace', sa.literal_column('published_at DESC')], unique=False, postgresql_where=sa.text('current and not deleted'))
    op.create_index('ix_adapter_facts_by_score', 'adapter_facts', [sa.literal_column('score DESC'), sa.literal_column('published_at DESC'), sa.literal_column('commit_id DESC'), sa.literal_column('folder DESC')], unique=False, postgresql_where=sa.text('current and not deleted'))
    op.create_index('ix_adapter_facts_by_search', 'adapter_facts', ['search'], unique=False, postgresql_where=sa.text('current and not deleted'), postgresql_using='gin', postgresql_ops={'search': 'gin_trgm_ops'})
    op.create_index('ix_adapter_facts_by_size', 'adapter_facts', [sa.literal_column('size_bytes DESC'), sa.literal_column('published_at DESC'), sa.literal_column('commit_id DESC'), sa.literal_column('folder DESC')], unique=False, postgresql_where=sa.text('current and not deleted'))
    op.create_index('ix_adapter_facts_by_tags', 'adapter_facts', ['tags'], unique=False, postgresql_where=sa.text('current and not deleted'), postgresql_using='gin')
    op.create_index('ix_adapter_facts_by_task', 'adapter_facts', ['task', sa.literal_column('published_at DESC')], unique=False, postgresql_where=sa.text('current and not deleted'))
    op.create_index('ix_adapter_facts_by_visibility', 'adapter_facts', ['visibility', sa.literal_column('published_at DESC')], unique=False, postgresql_where=sa.text('current and not deleted'))
    op.drop_constraint(op.f('fk_adapter_facts_repo_id_repos'), 'adapter_facts', type_='foreignkey')
    op.create_foreign_key('fk_adapter_facts_repo', 'adapter_facts', 'repos', ['repo_id', 'namespace', 'name', 'visibility', 'deleted'], ['id', 'namespace', 'name', 'visibility', 'deleted'], onupdate='CASCADE')


def downgrade() -> None:
    op.drop_constraint('fk_adapter_facts_repo', 'adapter_facts', type_='foreignkey')
    op.drop_constraint(op.f('uq_repos_id_namespace_name_visibility_deleted'), 'repos', type_='unique')
    op.drop_column('repos', 'deleted')
    op.execute('DROP TRIGGER fill_in ON adapter_facts')
    op.execute('DROP FUNCTION adapter_facts_fill_in')
    op.create_foreign_key(op.f('fk_adapter_facts_repo_id_repos'), 'adapter_facts', 'repos', ['repo_id'], ['id'])
    op.drop_index('ix_adapter_facts_by_visibility', table_name='adapter_facts', postgresql_where=sa.text('current and not deleted'))
    op.drop_index('ix_adapter_facts_by_task', table_name='adapter_facts', postgresql_where=sa.text('current and not deleted'))
    op.drop_index('ix_adapter_facts_by_tags', table_name='adapter_facts', postgresql_where=sa.text('current and not deleted'), postgresql_using='gin')
    op.drop_index('ix_adapter_facts_by_size', table_name='adapter_facts', postgresql_where=sa.text('current and not deleted'))
    op.drop_index('ix_adapter_facts_by_search', table_name='adapter_facts', postgresql_where=sa.text('current and not deleted'), postgresql_using='gin', postgresql_ops={'search': 'gin_trgm_ops'})
    op.drop_index('ix_adapter_facts_by_score', table_name='adapter_facts', postgresql_where=sa.text('current and not deleted'))
    op.drop_index('ix_adapter_facts_by_owner', table_name='adapter_facts', postgresql_where=sa.text('current and not deleted'))
    op.drop_index('ix_adapter_facts_by_newest', table_name='adapter_facts', postgresql_where=sa.text('current and not deleted'))
    op.drop_index('ix_adapter_facts_by_name', table_name='adapter_facts', postgresql_where=sa.text('current and not deleted'))
    op.drop_index('ix_adapter_facts_by_method', table_name='adapter_facts', postgresql_where=sa.text('current and not deleted'))
    op.drop_index('ix_adapter_facts_by_base', table_name='adapter_facts', postgresql_where=sa.text('current and not deleted'))
    op.create_index(op.f('ix_adapter_facts_tags'), 'adapter_facts', ['tags'], unique=False, postgresql_using='gin', postgresql_where='current')
    op.create_index(op.f('ix_adapter_facts_search'), 'adapter_facts', ['search'], unique=False, postgresql_ops={'search': 'gin_trgm_ops'}, postgresql_using='gin', postgresql_where='current')
    op.create_index(op.f('ix_adapter_facts_listing'), 'adapter_facts', [sa.literal_column('published_at DESC'), sa.literal_column('commit_id DESC')], unique=False, postgresql_where='current')
    op.create_index(op.f('ix_adapter_facts_base'), 'adapter_facts', ['base_model', sa.literal_column('published_at DESC')], unique=False, postgresql_where='current')
    op.drop_column('adapter_facts', 'score')
    op.drop_column('adapter_facts', 'measured')
    op.drop_column('adapter_facts', 'size_bytes')
    op.drop_column('adapter_facts', 'parameters')
    op.drop_column('adapter_facts', 'licence')
    op.drop_column('adapter_facts', 'task')
    op.drop_column('adapter_facts', 'base')
    op.drop_column('adapter_facts', 'deleted')
    op.drop_column('adapter_facts', 'visibility')
    op.drop_column('adapter_facts', 'name')
    op.drop_column('adapter_facts', 'namespace')

"""What Alembic runs: the revisions, on the connection that the adapter gives."""

from alembic import context

from wado.adapters.index.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

"""What Alembic runs to migrate; the connection and its transaction are the caller's."""

from alembic import context

from server.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True
)
context.run_migrations()

-- Spreads the index over the workers of a Citus cluster, by tenant. Run once, as the owner of the
-- tables, in the database that `wado init` has prepared and before it holds much:
--
--   psql "$OWNER_URL" --set ON_ERROR_STOP=1 --file citus.sql
--
-- All tables are co-located: rows of one tenant lie on one worker, whatever the table, so that a
-- search and a put are each sent to one worker. alembic_version and index_generation stay where
-- they are, on the coordinator.

CREATE EXTENSION IF NOT EXISTS citus;

SELECT create_distributed_table('study', 'tenant_id');
SELECT create_distributed_table('series', 'tenant_id', colocate_with => 'study');
SELECT create_distributed_table('series_awaiting', 'tenant_id', colocate_with => 'study');
SELECT create_distributed_table('study_modality', 'tenant_id', colocate_with => 'study');
SELECT create_distributed_table('study_count', 'tenant_id', colocate_with => 'study');
SELECT create_distributed_table('patient', 'tenant_id', colocate_with => 'study');

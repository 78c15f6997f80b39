"""A stand-in for Apache Doris, which can't be had as a package: one FE and one BE in one process.

It speaks Stream Load over HTTP and the MySQL protocol, keeps rows and labels in a DuckDB file, and
is for tests and `make cluster`. It is meant to be strict: what Doris refuses is refused, and what
the stand-in does not know is refused too, never passed over. It was never compared with a running
Doris.

Held to the source of Doris (2.x to 4.0) and to its manuals, learnt and written anew:

- FE: 200 with ``code`` 401 for strangers; ``There is no 100-continue header``; 307 to a BE with
  user and password in the address; no byte of a body is used.
- BE: who asks is checked again; order of checks; ``100 Continue`` only when the head is good;
  Content-Length or chunked, and not both; size limits; the names, types and order of the fields of
  an answer; always 200; `timeout`.
- Labels: their form, one database each, RUNNING, PRECOMMITTED and FINISHED; free again after a
  failure; kept for 12 hours and to the last 2000 of a database unless the FE is set otherwise
  (`scripts/backing/doris.py` sets it as our documents advise).
- JSON (lines, array, paths), CSV, Parquet; `columns` with expressions, `where`; strict and other
  mode, `max_filter_ratio`, error logs; lengths in bytes; the zone of the load (+08:00 if unsaid).
- Unique keys, sequence columns, `merge_type`, fixed partial update; two phases.
- Definitions: see `checks` and `ddl`; automatic and given ranges; 3 replicas unless said otherwise.
- DELETE by kind of table, INSERT … VALUES, TRUNCATE, SHOW, DESC, information_schema.

The loaders of the Flink connector, ray-doris and DorisClient, PyMySQL and asyncmy are run against
it (tests/integration/test_doris_stand_in_clients.py).

Not known, or otherwise here:

- Exact words of some refusals; numbers of errors but for those that have one of
  MySQL (1045, 1046, 1049, 1050, 1051, 1054, 1060, 1193).
- A column that is missing in a JSON row takes its default here; in some versions NULL.
- A text is not cast to a number in expressions of `columns` and `where`; queries go to DuckDB by
  way of sqlglot, so functions and casts are DuckDB's where sqlglot does not know better.
- Aggregate tables, list partitions, AUTO_INCREMENT, CURRENT_TIMESTAMP as a default, arrays, maps,
  VARIANT paths, UPDATE, flexible partial update, group commit, compressed bodies, Routine Load,
  materialised views, schema changes but for added columns: refused.
- Users have no privileges to lack; GRANT does nothing. Replicas, buckets and indexes are checked
  and kept, and have no effect. Dynamic partitions are not made as time goes by.
- DELETE, INSERT and TRUNCATE are seen at once. No limits of memory, versions or running loads.
"""

-- Who asked what of the web API; one row per request.
CREATE TABLE IF NOT EXISTS wado_access_log (
    tenant_id VARCHAR NOT NULL,
    requested_at VARCHAR NOT NULL,
    trace_id VARCHAR NOT NULL,
    method VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    query VARCHAR NOT NULL,
    status BIGINT NOT NULL,
    bytes_sent BIGINT NOT NULL,
    duration_ms DOUBLE NOT NULL,
    user_name VARCHAR,
    remote_address VARCHAR,
    user_agent VARCHAR
);

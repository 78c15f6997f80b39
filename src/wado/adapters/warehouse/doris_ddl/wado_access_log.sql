-- Who asked what of the web API; one row per request.
CREATE TABLE IF NOT EXISTS `wado_access_log` (
    `tenant_id` VARCHAR(64) NOT NULL,
    `requested_at` DATETIME(6) NOT NULL,
    `trace_id` VARCHAR(128) NOT NULL,
    `method` VARCHAR(256) NOT NULL,
    `path` VARCHAR(16384) NOT NULL,
    `query` VARCHAR(16384) NOT NULL,
    `status` BIGINT NOT NULL,
    `bytes_sent` BIGINT NOT NULL,
    `duration_ms` DOUBLE NOT NULL,
    `user_name` VARCHAR(1024) NULL,
    `remote_address` VARCHAR(256) NULL,
    `user_agent` VARCHAR(4096) NULL
)
ENGINE = OLAP
DUPLICATE KEY (`tenant_id`, `requested_at`)
AUTO PARTITION BY RANGE (date_trunc(`requested_at`, 'month')) ()
DISTRIBUTED BY HASH (`trace_id`) BUCKETS ${buckets}
PROPERTIES (
    "replication_num" = "${replicas}",
    "compression" = "zstd",
    "bloom_filter_columns" = "trace_id, user_name"
);

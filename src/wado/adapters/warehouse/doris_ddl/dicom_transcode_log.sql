-- Instances that were transcoded, or could not be, with the reason; one row per attempt.
-- When a copy was asked for is written once, into the request: a row that comes again has the same,
-- so it may be the partition, and is part of the key for that.
CREATE TABLE IF NOT EXISTS `dicom_transcode_log` (
    `tenant_id` VARCHAR(64) NOT NULL,
    `requested_at` DATETIME(6) NOT NULL,
    `request_id` VARCHAR(64) NOT NULL,
    `attempt` BIGINT NOT NULL,
    `transcoded_at` DATETIME(6) NOT NULL,
    `study_instance_uid` VARCHAR(64) NOT NULL,
    `series_instance_uid` VARCHAR(64) NOT NULL,
    `sop_instance_uid` VARCHAR(64) NOT NULL,
    `transfer_syntax_uid` VARCHAR(256) NOT NULL,
    `target_transfer_syntax_uid` VARCHAR(256) NOT NULL,
    `requested_transfer_syntax_uid` VARCHAR(256) NOT NULL,
    `file_path` VARCHAR(1024) NOT NULL,
    `file_size` BIGINT NULL,
    `derived_path` VARCHAR(1024) NULL,
    `derived_size` BIGINT NULL,
    `succeeded` BOOLEAN NOT NULL,
    `reason` VARCHAR(4096) NULL,
    `codec` VARCHAR(256) NULL,
    `number_of_frames` BIGINT NULL,
    `modality` VARCHAR(64) NULL,
    `duration_ms` DOUBLE NULL,
    `trace_id` VARCHAR(128) NOT NULL
)
ENGINE = OLAP
UNIQUE KEY (`tenant_id`, `requested_at`, `request_id`, `attempt`)
AUTO PARTITION BY RANGE (date_trunc(`requested_at`, 'month')) ()
DISTRIBUTED BY HASH (`request_id`) BUCKETS ${buckets}
PROPERTIES (
    "replication_num" = "${replicas}",
    "enable_unique_key_merge_on_write" = "true",
    "compression" = "zstd",
    "bloom_filter_columns" = "study_instance_uid, sop_instance_uid"
);

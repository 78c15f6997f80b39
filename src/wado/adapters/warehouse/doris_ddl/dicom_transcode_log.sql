-- Instances that were transcoded, or could not be, with the reason; one row per attempt.
CREATE TABLE IF NOT EXISTS `dicom_transcode_log` (
    `tenant_id` VARCHAR(64) NOT NULL,
    `transcoded_at` DATETIME(6) NOT NULL,
    `study_instance_uid` VARCHAR(64) NOT NULL,
    `series_instance_uid` VARCHAR(64) NOT NULL,
    `sop_instance_uid` VARCHAR(64) NOT NULL,
    `transfer_syntax_uid` VARCHAR(256) NOT NULL,
    `target_transfer_syntax_uid` VARCHAR(256) NOT NULL,
    `file_path` VARCHAR(1024) NOT NULL,
    `file_size` BIGINT NULL,
    `derived_path` VARCHAR(1024) NULL,
    `derived_size` BIGINT NULL,
    `succeeded` BOOLEAN NOT NULL,
    `reason` VARCHAR(4096) NULL,
    `codec` VARCHAR(256) NULL,
    `number_of_frames` BIGINT NULL,
    `modality` VARCHAR(64) NULL,
    `attempt` BIGINT NULL,
    `duration_ms` DOUBLE NULL,
    `trace_id` VARCHAR(128) NOT NULL
)
ENGINE = OLAP
DUPLICATE KEY (`tenant_id`, `transcoded_at`)
AUTO PARTITION BY RANGE (date_trunc(`transcoded_at`, 'month')) ()
DISTRIBUTED BY HASH (`study_instance_uid`) BUCKETS ${buckets}
PROPERTIES (
    "replication_num" = "${replicas}",
    "compression" = "zstd",
    "bloom_filter_columns" = "study_instance_uid, sop_instance_uid"
);

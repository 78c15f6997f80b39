-- One row per reception, also of instances that were there already.
-- The time of reception is written once, into the announcement: a row that comes again has the
-- same, so it may be the partition, and is part of the key for that.
CREATE TABLE IF NOT EXISTS `dicom_object_meta` (
    `tenant_id` VARCHAR(64) NOT NULL,
    `received_at` DATETIME(6) NOT NULL,
    `trace_id` VARCHAR(128) NOT NULL,
    `file_path` VARCHAR(1024) NOT NULL,
    `study_instance_uid` VARCHAR(64) NOT NULL,
    `series_instance_uid` VARCHAR(64) NOT NULL,
    `sop_instance_uid` VARCHAR(64) NOT NULL,
    `sop_class_uid` VARCHAR(256) NOT NULL,
    `transfer_syntax_uid` VARCHAR(256) NOT NULL,
    `patient_id` VARCHAR(1024) NOT NULL,
    `file_name` VARCHAR(1024) NOT NULL,
    `file_size` BIGINT NOT NULL,
    `digest` VARCHAR(128) NOT NULL,
    `source_ae_title` VARCHAR(256) NULL,
    `source_address` VARCHAR(256) NULL,
    `source_protocol` VARCHAR(256) NULL
)
ENGINE = OLAP
UNIQUE KEY (`tenant_id`, `received_at`, `trace_id`, `file_path`)
AUTO PARTITION BY RANGE (date_trunc(`received_at`, 'month')) ()
DISTRIBUTED BY HASH (`trace_id`) BUCKETS ${buckets}
PROPERTIES (
    "replication_num" = "${replicas}",
    "enable_unique_key_merge_on_write" = "true",
    "compression" = "zstd",
    "bloom_filter_columns" = "study_instance_uid, sop_instance_uid"
);

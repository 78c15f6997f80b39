-- Image attributes; one row per instance, the last that was loaded.
-- No partitions: a key is unique within a partition only, and no date of an instance is the same
-- each time it is loaded (docs/adr/0015).
CREATE TABLE IF NOT EXISTS `dicom_image_meta` (
    `tenant_id` VARCHAR(64) NOT NULL,
    `study_instance_uid` VARCHAR(64) NOT NULL,
    `series_instance_uid` VARCHAR(64) NOT NULL,
    `sop_instance_uid` VARCHAR(64) NOT NULL,
    `sop_class_uid` VARCHAR(256) NOT NULL,
    `transfer_syntax_uid` VARCHAR(256) NOT NULL,
    `file_path` VARCHAR(1024) NOT NULL,
    `file_size` BIGINT NOT NULL,
    `digest` VARCHAR(128) NOT NULL,
    `received_at` DATETIME(6) NOT NULL,
    `trace_id` VARCHAR(128) NOT NULL,
    `patient_id` VARCHAR(1024) NULL,
    `modality` VARCHAR(256) NULL,
    `study_date` VARCHAR(256) NULL,
    `instance_number` BIGINT NULL,
    `image_type` VARCHAR(1024) NULL,
    `content_date` VARCHAR(256) NULL,
    `content_time` VARCHAR(256) NULL,
    `acquisition_date_time` VARCHAR(256) NULL,
    `acquisition_number` BIGINT NULL,
    `rows` BIGINT NULL,
    `columns` BIGINT NULL,
    `number_of_frames` BIGINT NULL,
    `samples_per_pixel` BIGINT NULL,
    `photometric_interpretation` VARCHAR(256) NULL,
    `bits_allocated` BIGINT NULL,
    `bits_stored` BIGINT NULL,
    `pixel_representation` BIGINT NULL,
    `slice_thickness` VARCHAR(256) NULL,
    `pixel_spacing` VARCHAR(256) NULL,
    `image_position_patient` VARCHAR(256) NULL,
    `image_orientation_patient` VARCHAR(512) NULL,
    `lossy_image_compression` VARCHAR(256) NULL,
    INDEX `by_sop_instance_uid` (`sop_instance_uid`) USING INVERTED,
    INDEX `by_sop_class_uid` (`sop_class_uid`) USING INVERTED
)
ENGINE = OLAP
UNIQUE KEY (`tenant_id`, `study_instance_uid`, `series_instance_uid`, `sop_instance_uid`)
DISTRIBUTED BY HASH (`study_instance_uid`) BUCKETS ${image_buckets}
PROPERTIES (
    "replication_num" = "${replicas}",
    "enable_unique_key_merge_on_write" = "true",
    "compression" = "zstd"
);

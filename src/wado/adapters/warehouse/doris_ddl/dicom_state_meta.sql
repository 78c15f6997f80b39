-- Patient, study and series attributes; one row per series, the last that was loaded.
-- No partitions, as in dicom_image_meta: a series has no date that stays.
CREATE TABLE IF NOT EXISTS `dicom_state_meta` (
    `tenant_id` VARCHAR(64) NOT NULL,
    `study_instance_uid` VARCHAR(64) NOT NULL,
    `series_instance_uid` VARCHAR(64) NOT NULL,
    `patient_id` VARCHAR(1024) NULL,
    `issuer_of_patient_id` VARCHAR(1024) NULL,
    `patient_name` VARCHAR(2048) NULL,
    `patient_birth_date` VARCHAR(256) NULL,
    `patient_sex` VARCHAR(256) NULL,
    `study_date` VARCHAR(256) NULL,
    `study_time` VARCHAR(256) NULL,
    `study_id` VARCHAR(1024) NULL,
    `study_description` VARCHAR(1024) NULL,
    `accession_number` VARCHAR(1024) NULL,
    `referring_physician_name` VARCHAR(2048) NULL,
    `timezone_offset_from_utc` VARCHAR(256) NULL,
    `modality` VARCHAR(256) NULL,
    `series_number` BIGINT NULL,
    `series_description` VARCHAR(1024) NULL,
    `series_date` VARCHAR(256) NULL,
    `series_time` VARCHAR(256) NULL,
    `body_part_examined` VARCHAR(256) NULL,
    `laterality` VARCHAR(256) NULL,
    `protocol_name` VARCHAR(1024) NULL,
    `station_name` VARCHAR(1024) NULL,
    `institution_name` VARCHAR(1024) NULL,
    `manufacturer` VARCHAR(1024) NULL,
    `manufacturer_model_name` VARCHAR(1024) NULL,
    `performed_procedure_step_start_date` VARCHAR(256) NULL,
    `performed_procedure_step_start_time` VARCHAR(256) NULL,
    `scheduled_procedure_step_id` VARCHAR(1024) NULL,
    `requested_procedure_id` VARCHAR(1024) NULL,
    `number_of_series_related_instances` BIGINT NULL,
    `updated_at` DATETIME(6) NULL
)
ENGINE = OLAP
UNIQUE KEY (`tenant_id`, `study_instance_uid`, `series_instance_uid`)
DISTRIBUTED BY HASH (`study_instance_uid`) BUCKETS ${buckets}
PROPERTIES (
    "replication_num" = "${replicas}",
    "enable_unique_key_merge_on_write" = "true",
    "compression" = "zstd",
    "bloom_filter_columns" = "patient_id, accession_number"
);

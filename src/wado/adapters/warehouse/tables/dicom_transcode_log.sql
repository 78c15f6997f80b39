-- Instances that were transcoded, or could not be, with the reason; one row per attempt.
CREATE TABLE IF NOT EXISTS dicom_transcode_log (
    tenant_id VARCHAR NOT NULL,
    study_instance_uid VARCHAR NOT NULL,
    series_instance_uid VARCHAR NOT NULL,
    sop_instance_uid VARCHAR NOT NULL,
    transfer_syntax_uid VARCHAR NOT NULL,
    target_transfer_syntax_uid VARCHAR NOT NULL,
    file_path VARCHAR NOT NULL,
    file_size BIGINT,
    derived_path VARCHAR,
    derived_size BIGINT,
    succeeded BOOLEAN NOT NULL,
    reason VARCHAR,
    codec VARCHAR,
    number_of_frames BIGINT,
    modality VARCHAR,
    attempt BIGINT,
    duration_ms DOUBLE,
    transcoded_at VARCHAR NOT NULL,
    trace_id VARCHAR NOT NULL
);

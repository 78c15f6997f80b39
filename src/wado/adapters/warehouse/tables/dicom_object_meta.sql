-- One row per reception, also of instances that were there already.
CREATE TABLE IF NOT EXISTS dicom_object_meta (
    tenant_id VARCHAR NOT NULL,
    study_instance_uid VARCHAR NOT NULL,
    series_instance_uid VARCHAR NOT NULL,
    sop_instance_uid VARCHAR NOT NULL,
    sop_class_uid VARCHAR NOT NULL,
    transfer_syntax_uid VARCHAR NOT NULL,
    patient_id VARCHAR NOT NULL,
    file_name VARCHAR NOT NULL,
    file_path VARCHAR NOT NULL,
    file_size BIGINT NOT NULL,
    digest VARCHAR NOT NULL,
    received_at VARCHAR NOT NULL,
    trace_id VARCHAR NOT NULL,
    source_ae_title VARCHAR,
    source_address VARCHAR,
    source_protocol VARCHAR,
    PRIMARY KEY (trace_id, file_path)
);

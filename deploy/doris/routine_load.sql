-- Doris reads Kafka by itself (Routine Load), in place of our loader, for `dicom_object_meta`.
--
-- Only this table: its rows are never changed, and one that comes twice is one row. The others stay
-- with the consumer. Of several rows of a key in one load (states of a series, images that were
-- replaced) Routine Load may keep any, without a sequence column; it does not apply the records of
-- deletions; and a message of the access log holds several records. So set first
--
--   [consumer]
--   load_tables = ["dicom_state_meta", "dicom_image_meta", "wado_access_log", "dicom_transcode_log"]
--
-- and start all consumers again. Put in your brokers (and the prefix of `log.url`, if it has one, before the topic), then run
-- this in the database of the warehouse, after `wado init`:
--
--   mysql -h FE -P 9030 -u wado -p wado < deploy/doris/routine_load.sql
--
-- It begins with the oldest message that Kafka has: what our loader has loaded already is replaced
-- by the same rows. A row that does not fit pauses the job (SHOW ROUTINE LOAD says why, RESUME
-- ROUTINE LOAD goes on): nothing is cut, and there are no dead letters. `wado status` goes on
-- counting the lag of our loader, which does not read this topic any more.

CREATE ROUTINE LOAD `log_queue` ON `dicom_object_meta`
PROPERTIES (
    "format" = "json",
    "strict_mode" = "true",
    "timezone" = "UTC",
    "max_error_number" = "0",
    "max_filter_ratio" = "0",
    "desired_concurrent_number" = "3",
    "max_batch_interval" = "10"
)
FROM KAFKA (
    "kafka_broker_list" = "kafka-1:9092,kafka-2:9092,kafka-3:9092",
    "kafka_topic" = "log_queue",
    "property.group.id" = "wado-routine-load",
    "property.kafka_default_offsets" = "OFFSET_BEGINNING"
);

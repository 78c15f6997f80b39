-- Batches that were loaded: a label is loaded once, however often it is sent.
CREATE TABLE IF NOT EXISTS load_label (
    label VARCHAR NOT NULL,
    loaded_at VARCHAR NOT NULL,
    PRIMARY KEY (label)
);

-- What a build leaves behind, and who may end it: the same as for MySQL, where the columns are explained.
CREATE TABLE ocibuild_log (
    task_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (task_id, position)
);

CREATE TABLE ocibuild_step (
    task_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    begin_millis INTEGER NOT NULL,
    millis INTEGER NULL,
    layer TEXT NULL,
    layer_size INTEGER NULL,
    error TEXT NULL,
    PRIMARY KEY (task_id, number)
) WITHOUT ROWID;

CREATE TABLE ocibuild_app (
    app_name TEXT NOT NULL PRIMARY KEY
) WITHOUT ROWID;

CREATE TABLE ocibuild_context (
    context_id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NULL,
    size INTEGER NOT NULL DEFAULT 0,
    complete INTEGER NOT NULL DEFAULT 0,
    used_at TEXT NOT NULL
);
CREATE INDEX ocibuild_context_used ON ocibuild_context (used_at);

CREATE TABLE ocibuild_context_chunk (
    context_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (context_id, position)
);

ALTER TABLE ocibuild_task ADD COLUMN error_code TEXT NULL;
ALTER TABLE ocibuild_task ADD COLUMN pushed TEXT NULL;
ALTER TABLE ocibuild_task ADD COLUMN request TEXT NULL;
ALTER TABLE ocibuild_task ADD COLUMN context_id TEXT NULL;
ALTER TABLE ocibuild_task ADD COLUMN tenant TEXT NULL;
ALTER TABLE ocibuild_task ADD COLUMN trace_parent TEXT NULL;
ALTER TABLE ocibuild_task ADD COLUMN cancel_reason TEXT NULL;
ALTER TABLE ocibuild_task ADD COLUMN log_length INTEGER NULL;
CREATE INDEX ocibuild_task_tenant ON ocibuild_task (tenant);
CREATE INDEX ocibuild_task_ended ON ocibuild_task (ended_at, log_length);

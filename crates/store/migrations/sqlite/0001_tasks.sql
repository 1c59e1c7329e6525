-- The same two tables as for MySQL, so that a database can be copied from one to the other.
-- Times are UTC texts `YYYY-MM-DD HH:MM:SS.mmm`, which sort as they should.
CREATE TABLE IF NOT EXISTS darwin_image_builder (
    task_id TEXT NOT NULL PRIMARY KEY,
    app_name TEXT NOT NULL,
    image_tag TEXT NOT NULL,
    logs_url TEXT NULL,
    build_params TEXT NULL,
    status TEXT NOT NULL DEFAULT 'waiting',
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE INDEX IF NOT EXISTS idx_darwin_imag_status_2f380b ON darwin_image_builder (status, created_at);
CREATE INDEX IF NOT EXISTS idx_darwin_imag_created_9fb1d0 ON darwin_image_builder (created_at);

CREATE TABLE IF NOT EXISTS ocibuild_task (
    task_id TEXT NOT NULL PRIMARY KEY,
    dockerfile TEXT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    lease_owner TEXT NULL,
    lease_token TEXT NULL,
    lease_expires_at TEXT NULL,
    started_at TEXT NULL,
    ended_at TEXT NULL,
    error TEXT NULL,
    commit_id TEXT NULL,
    digest TEXT NULL
);
CREATE INDEX IF NOT EXISTS ocibuild_task_lease ON ocibuild_task (lease_expires_at);

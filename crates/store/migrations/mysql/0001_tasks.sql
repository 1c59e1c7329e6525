-- The table of Darwin's artifact builder, column for column, so that either service can
-- run on the other's data. It is used as it is where it exists.
CREATE TABLE IF NOT EXISTS `darwin_image_builder` (
    `task_id` VARCHAR(255) NOT NULL PRIMARY KEY,
    `app_name` VARCHAR(255) NOT NULL,
    `image_tag` VARCHAR(255) NOT NULL,
    `logs_url` LONGTEXT NULL,
    `build_params` JSON NULL,
    `status` VARCHAR(9) NOT NULL DEFAULT 'waiting' COMMENT 'waiting, running, completed or failed',
    `created_at` DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    `updated_at` DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    KEY `idx_darwin_imag_status_2f380b` (`status`),
    KEY `idx_darwin_imag_created_9fb1d0` (`created_at`)
) CHARACTER SET utf8mb4;

-- What this service knows beyond it. A row of the other table may have none here. The binary
-- collation can be compared with any collation that the other table was created with.
CREATE TABLE IF NOT EXISTS `ocibuild_task` (
    `task_id` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
    `dockerfile` LONGTEXT NULL,
    `attempts` INT NOT NULL DEFAULT 0,
    `lease_owner` VARCHAR(255) NULL,
    `lease_token` CHAR(32) NULL,
    `lease_expires_at` DATETIME(6) NULL,
    `started_at` DATETIME(6) NULL,
    `ended_at` DATETIME(6) NULL,
    `error` LONGTEXT NULL,
    `commit_id` VARCHAR(64) NULL,
    `digest` VARCHAR(160) NULL,
    KEY `ocibuild_task_lease` (`lease_expires_at`)
) CHARACTER SET utf8mb4;

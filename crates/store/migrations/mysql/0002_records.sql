-- What a build leaves behind, and who may end it. MySQL commits after each of these statements, so
-- that a crash may leave some of them done: every one can be run again.

-- The log of a task, in parts that follow each other without a gap.
CREATE TABLE IF NOT EXISTS `ocibuild_log` (
    `task_id` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    `position` BIGINT NOT NULL COMMENT 'where in the log this part begins, in bytes',
    `data` MEDIUMBLOB NOT NULL,
    PRIMARY KEY (`task_id`, `position`)
) CHARACTER SET utf8mb4;

-- The steps of the latest attempt.
CREATE TABLE IF NOT EXISTS `ocibuild_step` (
    `task_id` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    `number` INT NOT NULL,
    `name` LONGTEXT NOT NULL,
    `state` VARCHAR(9) NOT NULL,
    `begin_millis` BIGINT NOT NULL,
    `millis` BIGINT NULL,
    `layer` VARCHAR(160) NULL,
    `layer_size` BIGINT NULL,
    `error` LONGTEXT NULL,
    PRIMARY KEY (`task_id`, `number`)
) CHARACTER SET utf8mb4;

-- One row for each application: what replicas lock while they count its running tasks.
CREATE TABLE IF NOT EXISTS `ocibuild_app` (
    `app_name` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY
) CHARACTER SET utf8mb4;

-- Uploaded contexts, and their bytes in parts that follow each other without a gap.
CREATE TABLE IF NOT EXISTS `ocibuild_context` (
    `context_id` CHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
    `tenant` VARCHAR(255) NULL,
    `size` BIGINT NOT NULL DEFAULT 0,
    `complete` INT NOT NULL DEFAULT 0,
    `used_at` DATETIME(6) NOT NULL COMMENT 'last uploaded to, or named by a new task',
    KEY `ocibuild_context_used` (`used_at`)
) CHARACTER SET utf8mb4;

CREATE TABLE IF NOT EXISTS `ocibuild_context_chunk` (
    `context_id` CHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    `position` BIGINT NOT NULL COMMENT 'where in the context this part begins, in bytes',
    `data` MEDIUMBLOB NOT NULL,
    PRIMARY KEY (`context_id`, `position`)
) CHARACTER SET utf8mb4;

-- Only MariaDB knows ADD COLUMN IF NOT EXISTS. The columns come in one statement, which is done or not.
SET @ocibuild_alter = IF(
    EXISTS (
        SELECT 1 FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name = 'ocibuild_task' AND column_name = 'log_length'
    ),
    'DO 0',
    'ALTER TABLE `ocibuild_task`
         ADD COLUMN `error_code` VARCHAR(16) NULL,
         ADD COLUMN `pushed` LONGTEXT NULL,
         ADD COLUMN `request` LONGTEXT NULL,
         ADD COLUMN `context_id` CHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
         ADD COLUMN `tenant` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
         ADD COLUMN `trace_parent` VARCHAR(64) NULL,
         ADD COLUMN `cancel_reason` LONGTEXT NULL,
         ADD COLUMN `log_length` BIGINT NULL,
         ADD KEY `ocibuild_task_tenant` (`tenant`),
         ADD KEY `ocibuild_task_ended` (`ended_at`, `log_length`)'
);
PREPARE ocibuild_alter FROM @ocibuild_alter;
EXECUTE ocibuild_alter;
DEALLOCATE PREPARE ocibuild_alter;

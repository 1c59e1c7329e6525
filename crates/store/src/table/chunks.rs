//! Long bytes in short rows: logs and contexts are kept as parts that follow each other.
//!
//! A part begins where the one before it ends, so that a place in the whole is found by its
//! number alone.

use crate::database::{Database, Work};
use crate::statement::sql;
use crate::store::Result;
use crate::table::row::size;

/// A table of parts.
pub(super) struct Chunks {
    /// The most bytes in one row.
    largest: usize,
    insert: &'static str,
    select: &'static str,
    delete: &'static str,
}

/// The parts of logs.
pub(super) const LOG: Chunks = Chunks {
    largest: 64 << 10,
    insert: "INSERT INTO ocibuild_log (task_id, position, data) VALUES (?, ?, ?)",
    select: "SELECT position, data FROM ocibuild_log
         WHERE task_id = ? AND position < ? AND position >= (
             SELECT COALESCE(MAX(position), 0) FROM ocibuild_log
             WHERE task_id = ? AND position <= ?)
         ORDER BY position",
    delete: "DELETE FROM ocibuild_log WHERE task_id = ?",
};

/// The parts of uploaded contexts.
pub(super) const CONTEXT: Chunks = Chunks {
    largest: 1 << 20,
    insert: "INSERT INTO ocibuild_context_chunk (context_id, position, data) VALUES (?, ?, ?)",
    select: "SELECT position, data FROM ocibuild_context_chunk
         WHERE context_id = ? AND position < ? AND position >= (
             SELECT COALESCE(MAX(position), 0) FROM ocibuild_context_chunk
             WHERE context_id = ? AND position <= ?)
         ORDER BY position",
    delete: "DELETE FROM ocibuild_context_chunk WHERE context_id = ?",
};

impl Chunks {
    /// Adds bytes at the end, which is at `position`.
    pub(super) async fn add<D: Database>(
        &self,
        work: &mut Work<D>,
        key: &str,
        position: u64,
        data: &[u8],
    ) -> Result<()> {
        let mut position = position;
        for part in data.chunks(self.largest) {
            let insert = sql(self.insert).bind(key).bind(position).bind(part);
            work.execute(insert).await?;
            position += part.len() as u64;
        }
        Ok(())
    }

    /// Reads up to `limit` bytes from `offset` on, at least one where there is one.
    pub(super) async fn read<D: Database>(
        &self,
        work: &mut Work<D>,
        key: &str,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<u8>> {
        let end = offset.saturating_add(limit.max(1));
        let select = sql(self.select).bind(key).bind(end).bind(key).bind(offset);
        let parts: Vec<(i64, Vec<u8>)> = work.rows(select).await?;
        Ok(between(&parts, offset, end))
    }

    /// Deletes everything.
    pub(super) async fn delete<D: Database>(&self, work: &mut Work<D>, key: &str) -> Result<()> {
        work.execute(sql(self.delete).bind(key)).await?;
        Ok(())
    }
}

/// Cuts the bytes from `offset` to `end` out of parts that follow each other.
fn between(parts: &[(i64, Vec<u8>)], offset: u64, end: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (position, data) in parts {
        let position = size(*position);
        let length = data.len() as u64;
        let from = offset.saturating_sub(position).min(length);
        let to = end.saturating_sub(position).min(length);
        // Both fit: they are not above the length of what is in memory.
        bytes.extend_from_slice(&data[from as usize..to as usize]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_at_both_ends() {
        let parts = [
            (4, b"efgh".to_vec()),
            (8, b"i".to_vec()),
            (9, b"jk".to_vec()),
        ];
        for (offset, end, expected) in [
            (4, 11, "efghijk"),
            (5, 6, "f"),
            (7, 10, "hij"),
            (9, 100, "jk"),
            (11, 12, ""),
            (40, 50, ""),
        ] {
            assert_eq!(
                between(&parts, offset, end),
                expected.as_bytes(),
                "{offset}..{end}"
            );
        }
        assert_eq!(between(&[], 0, 10), b"");
    }
}

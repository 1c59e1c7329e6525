//! What a layer from outside may cost.

/// The most that reading one layer may take; a layer that asks for more is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Entries, whiteouts among them.
    pub entries: u64,
    /// Bytes of the uncompressed tar.
    pub size: u64,
    /// Bytes of one path or link target.
    pub name: usize,
    /// Bytes of one component of a path.
    pub component: usize,
    /// Bytes of all extended attributes of one entry.
    pub xattrs: usize,
    /// Bytes of all paths, targets and attributes together: what the table of
    /// contents takes in memory.
    pub metadata: u64,
    /// Uncompressed bytes per compressed byte, looked at after [`Limits::RATIO_FROM`].
    pub ratio: u64,
}

impl Limits {
    /// Uncompressed bytes from which on the ratio matters: small layers of zeros are harmless.
    pub const RATIO_FROM: u64 = 1 << 30;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            size: 1 << 40,
            name: 4095,
            component: 255,
            xattrs: 1 << 20,
            metadata: 256 << 20,
            ratio: 5000,
        }
    }
}

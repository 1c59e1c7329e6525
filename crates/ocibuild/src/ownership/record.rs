//! One record and its bytes.
//!
//! ```text
//! byte 0      1, the version
//! byte 1      0, or the letter of a device: c, b
//! bytes 2-3   the twelve permission bits, little-endian like all that follows
//! bytes 4-7   user
//! bytes 8-11  group
//! bytes 12-19 major and minor number, for devices only
//! ```

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::{Error, kind};

const VERSION: u8 = 1;
const SIZE: usize = 12;
const DEVICE_SIZE: usize = SIZE + 8;

/// How long a record can be.
pub(super) const MAX_SIZE: usize = DEVICE_SIZE;

const PERMISSIONS: u32 = 0o7777;

/// What a file is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The twelve permission bits.
    pub mode: u32,
    /// The device for which an empty file stands.
    pub device: Option<Device>,
}

/// A device that could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
}

impl Device {
    /// Gives the type that a program is to see.
    pub fn file_type(self) -> FileType {
        match self {
            Self::Char(..) => FileType::CharacterDevice,
            Self::Block(..) => FileType::BlockDevice,
        }
    }

    /// Gives major and minor number.
    pub fn numbers(self) -> (u32, u32) {
        match self {
            Self::Char(major, minor) | Self::Block(major, minor) => (major, minor),
        }
    }
}

impl Record {
    /// Gives what a file without a record is.
    pub fn plain(st_mode: u32) -> Self {
        Self {
            uid: 0,
            gid: 0,
            mode: st_mode & PERMISSIONS,
            device: None,
        }
    }

    /// Gives the whole `st_mode` that a program is to see for a file that has this one
    /// on the disk.
    pub fn st_mode(&self, on_disk: u32) -> u32 {
        let kind = self.device.map_or(kind(on_disk), Device::file_type);
        kind.as_raw_mode() | (self.mode & PERMISSIONS)
    }

    /// Gives the permission bits for the disk; links have none.
    pub fn disk_mode(&self, st_mode: u32) -> Option<u32> {
        let shown = self.mode & 0o777;
        Some(match kind(st_mode) {
            FileType::Symlink => return None,
            FileType::Directory => shown | 0o700,
            // What any user may execute root may, so the builder must be allowed to.
            FileType::RegularFile if shown & 0o111 != 0 => shown | 0o700,
            FileType::RegularFile => shown | 0o600,
            _ => self.mode & PERMISSIONS,
        })
    }

    /// Tells whether a file of this type on the disk needs no record to mean this.
    pub fn is_held_by_disk(&self, st_mode: u32) -> bool {
        let is_owned = (self.uid, self.gid) != (0, 0);
        let disk_mode = self.disk_mode(st_mode);
        !is_owned
            && self.device.is_none()
            && disk_mode.is_none_or(|mode| mode == self.mode & PERMISSIONS)
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let letter = match self.device {
            None => 0,
            Some(Device::Char(..)) => b'c',
            Some(Device::Block(..)) => b'b',
        };
        let mode = (self.mode & PERMISSIONS) as u16;
        let mut bytes = vec![VERSION, letter];
        bytes.extend(mode.to_le_bytes());
        bytes.extend(self.uid.to_le_bytes());
        bytes.extend(self.gid.to_le_bytes());
        if let Some(device) = self.device {
            let (major, minor) = device.numbers();
            bytes.extend(major.to_le_bytes());
            bytes.extend(minor.to_le_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let Some((&[version, letter, mode_low, mode_high], ids)) = bytes.split_first_chunk() else {
            return Err(Error::Malformed);
        };
        let mode = u32::from(u16::from_le_bytes([mode_low, mode_high]));
        let numbers: Vec<u32> = ids.chunks(4).filter_map(number).collect();
        let (uid, gid, device) = match (letter, &numbers[..], bytes.len()) {
            (0, &[uid, gid], SIZE) => (uid, gid, None),
            (b'c', &[uid, gid, major, minor], DEVICE_SIZE) => {
                (uid, gid, Some(Device::Char(major, minor)))
            }
            (b'b', &[uid, gid, major, minor], DEVICE_SIZE) => {
                (uid, gid, Some(Device::Block(major, minor)))
            }
            _ => return Err(Error::Malformed),
        };
        if version != VERSION || mode > PERMISSIONS {
            return Err(Error::Malformed);
        }
        Ok(Self {
            uid,
            gid,
            mode,
            device,
        })
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Record = Record {
        uid: 33,
        gid: 4_294_967_294,
        mode: 0o4755,
        device: None,
    };

    #[test]
    fn bytes_give_the_record_back() {
        for device in [
            None,
            Some(Device::Char(1, 3)),
            Some(Device::Block(259, 1 << 20)),
        ] {
            let record = Record { device, ..PLAIN };
            let bytes = record.to_bytes();
            assert!(bytes.len() <= MAX_SIZE);
            assert_eq!(Record::from_bytes(&bytes), Ok(record));
            for end in 0..bytes.len() {
                assert_eq!(
                    Record::from_bytes(&bytes[..end]),
                    Err(Error::Malformed),
                    "{end}"
                );
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(Record::from_bytes(&longer), Err(Error::Malformed));
        }
    }

    #[test]
    fn other_versions_letters_and_modes_are_refused() {
        let bytes = PLAIN.to_bytes();
        for (place, value) in [(0, 0), (0, 2), (1, b'c'), (1, b'x'), (3, 0x10)] {
            let mut changed = bytes.clone();
            changed[place] = value;
            assert_eq!(
                Record::from_bytes(&changed),
                Err(Error::Malformed),
                "{place}"
            );
        }
    }

    #[test]
    fn the_disk_lets_the_builder_in_and_never_sets_ids() {
        let (file, dir, pipe) = (0o100_000, 0o040_000, 0o010_000);
        for (mode, kind, want) in [
            (0o4755, file, 0o755),
            (0o000, file, 0o600),
            (0o444, file, 0o644),
            (0o011, file, 0o711),
            (0o2555, dir, 0o755),
            (0o1777, dir, 0o777),
            (0o000, dir, 0o700),
            (0o620, pipe, 0o620),
        ] {
            let record = Record { mode, ..PLAIN };
            assert_eq!(record.disk_mode(kind), Some(want), "{mode:o}");
            let held = Record::plain(mode).is_held_by_disk(kind);
            assert_eq!(held, mode == want, "{mode:o}");
        }
        assert_eq!(PLAIN.disk_mode(0o120_777), None);
        assert!(!PLAIN.is_held_by_disk(file | 0o755));
    }
}

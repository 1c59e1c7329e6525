//! Whether programs of a platform run on this machine: because its processor does, or
//! because an emulator is registered for them with the kernel (binfmt_misc, the kernel's
//! admin-guide/binfmt-misc.rst).
//!
//! What decides is the kernel's own rule: the header of an ELF program of the platform is
//! held against magic and mask of each handler. The emulator must be open already (flag
//! `F`), because inside the root file system of an image its path means nothing.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::registry::Platform;

const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";

/// Why programs of a platform cannot run here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// They are for another operating system.
    System,
    /// Nobody knows how a program for the processor begins.
    Unknown,
    /// No emulator is registered.
    Handler,
    /// An emulator is registered, but its path is looked up in the image.
    NotFixed(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("it is another operating system"),
            Self::Unknown => f.write_str("its programs are not known"),
            Self::Handler => write!(f, "no emulator for it is registered in {HANDLERS}"),
            Self::NotFixed(name) => write!(
                f,
                "the emulator {HANDLERS}/{name} is registered without the flag F, so that images do not see it"
            ),
        }
    }
}

/// Tells whether programs of a platform run on this machine, and why not.
pub fn check(platform: &Platform) -> Result<(), Missing> {
    let host = Platform::host();
    match platform.os == host.os {
        false => Err(Missing::System),
        true if is_native(&host.architecture, &platform.architecture) => Ok(()),
        true => emulated(Path::new(HANDLERS), &platform.architecture),
    }
}

/// A 64-bit processor of these runs programs of its 32-bit elder.
fn is_native(host: &str, wanted: &str) -> bool {
    host == wanted || matches!((host, wanted), ("amd64", "386") | ("arm64", "arm"))
}

fn emulated(handlers: &Path, architecture: &str) -> Result<(), Missing> {
    let Some(machine) = Machine::of(architecture) else {
        return Err(Missing::Unknown);
    };
    let mut found = Missing::Handler;
    for entry in fs::read_dir(handlers).into_iter().flatten().flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else {
            continue;
        };
        match Handler::parse(&text) {
            Some(handler) if !handler.takes(&machine) => {}
            Some(handler) if handler.is_fixed => return Ok(()),
            Some(_) => {
                found = Missing::NotFixed(entry.file_name().to_string_lossy().into_owned());
            }
            None => {}
        }
    }
    Err(found)
}

/// How programs for a processor begin (ELF header: class, byte order, `e_machine`).
struct Machine {
    is_64: bool,
    is_little: bool,
    number: u16,
}

impl Machine {
    fn of(architecture: &str) -> Option<Self> {
        let (is_64, is_little, number) = match architecture {
            "386" => (false, true, 3),
            "amd64" => (true, true, 62),
            "arm" => (false, true, 40),
            "arm64" => (true, true, 183),
            "loong64" => (true, true, 258),
            "mips" => (false, false, 8),
            "mipsle" => (false, true, 8),
            "mips64" => (true, false, 8),
            "mips64le" => (true, true, 8),
            "ppc64" => (true, false, 21),
            "ppc64le" => (true, true, 21),
            "riscv64" => (true, true, 243),
            "s390x" => (true, false, 22),
            _ => return None,
        };
        Some(Self {
            is_64,
            is_little,
            number,
        })
    }

    /// Gives the header of a program; `kind` is 2 for one with fixed addresses, 3 without.
    fn header(&self, kind: u16) -> [u8; 24] {
        let two = |number: u16| match self.is_little {
            true => number.to_le_bytes(),
            false => number.to_be_bytes(),
        };
        let mut header = [0; 24];
        header[..4].copy_from_slice(b"\x7fELF");
        header[4] = if self.is_64 { 2 } else { 1 };
        header[5] = if self.is_little { 1 } else { 2 };
        header[6] = 1;
        header[16..18].copy_from_slice(&two(kind));
        header[18..20].copy_from_slice(&two(self.number));
        header[if self.is_little { 20 } else { 23 }] = 1;
        header
    }
}

/// An emulator, as the kernel shows it.
struct Handler {
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
    is_fixed: bool,
}

impl Handler {
    /// Reads a file of the kernel; one that goes by names, or is off, is none.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()?.trim() != "enabled" {
            return None;
        }
        let mut handler = Self {
            offset: 0,
            magic: Vec::new(),
            mask: Vec::new(),
            is_fixed: false,
        };
        for line in lines {
            match line.split_once(' ') {
                Some(("flags:", flags)) => handler.is_fixed = flags.contains('F'),
                Some(("offset", number)) => handler.offset = number.trim().parse().ok()?,
                Some(("magic", bytes)) => handler.magic = hex(bytes)?,
                Some(("mask", bytes)) => handler.mask = hex(bytes)?,
                _ => {}
            }
        }
        (!handler.magic.is_empty()).then_some(handler)
    }

    fn takes(&self, machine: &Machine) -> bool {
        [2, 3].into_iter().any(|kind| {
            let header = machine.header(kind);
            self.magic.iter().enumerate().all(|(at, magic)| {
                let mask = self.mask.get(at).unwrap_or(&0xff);
                let byte = header.get(self.offset.saturating_add(at));
                byte.unwrap_or(&0) & mask == magic & mask
            })
        })
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As QEMU's package registers it.
    const ARM64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\n\
        offset 0\nmagic 7f454c460201010000000000000000000200b700\n\
        mask ffffffffffffff00fffffffffffffffffeffffff\n";
    const S390X: &str = "enabled\ninterpreter /usr/bin/qemu-s390x-static\nflags: \n\
        offset 0\nmagic 7f454c4602020100000000000000000000020016\n\
        mask ffffffffffffff00fffffffffffffffffffeffff\n";

    #[test]
    fn row_81_an_emulator_is_what_the_kernel_would_take() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        put("status", "enabled\n");
        put("register", "");
        put(
            "jar",
            "enabled\ninterpreter /usr/bin/jexec\nflags: \nextension .jar\n",
        );
        let check = |architecture| emulated(folder.path(), architecture);
        assert_eq!(check("arm64"), Err(Missing::Handler));
        put("qemu-aarch64", ARM64);
        assert_eq!(check("arm64"), Ok(()));
        assert_eq!(check("riscv64"), Err(Missing::Handler));
        put("qemu-s390x", S390X);
        let not_fixed = Missing::NotFixed("qemu-s390x".to_owned());
        assert_eq!(check("s390x"), Err(not_fixed));
        put("qemu-aarch64", &ARM64.replace("enabled", "disabled"));
        assert_eq!(check("arm64"), Err(Missing::Handler));
        assert_eq!(check("vax"), Err(Missing::Unknown));
        assert_eq!(
            emulated(Path::new("/nowhere"), "arm"),
            Err(Missing::Handler)
        );
    }

    #[test]
    fn the_processor_itself_needs_nobody() {
        assert_eq!(check(&Platform::host()), Ok(()));
        assert!(is_native("amd64", "386") && !is_native("386", "amd64"));
        let windows = "windows/amd64".parse().unwrap();
        assert_eq!(check(&windows), Err(Missing::System));
    }
}

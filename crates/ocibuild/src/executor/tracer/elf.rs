//! What kind of program a file is, and where an ELF program names its interpreter (the
//! dynamic loader). See elf(5) and fs/binfmt_script.c of the kernel.
//!
//! The file is whatever a command wants to execute: nothing in it is believed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much of a file the kernel looks at to tell what it is (BINPRM_BUF_SIZE).
const HEAD: usize = 256;
/// The longest name of an interpreter (PATH_MAX).
const MAX_NAME: u64 = 4096;
/// The most program headers that the kernel reads.
const MAX_HEADERS: usize = 65_536 / PROGRAM_HEADER;
const PROGRAM_HEADER: usize = 56;
const PT_INTERP: u32 = 3;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;

/// `e_machine` of this machine's programs, and of those of its 32-bit mode.
const MACHINES: (u16, u16) = if cfg!(target_arch = "aarch64") {
    (183, 40)
} else {
    (62, 3)
};

/// A file that is to be executed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// Text that names another program.
    Script {
        /// That program.
        interpreter: Vec<u8>,
        /// What is passed to it first.
        argument: Option<Vec<u8>>,
    },
    /// A program of this machine that a dynamic loader starts.
    Dynamic(Interpreter),
    /// A program of this machine's 32-bit mode, whose calls the filter refuses.
    Narrow,
    /// Anything else: a program that needs no loader, or something that the kernel judges.
    Plain,
}

/// Where an ELF file names its dynamic loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interpreter {
    /// The name.
    pub(super) name: Vec<u8>,
    /// Offset of the program header that points to the name.
    pub(super) header: u64,
}

impl Interpreter {
    /// The fields of the program header that say where the name is (`p_offset`) and how
    /// long (`p_filesz`), each with its offset in the file.
    pub(super) fn fields(&self) -> [u64; 2] {
        [self.header + 8, self.header + 32]
    }
}

/// Looks at the beginning of a file.
pub(super) fn examine(file: &File) -> io::Result<Program> {
    let mut head = [0; HEAD];
    let length = read_up_to(file, &mut head, 0)?;
    let head = head.get(..length).unwrap_or_default();
    if let Some(line) = head.strip_prefix(b"#!") {
        return Ok(script(line, length < HEAD));
    }
    if !head.starts_with(b"\x7fELF") || head.get(5) != Some(&LITTLE_ENDIAN) {
        return Ok(Program::Plain);
    }
    let machine = number(head, 18, 2) as u16;
    if machine == MACHINES.1 {
        return Ok(Program::Narrow);
    }
    if machine != MACHINES.0 || head.get(4) != Some(&CLASS_64) {
        return Ok(Program::Plain);
    }
    Ok(interpreter(file, head)?.map_or(Program::Plain, Program::Dynamic))
}

/// Reads a `#!` line as the kernel does: one name and at most one argument, which may
/// hold spaces.
fn script(line: &[u8], is_all: bool) -> Program {
    let end = line.iter().position(|byte| *byte == b'\n' || *byte == 0);
    let is_blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let text = line.get(..end.unwrap_or(line.len())).unwrap_or_default();
    let text = trim(text, is_blank);
    let (name, rest) = match text.iter().position(is_blank) {
        Some(space) => text.split_at(space),
        // A name that may go on beyond what the kernel reads is none.
        None if end.is_none() && !is_all => return Program::Plain,
        None => (text, [].as_slice()),
    };
    if name.is_empty() {
        return Program::Plain;
    }
    let argument = trim(rest, is_blank);
    Program::Script {
        interpreter: name.to_owned(),
        argument: (!argument.is_empty()).then(|| argument.to_owned()),
    }
}

fn trim(text: &[u8], is_blank: impl Fn(&u8) -> bool) -> &[u8] {
    let start = text.iter().position(|byte| !is_blank(byte));
    let end = text.iter().rposition(|byte| !is_blank(byte));
    match (start, end) {
        (Some(start), Some(end)) => text.get(start..=end).unwrap_or_default(),
        _ => &[],
    }
}

/// Finds the first program header of type PT_INTERP.
fn interpreter(file: &File, head: &[u8]) -> io::Result<Option<Interpreter>> {
    let (table, size, count) = (
        number(head, 32, 8),
        number(head, 54, 2) as usize,
        number(head, 56, 2) as usize,
    );
    if size != PROGRAM_HEADER || count > MAX_HEADERS {
        return Ok(None);
    }
    let mut headers = vec![0; count * PROGRAM_HEADER];
    if read_up_to(file, &mut headers, table)? < headers.len() {
        return Ok(None);
    }
    let found = headers
        .chunks_exact(PROGRAM_HEADER)
        .position(|header| number(header, 0, 4) as u32 == PT_INTERP);
    let Some(index) = found else { return Ok(None) };
    let start = index * PROGRAM_HEADER;
    let header = headers.get(start..).unwrap_or_default();
    let (offset, length) = (number(header, 8, 8), number(header, 32, 8));
    if !(2..=MAX_NAME).contains(&length) {
        return Ok(None);
    }
    let mut name = vec![0; length as usize];
    if read_up_to(file, &mut name, offset)? < name.len() || name.pop() != Some(0) {
        return Ok(None);
    }
    let end = name.iter().position(|byte| *byte == 0);
    name.truncate(end.unwrap_or(name.len()));
    Ok(Some(Interpreter {
        name,
        header: table.saturating_add(start as u64),
    }))
}

/// Reads until the space is full or the file ends; an offset beyond any file is its end.
fn read_up_to(file: &File, space: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = space.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let Some(place) = offset
            .checked_add(done as u64)
            .filter(|place| i64::try_from(*place).is_ok())
        else {
            break;
        };
        match file.read_at(rest, place) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A little-endian number of a structure; zero beyond its end.
fn number(bytes: &[u8], offset: usize, length: usize) -> u64 {
    let field = bytes.get(offset..offset + length).unwrap_or_default();
    field
        .iter()
        .rev()
        .fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn examined(content: &[u8]) -> Program {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        examine(&file).unwrap()
    }

    fn script_of(interpreter: &str, argument: Option<&str>) -> Program {
        Program::Script {
            interpreter: interpreter.into(),
            argument: argument.map(Into::into),
        }
    }

    #[test]
    fn first_lines_are_read_as_the_kernel_does() {
        assert_eq!(examined(b"#!/bin/sh\necho"), script_of("/bin/sh", None));
        assert_eq!(
            examined(b"#! \t/usr/bin/env  -S a b \t\nx"),
            script_of("/usr/bin/env", Some("-S a b"))
        );
        assert_eq!(examined(b"#!/bin/sh"), script_of("/bin/sh", None));
        for plain in ["", "#", "#!", "#!  \n/bin/sh", "echo"] {
            assert_eq!(examined(plain.as_bytes()), Program::Plain, "{plain:?}");
        }
        let long = format!("#!/{}\n", "x".repeat(HEAD));
        assert_eq!(examined(long.as_bytes()), Program::Plain);
        let cut = format!("#!/bin/sh {}\n", "x".repeat(HEAD));
        let kept = "x".repeat(HEAD - "#!/bin/sh ".len());
        assert_eq!(examined(cut.as_bytes()), script_of("/bin/sh", Some(&kept)));
    }

    #[test]
    fn a_loader_is_found_where_the_linker_put_it() {
        let program = "/bin/sh";
        let Program::Dynamic(found) = examine(&File::open(program).unwrap()).unwrap() else {
            panic!("the shell is a dynamic program");
        };
        let name = String::from_utf8(found.name.clone()).unwrap();
        assert!(std::path::Path::new(&name).exists(), "{name}");
        let bytes = std::fs::read(program).unwrap();
        let [offset, length] = found
            .fields()
            .map(|at| number(&bytes, at as usize, 8) as usize);
        assert_eq!(bytes[offset..offset + length - 1], found.name);
    }

    #[test]
    fn a_broken_header_is_the_kernels_business() {
        let bytes = std::fs::read("/bin/sh").unwrap();
        let head = &bytes[..4096];
        for (offset, value) in [(32, u64::MAX), (32, 1 << 62), (54, 3), (56, u64::MAX)] {
            let mut broken = head.to_vec();
            broken[offset..offset + 2].copy_from_slice(&value.to_le_bytes()[..2]);
            if offset == 32 {
                broken[32..40].copy_from_slice(&value.to_le_bytes());
            }
            assert_eq!(examined(&broken), Program::Plain, "{offset} {value:x}");
        }
        for length in [4, 5, 19, 40, 63, 64, 100] {
            assert_eq!(examined(&head[..length]), Program::Plain, "{length}");
        }
    }
}

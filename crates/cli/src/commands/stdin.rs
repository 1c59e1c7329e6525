//! Standard input in the place of the context: the archive of one, or a Dockerfile alone,
//! told apart by how it begins.

use std::io::{Cursor, Read};

use crate::error::Error;

/// Longer texts are no Dockerfiles.
const MAX_DOCKERFILE: u64 = 4 << 20;

/// The length of a header in a tar (POSIX.1-1988, ustar).
const HEADER: usize = 512;

/// The bytes that gzip, bzip2, xz and Zstandard begin with.
const COMPRESSED: [&[u8]; 4] = [
    &[0x1f, 0x8b, 0x08],
    b"BZh",
    &[0xfd, b'7', b'z', b'X', b'Z', 0],
    &[0x28, 0xb5, 0x2f, 0xfd],
];

/// What came in.
pub(crate) enum Input {
    /// A tar, plain or compressed.
    Archive(Box<dyn Read + Send>),
    /// The text of a Dockerfile.
    Dockerfile(String),
}

/// Reads as much as it takes to tell what it is.
pub(crate) fn read(mut input: impl Read + Send + 'static) -> Result<Input, Error> {
    let failed = |error| Error::failed("read standard input", error);
    let mut head = Vec::new();
    input
        .by_ref()
        .take(HEADER as u64)
        .read_to_end(&mut head)
        .map_err(failed)?;
    if is_archive(&head) {
        return Ok(Input::Archive(Box::new(Cursor::new(head).chain(input))));
    }
    text(Cursor::new(head).chain(input)).map(Input::Dockerfile)
}

/// Reads a Dockerfile; bytes that are not UTF-8 are judged by the parser.
pub(crate) fn text(input: impl Read) -> Result<String, Error> {
    let mut bytes = Vec::new();
    input
        .take(MAX_DOCKERFILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::failed("read the Dockerfile from standard input", error))?;
    if bytes.len() as u64 > MAX_DOCKERFILE {
        return Err(Error::Usage(format!(
            "standard input is no archive, and longer than a Dockerfile may be ({MAX_DOCKERFILE} bytes)"
        )));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Tells whether a file that begins so is an archive. A tar has no mark that all of them
/// share, but a checksum over its header, in which the checksum counts as blanks.
fn is_archive(head: &[u8]) -> bool {
    if COMPRESSED.iter().any(|magic| head.starts_with(magic)) {
        return true;
    }
    let Some((header, field)) = head.get(..HEADER).zip(head.get(148..156)) else {
        return false;
    };
    let digits = String::from_utf8_lossy(field);
    let digits = digits.trim_matches(['\0', ' ']);
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let expected = sum(header) - sum(field) + 8 * u32::from(b' ');
    u32::from_str_radix(digits, 8) == Ok(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(bytes: &[u8]) -> String {
        match read(Cursor::new(bytes.to_vec())).unwrap() {
            Input::Archive(mut archive) => {
                let mut all = Vec::new();
                archive.read_to_end(&mut all).unwrap();
                assert_eq!(all, bytes, "nothing is lost");
                "archive".to_owned()
            }
            Input::Dockerfile(text) => text,
        }
    }

    #[test]
    fn archives_and_texts_are_told_apart() {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_cksum();
        let mut old = tar::Header::new_old();
        old.set_size(0);
        old.set_cksum();
        assert_eq!(kind(header.as_bytes()), "archive");
        assert_eq!(kind(old.as_bytes()), "archive");
        assert_eq!(kind(b"\x1f\x8b\x08x"), "archive");
        assert_eq!(kind(b"FROM x\n"), "FROM x\n");
        assert_eq!(kind(b""), "");
        let long = "# comment\n".repeat(200);
        assert_eq!(kind(long.as_bytes()), long);
        assert!(read(std::io::repeat(b'#')).is_err(), "endless text");
    }
}

//! The entries of a tar stream, headers put together from all that describes them:
//! ustar and old headers, PAX records, GNU long names, GNU sparse maps.
//!
//! The crate `tar` gives the layout of a header. Going from entry to entry is done
//! here, because a layer from outside needs limits before anything is allocated,
//! and because attributes are binary: that crate takes a line end inside a PAX
//! value for the end of the record.

use std::collections::BTreeMap;
use std::io::{self, Read};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use tar::Header;

use super::pax::{Records, parse_seconds};
use super::sparse::SparseMap;
use super::stream::Stream;
use super::tar::{BLOCK, padding};
use super::{Error, Limits, Xattr};

/// libarchive writes attribute values in base64, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Room in a PAX header for what is neither a name nor an attribute.
const PAX_REST: usize = 64 << 10;

/// An entry as the tar describes it; nothing in it has been judged.
#[derive(Debug, Default)]
pub(super) struct RawEntry {
    pub(super) offset: u64,
    pub(super) type_flag: u8,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) mtime: i64,
    pub(super) major: i64,
    pub(super) minor: i64,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: Option<SparseMap>,
}

/// Goes through a tar.
pub(super) struct Entries<'r> {
    stream: Stream<'r>,
    limits: Limits,
    /// Content of the current entry that has not been read.
    content_left: u64,
    padding: usize,
}

/// What earlier headers say about the next entry.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

/// The records of a PAX header that matter here.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<i64>,
    uid: Option<i64>,
    gid: Option<i64>,
    mtime: Option<i64>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<'r> Entries<'r> {
    pub(super) fn new(stream: Stream<'r>, limits: &Limits) -> Self {
        Self {
            stream,
            limits: limits.clone(),
            content_left: 0,
            padding: 0,
        }
    }

    /// Gives the next entry; what was not read of the one before is passed over.
    pub(super) fn next(&mut self) -> Result<Option<RawEntry>, Error> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_content()?;
            let offset = self.stream.position();
            let Some(header) = self.read_header()? else {
                return Ok(None);
            };
            let malformed = |reason| Error::Malformed { offset, reason };
            let size = unsigned(&header.as_old().size)
                .ok_or_else(|| malformed("the size of an entry is not a number"))?;
            match header.as_old().linkflag[0] {
                b'L' => extensions.long_name = Some(self.read_name(size)?),
                b'K' => extensions.long_link = Some(self.read_name(size)?),
                b'x' => {
                    let limit = self.limits.xattrs + 2 * self.limits.name + PAX_REST;
                    let records = self.read_extension(size, limit, "bytes in a PAX header")?;
                    extensions.pax = Some(Pax::parse(&records).map_err(malformed)?);
                }
                // Comments for the whole archive, as `git archive` writes them.
                b'g' => self.begin_content(size),
                _ => return self.entry(offset, &header, size, extensions).map(Some),
            }
        }
    }

    /// Tells whether the tar begins with the header of an entry.
    pub(super) fn begins(&mut self) -> Result<bool, Error> {
        Ok(self.read_header()?.is_some())
    }

    /// Gives the content of the current entry as it is stored.
    pub(super) fn content(&mut self) -> Stored<'_, 'r> {
        Stored(self)
    }

    /// Gives the stream back where the archive has ended.
    pub(super) fn into_stream(self) -> Stream<'r> {
        self.stream
    }

    fn entry(
        &mut self,
        offset: u64,
        header: &Header,
        size: u64,
        extensions: Extensions,
    ) -> Result<RawEntry, Error> {
        let malformed = |reason| Error::Malformed { offset, reason };
        let mut entry = RawEntry::from_header(header).map_err(malformed)?;
        entry.offset = offset;
        entry.size = size;
        entry.extend(extensions).map_err(malformed)?;
        // Only files have content, whatever the size of anything else says.
        if matches!(entry.type_flag, b'1'..=b'6') {
            entry.size = 0;
        }
        if entry.type_flag == b'S' {
            entry.sparse = Some(SparseMap::read(header, entry.size, &mut self.stream)?);
        }
        self.begin_content(entry.size);
        Ok(entry)
    }

    /// Reads a header block; `None` at the end of the archive.
    fn read_header(&mut self) -> Result<Option<Header>, Error> {
        let offset = self.stream.position();
        let malformed = |reason| Error::Malformed { offset, reason };
        let mut header = Header::new_old();
        match self.stream.read_full(header.as_mut_bytes())? {
            // Some tools leave out the blocks that mark the end.
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(malformed("a header is cut off")),
        }
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            let mut second = [0; BLOCK];
            let count = self.stream.read_full(&mut second)?;
            if second[..count].iter().any(|&byte| byte != 0) {
                return Err(malformed("something follows the end of the archive"));
            }
            return Ok(None);
        }
        if !has_valid_checksum(&header) {
            return Err(malformed("the checksum of a header is wrong"));
        }
        Ok(Some(header))
    }

    fn begin_content(&mut self, size: u64) {
        self.content_left = size;
        self.padding = padding(size);
    }

    fn skip_content(&mut self) -> Result<(), Error> {
        let offset = self.stream.position();
        let mut left = std::mem::take(&mut self.content_left);
        left = left.saturating_sub(self.stream.skip(left)?);
        let padding = std::mem::take(&mut self.padding) as u64;
        // The padding of the last entry may be missing, its content may not.
        self.stream.skip(padding)?;
        if left > 0 {
            let reason = "the content of an entry is cut off";
            return Err(Error::Malformed { offset, reason });
        }
        Ok(())
    }

    fn read_name(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let limit = self.limits.name + 1;
        let mut name = self.read_extension(size, limit, "bytes in a name")?;
        let end = name.iter().position(|&byte| byte == 0);
        name.truncate(end.unwrap_or(name.len()));
        Ok(name)
    }

    fn read_extension(
        &mut self,
        size: u64,
        limit: usize,
        what: &'static str,
    ) -> Result<Vec<u8>, Error> {
        let too_much = || Error::Limit {
            what,
            limit: limit as u64,
        };
        let size = usize::try_from(size).map_err(|_| too_much())?;
        if size > limit {
            return Err(too_much());
        }
        self.begin_content(size as u64);
        let mut bytes = vec![0; size];
        let offset = self.stream.position();
        let count = self.stream.read_full(&mut bytes)?;
        self.content_left = 0;
        if count < size {
            let reason = "an extended header is cut off";
            return Err(Error::Malformed { offset, reason });
        }
        Ok(bytes)
    }
}

/// The content of the current entry.
pub(super) struct Stored<'a, 'r>(&'a mut Entries<'r>);

impl Read for Stored<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.0.content_left;
        let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.0.stream.read_some(&mut buffer[..wanted]);
        match read.map_err(io::Error::other)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.0.content_left -= count as u64;
                Ok(count)
            }
        }
    }
}

impl RawEntry {
    fn from_header(header: &Header) -> Result<Self, &'static str> {
        let fields = header.as_old();
        let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
            (Some(ustar), _) => (&ustar.dev_major[..], &ustar.dev_minor[..]),
            (_, Some(gnu)) => (&gnu.dev_major[..], &gnu.dev_minor[..]),
            _ => (&[][..], &[][..]),
        };
        let need = |field| number(field).ok_or("a field of a header is not a number");
        Ok(Self {
            type_flag: fields.linkflag[0],
            name: header.path_bytes().into_owned(),
            link: header.link_name_bytes().unwrap_or_default().into_owned(),
            mode: need(&fields.mode)?,
            uid: need(&fields.uid)?,
            gid: need(&fields.gid)?,
            mtime: need(&fields.mtime)?,
            major: need(major)?,
            minor: need(minor)?,
            ..Self::default()
        })
    }

    /// PAX records come before GNU long names, both before the header.
    fn extend(&mut self, extensions: Extensions) -> Result<(), &'static str> {
        let pax = extensions.pax.unwrap_or_default();
        if let Some(name) = pax.path.or(extensions.long_name) {
            self.name = name;
        }
        if let Some(link) = pax.link.or(extensions.long_link) {
            self.link = link;
        }
        if let Some(size) = pax.size {
            self.size = u64::try_from(size).map_err(|_| "the size of an entry is negative")?;
        }
        self.uid = pax.uid.unwrap_or(self.uid);
        self.gid = pax.gid.unwrap_or(self.gid);
        self.mtime = pax.mtime.unwrap_or(self.mtime);
        self.xattrs = pax.xattrs.into_iter().collect();
        Ok(())
    }
}

impl Pax {
    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        for record in Records(bytes) {
            let (key, value) = record.map_err(|_| "a PAX record is malformed")?;
            pax.add(key, value)?;
        }
        Ok(pax)
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let decimal = || {
            let text = std::str::from_utf8(value).ok();
            text.and_then(|text| text.parse().ok())
                .ok_or("a PAX record is not a number")
        };
        match key {
            // POSIX: an empty value takes back an earlier record.
            b"path" => self.path = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => self.link = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => self.size = Some(decimal()?),
            b"uid" => self.uid = Some(decimal()?),
            b"gid" => self.gid = Some(decimal()?),
            b"mtime" => {
                self.mtime = Some(parse_seconds(value).ok_or("a PAX record is not a time")?);
            }
            _ => return self.add_other(key, value),
        }
        Ok(())
    }

    fn add_other(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if key.starts_with(b"GNU.sparse.") {
            return Err("sparse files in PAX form are not supported");
        }
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.insert(name.to_vec(), value.to_vec());
        } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            let name = percent_decoded(name).ok_or("the name of an attribute is malformed")?;
            let value = BASE64.decode(value);
            let value = value.map_err(|_| "the value of an attribute is malformed")?;
            // The plain form of the same attribute is the better one.
            self.xattrs.entry(name).or_insert(value);
        }
        Ok(())
    }
}

/// Reads a numeric field: octal text, or binary with the highest bit set.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let Some(&first) = field.first() else {
        return Some(0);
    };
    if first & 0x80 != 0 {
        return binary_number(first, &field[1..]);
    }
    let text = field.split(|&byte| byte == 0).next().unwrap_or_default();
    match text.trim_ascii() {
        b"" => Some(0),
        text if text.first() == Some(&b'+') => None,
        text => i64::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok(),
    }
}

/// GNU's form: big-endian two's complement; the first bit marks the form, the second is the sign.
fn binary_number(first: u8, rest: &[u8]) -> Option<i64> {
    let negative = first & 0x40 != 0;
    let lead = if negative { first } else { first & 0x3f };
    let mut value = i128::from(lead as i8);
    for &byte in rest {
        value = (value << 8) | i128::from(byte);
    }
    i64::try_from(value).ok()
}

fn unsigned(field: &[u8]) -> Option<u64> {
    number(field).and_then(|value| u64::try_from(value).ok())
}

/// Old tools summed signed bytes; both sums are taken.
fn has_valid_checksum(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let summed = || bytes[..148].iter().chain(&bytes[156..]).copied();
    let spaces = i64::from(b' ') * 8;
    let plain: i64 = summed().map(i64::from).sum();
    let signed: i64 = summed().map(|byte| i64::from(byte as i8)).sum();
    let wanted = number(&header.as_old().cksum);
    wanted == Some(plain + spaces) || wanted == Some(signed + spaces)
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    Some(decoded)
}

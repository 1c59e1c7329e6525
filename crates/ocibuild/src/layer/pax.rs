//! Records of PAX extended headers (POSIX.1-2001, pax, "pax Extended Header"):
//! `length key=value\n`, where the length counts the whole record and the value may
//! be any bytes, line ends among them.

/// Adds one record.
pub(super) fn push_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    // The length counts its own digits, which can make it one digit longer.
    while length != rest + decimal_digits(length) {
        length = rest + decimal_digits(length);
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Goes through the records of a header.
pub(super) struct Records<'a>(pub(super) &'a [u8]);

/// A record that breaks the format.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadRecord;

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = split_record(self.0);
        self.0 = record.map_or(&[], |(_, _, rest)| rest);
        Some(record.map(|(key, value, _)| (key, value)).ok_or(BadRecord))
    }
}

/// Gives key, value and what follows the first record.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(10).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    let (key, value) = pair.split_at(equals);
    (!key.is_empty()).then_some((key, &value[1..], rest))
}

/// Reads `seconds[.fraction]`, rounding towards the past as a clock does.
pub(super) fn parse_seconds(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let partial = fraction.bytes().any(|byte| byte != b'0');
    if whole.starts_with('-') && partial {
        return seconds.checked_sub(1);
    }
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_themselves() {
        for size in (0..120).chain(980..1010) {
            let value = vec![b'\n'; size];
            let mut records = Vec::new();
            push_record(&mut records, b"k", &value);
            push_record(&mut records, b"path", b"a=b");
            let read: Vec<_> = Records(&records).collect();
            assert_eq!(read, [Ok((&b"k"[..], &value[..])), Ok((b"path", b"a=b"))]);
        }
    }

    #[test]
    fn broken_records_are_refused() {
        for text in [
            "x",
            "5 a=b",
            "6 a=b",
            "7 a=b\n",
            "6 abc\n",
            "-6 a=b\n",
            "5 =b\n",
            "99999999999999999999 a=b\n",
            "0 a=b\n",
            "1 a=b\n",
            "2 a=b\n",
        ] {
            let first = Records(text.as_bytes()).next();
            assert_eq!(first, Some(Err(BadRecord)), "{text:?}");
        }
    }

    #[test]
    fn seconds() {
        for (text, want) in [
            ("0", Some(0)),
            ("12.999", Some(12)),
            ("-1", Some(-1)),
            ("-1.5", Some(-2)),
            ("-1.000", Some(-1)),
            ("1.x", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_seconds(text.as_bytes()), want, "{text:?}");
        }
    }
}

//! `HEALTHCHECK`: its durations and counts are read here, because they are never
//! expanded.

use std::time::Duration;

use super::{Line, Result, arguments};
use crate::dockerfile::ast::{Command, HealthCommand, Healthcheck, Keyword};
use crate::dockerfile::error::{ParseError, ParseErrorKind};
use crate::dockerfile::flags::{Flags, Kind};

const FLAGS: [(&str, Kind); 5] = [
    ("interval", Kind::Text),
    ("timeout", Kind::Text),
    ("start-period", Kind::Text),
    ("start-interval", Kind::Text),
    ("retries", Kind::Text),
];

/// Shorter durations are taken for mistakes.
const SHORTEST: Duration = Duration::from_millis(1);

pub(super) fn parse(line: Line<'_>) -> Result<Healthcheck> {
    let (kind, rest) = line.arguments.split_first();
    let error = |kind, span| Err(ParseError::new(kind, span));
    let check = match kind.as_str().to_ascii_uppercase().as_str() {
        "" => {
            return error(
                ParseErrorKind::NoArgument(Keyword::Healthcheck),
                line.origin.span,
            );
        }
        "NONE" => match rest {
            Some(rest) => return error(ParseErrorKind::HealthcheckNone, rest.span()),
            None => None,
        },
        "CMD" => {
            let mut flags = Flags::check(Keyword::Healthcheck, line.flags, &FLAGS)?;
            let command = match rest {
                Some(rest) => arguments::command(Keyword::Healthcheck, rest)?,
                None => Command::Exec(Vec::new()),
            };
            if matches!(&command, Command::Exec(words) if words.is_empty()) {
                return error(ParseErrorKind::HealthcheckCommand, line.origin.span);
            }
            Some(HealthCommand {
                command,
                interval: duration(&mut flags, "interval")?,
                timeout: duration(&mut flags, "timeout")?,
                start_period: duration(&mut flags, "start-period")?,
                start_interval: duration(&mut flags, "start-interval")?,
                retries: retries(&mut flags)?,
            })
        }
        _ => {
            let other = ParseErrorKind::HealthcheckType(kind.as_str().to_owned());
            return error(other, kind.span());
        }
    };
    Ok(Healthcheck {
        origin: line.origin,
        check,
    })
}

fn duration(flags: &mut Flags, name: &str) -> Result<Option<Duration>> {
    let Some(word) = flags.text(name) else {
        return Ok(None);
    };
    let flag = name.to_owned();
    match parse_duration(&word.text) {
        Some(Duration::ZERO) => Ok(None),
        Some(long) if long >= SHORTEST => Ok(Some(long)),
        Some(_) => Err(ParseError::new(
            ParseErrorKind::ShortDuration(flag),
            word.span,
        )),
        None => {
            let kind = ParseErrorKind::Duration {
                flag,
                value: word.text,
            };
            Err(ParseError::new(kind, word.span))
        }
    }
}

fn retries(flags: &mut Flags) -> Result<Option<u32>> {
    let Some(word) = flags.text("retries") else {
        return Ok(None);
    };
    match word
        .text
        .parse::<i32>()
        .ok()
        .and_then(|count| u32::try_from(count).ok())
    {
        Some(count) => Ok(Some(count)),
        None => Err(ParseError::new(
            ParseErrorKind::Retries(word.text),
            word.span,
        )),
    }
}

/// Reads a duration in Go's notation, such as `1h30m`, `1.5s` or `0`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanoseconds: u64 = 0;
    while !rest.is_empty() || nanoseconds == 0 {
        let (part, behind) = parse_part(rest)?;
        nanoseconds = nanoseconds.checked_add(part)?;
        if behind.is_empty() {
            break;
        }
        rest = behind;
    }
    // Go counts in a signed number.
    i64::try_from(nanoseconds)
        .ok()
        .map(|_| Duration::from_nanos(nanoseconds))
}

/// Reads one number with its unit; gives nanoseconds and what follows.
fn parse_part(text: &str) -> Option<(u64, &str)> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let (number, rest) = text.split_at(text.find(|c| !is_number(c))?);
    let (unit, rest) = rest.split_at(rest.find(is_number).unwrap_or(rest.len()));
    let unit: u64 = match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut nanoseconds = whole.checked_mul(unit)?;
    let mut scale = unit;
    for digit in fraction.bytes() {
        scale /= 10;
        nanoseconds = nanoseconds.checked_add(u64::from(digit - b'0') * scale)?;
    }
    Some((nanoseconds, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        let table = [
            ("0", 0),
            ("0s", 0),
            ("1ns", 1),
            ("5m", 300_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            ("+250ms", 250_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("2us", 2_000),
            ("2\u{b5}s", 2_000),
            ("0h1s", 1_000_000_000),
        ];
        for (text, expected) in table {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_nanos(expected)),
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "s",
            ".s",
            "1.2.3s",
            "-1s",
            "1x",
            "1s2",
            "99999999999h",
            "1 s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}

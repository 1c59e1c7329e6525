//! The settings as `--print-config` shows them: every value with its source, no secret.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use url::Url;

use super::settings::{Kind, Owner, Secrecy, Setting, THEMES, Theme};
use super::values::{Values, items};

/// What stands in the place of a secret.
const MASK: &str = "****";

/// Shows the settings as lines `NAME=value  # source: meaning`.
pub fn text(values: &Values) -> String {
    let mut text = String::new();
    for theme in THEMES {
        let settings = shown(values, theme);
        if settings.is_empty() {
            continue;
        }
        let _ = writeln!(text, "# {}", theme.title);
        for setting in settings {
            let _ = writeln!(text, "{}", line(values, setting));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Shows the settings as a JSON object with one entry for each.
pub fn json(values: &Values) -> Value {
    let settings = THEMES.iter().flat_map(|theme| shown(values, theme));
    let entry = |setting: &Setting| {
        let value = json!({
            "value": values.text(setting).map(|text| masked(setting.secrecy, &text).into_owned()),
            "source": values.source(setting).to_string(),
            "flag": setting.flag,
            "owner": match setting.owner {
                Owner::Darwin => "darwin",
                Owner::Ocibuild => "ocibuild",
                Owner::Common => "common",
            },
            "secret": setting.secrecy == Secrecy::Secret || matches!(setting.secrecy, Secrecy::Named(_)),
            "ignored": setting.kind == Kind::Ignored,
            "meaning": meaning(setting),
        });
        (setting.name.to_owned(), value)
    };
    Value::Object(settings.into_iter().map(entry).collect::<Map<_, _>>())
}

/// Every setting but those that are ignored and absent.
fn shown(values: &Values, theme: &Theme) -> Vec<&'static Setting> {
    let counts = |setting: &&'static Setting| {
        setting.kind != Kind::Ignored || values.given(setting).is_some()
    };
    theme.settings.iter().copied().filter(counts).collect()
}

fn line(values: &Values, setting: &Setting) -> String {
    let value = values.text(setting).unwrap_or_default();
    format!(
        "{}={}  # {}: {}",
        setting.name,
        quoted(masked(setting.secrecy, &value)),
        values.source(setting),
        meaning(setting)
    )
}

/// Gives the meaning without the marks that the document has.
fn meaning(setting: &Setting) -> String {
    setting.meaning.replace('`', "")
}

/// Quotes what would not stand as it is in a `.env` file, and what could pass for another line.
fn quoted(text: Cow<'_, str>) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:,=*@%+~[]".contains(&byte);
    if text.bytes().all(plain) {
        text
    } else if text
        .chars()
        .any(|character| character.is_control() || character == '\'')
    {
        format!("{text:?}").into()
    } else {
        format!("'{text}'").into()
    }
}

fn masked(secrecy: Secrecy, text: &str) -> Cow<'_, str> {
    match secrecy {
        _ if text.is_empty() => text.into(),
        Secrecy::Open => text.into(),
        Secrecy::Secret => MASK.into(),
        Secrecy::Url => masked_url(text),
        Secrecy::Named(separator) => {
            let named = |item: &str| match item.split_once(separator) {
                Some((name, _)) => format!("{}{separator}{MASK}", name.trim_end()),
                None => MASK.to_owned(),
            };
            items(text).map(named).collect::<Vec<_>>().join(",").into()
        }
    }
}

/// Masks the password of a URL. What has no `@` has none; what has one and is no URL that can
/// hold a password is masked whole.
fn masked_url(text: &str) -> Cow<'_, str> {
    if !text.contains('@') {
        return text.into();
    }
    let url = Url::parse(text).ok();
    let masked = url.and_then(|mut url| {
        // A user without a password is often a token.
        let user_only = url.password().is_none() && !url.username().is_empty();
        match user_only {
            true => url.set_username(MASK).ok()?,
            false => url.set_password(Some(MASK)).ok()?,
        }
        Some(url.to_string())
    });
    masked.map_or(MASK.into(), Cow::from)
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::super::tests::{defaults, pairs};
    use super::*;

    #[test]
    fn every_setting_has_a_line_with_its_source() {
        let values = Values::new(defaults())
            .with(
                Source::EnvFile,
                pairs(&[("ROOT_PATH", "/builder"), ("DEV", "true")]),
            )
            .with(Source::Flag, pairs(&[("OCIBUILD_LISTEN", "127.0.0.1:1")]));
        let text = text(&values);
        for line in [
            "OCIBUILD_LISTEN=127.0.0.1:1  # flag: Address and port to listen on.",
            "OCIBUILD_DATA_DIR=/data  # default: ",
            "ROOT_PATH=/builder  # .env: ",
            "APP_LAYER_URL=http://localhost:8000  # default: ",
            "MYSQL_HOST=  # default: ",
            "DEV=true  # .env: there is no Docker daemon to ask",
        ] {
            assert!(
                text.lines().any(|shown| shown.starts_with(line)),
                "{line}\n{text}"
            );
        }
        assert!(!text.contains("S3_BUCKET"), "{text}");
        let json = json(&values);
        assert_eq!(json["OCIBUILD_LISTEN"]["value"], "127.0.0.1:1");
        assert_eq!(json["OCIBUILD_LISTEN"]["source"], "flag");
        assert_eq!(json["MYSQL_HOST"]["value"], Value::Null);
        let lines = text.lines().filter(|line| line.contains("  # "));
        assert_eq!(lines.count(), json.as_object().unwrap().len());
    }

    #[test]
    fn secrets_are_masked() {
        for (secrecy, text, expected) in [
            (Secrecy::Secret, "hidden", "****"),
            (Secrecy::Secret, "", ""),
            (
                Secrecy::Named(':'),
                "*:hidden, one:hid:den,hidden",
                "*:****,one:****,****",
            ),
            (Secrecy::Named('='), "a.example=hidden", "a.example=****"),
            (
                Secrecy::Url,
                "mysql://u:hidden@db:1/x",
                "mysql://u:****@db:1/x",
            ),
            (
                Secrecy::Url,
                "http://hidden@proxy:8080",
                "http://****@proxy:8080/",
            ),
            (
                Secrecy::Url,
                "http://:hidden@proxy:8080",
                "http://:****@proxy:8080/",
            ),
            (Secrecy::Url, "mysql://u:hid/den@db", "****"),
            (Secrecy::Url, "u:hidden@proxy:8080", "****"),
            (Secrecy::Url, "http://plain/", "http://plain/"),
        ] {
            assert_eq!(masked(secrecy, text), expected, "{text}");
        }
    }

    #[test]
    fn values_stay_on_their_line() {
        for (text, expected) in [
            ("info,a=debug", "info,a=debug"),
            ("a b", "'a b'"),
            ("a'b", "\"a'b\""),
            ("a\nOTHER=1", "\"a\\nOTHER=1\""),
        ] {
            assert_eq!(quoted(text.into()), expected);
        }
    }
}

//! The options of a mount: from a CSV record through single values to a mount
//! whose options fit its type.

use super::{
    BindMount, CacheMount, Expand, FileInfo, Mount, MountError, SecretMount, Sharing, SshMount,
    TmpfsMount,
};
use crate::dockerfile::path;
use crate::dockerfile::suggest;

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
];

/// Splits one CSV record; gives nothing where its quotes are not as CSV asks.
pub fn split_csv(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text.trim_end_matches(['\r', '\n']);
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(quoted) => split_quoted(quoted)?,
            None => split_bare(rest)?,
        };
        fields.push(field);
        if behind.is_empty() {
            return Some(fields);
        }
        rest = behind.strip_prefix(',')?;
    }
}

fn split_bare(rest: &str) -> Option<(String, &str)> {
    let (field, behind) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
    (!field.contains('"')).then(|| (field.to_owned(), behind))
}

/// Reads up to the closing quote; two quotes stand for one.
fn split_quoted(mut rest: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let (part, behind) = rest.split_once('"')?;
        field.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => rest = more,
            None => return Some((field, behind)),
        }
        field.push('"');
    }
}

#[derive(Clone, Copy, Default)]
enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Kind {
    const ALL: [(&'static str, Self); 5] = [
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("tmpfs", Self::Tmpfs),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
    ];
}

const SHARING: [(&str, Sharing); 3] = [
    ("shared", Sharing::Shared),
    ("private", Sharing::Private),
    ("locked", Sharing::Locked),
];

/// The options that are given, before they are judged together.
#[derive(Default)]
pub(super) struct Options {
    kind: Kind,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    required: Option<bool>,
    size: Option<u64>,
    id: Option<String>,
    sharing: Option<Sharing>,
    env: Option<String>,
    file: FileInfo,
}

impl Options {
    /// Takes one field of the record.
    pub(super) fn set(&mut self, field: &str, expand: &Expand<'_>) -> Result<(), MountError> {
        let Some((key, value)) = field.split_once('=') else {
            return self.set_bare(field);
        };
        let key = key.to_lowercase();
        let value = expand(value).map_err(|source| MountError::Expand {
            key: key.clone(),
            source,
        })?;
        self.set_value(&key, value)
    }

    fn set_bare(&mut self, field: &str) -> Result<(), MountError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => self.required = Some(true),
            key if KEYS.contains(&key) => return Err(MountError::NoValue(key.to_owned())),
            key => return Err(unknown_key(key)),
        }
        Ok(())
    }

    fn set_value(&mut self, key: &str, value: String) -> Result<(), MountError> {
        match key {
            "type" => self.kind = choose(key, &value, &Kind::ALL)?,
            "from" => self.from = some(value),
            "source" | "src" => self.source = some(value),
            "target" | "dst" | "destination" => self.target = some(value),
            "readonly" | "ro" => self.read_only = Some(parse_with(key, &value, parse_bool)?),
            "readwrite" | "rw" => self.read_only = Some(!parse_with(key, &value, parse_bool)?),
            "required" => self.required = Some(parse_with(key, &value, parse_bool)?),
            "size" => self.size = Some(parse_with(key, &value, parse_size)?),
            "id" => self.id = some(value),
            "sharing" => self.sharing = Some(choose(key, &value, &SHARING)?),
            "mode" => self.file.mode = Some(parse_with(key, &value, |v| parse_number(v, 8))?),
            "uid" => self.file.uid = Some(parse_with(key, &value, |v| parse_number(v, 10))?),
            "gid" => self.file.gid = Some(parse_with(key, &value, |v| parse_number(v, 10))?),
            "env" => self.env = some(value),
            _ => return Err(unknown_key(key)),
        }
        Ok(())
    }

    /// Judges the options together.
    pub(super) fn finish(self) -> Result<Mount, MountError> {
        self.check_places()?;
        Ok(match self.kind {
            Kind::Bind => Mount::Bind(BindMount {
                from: self.from,
                source: self.source,
                target: self.target.unwrap_or_default(),
                read_only: self.read_only.unwrap_or(true),
            }),
            Kind::Cache => Mount::Cache(self.cache()),
            Kind::Tmpfs => Mount::Tmpfs(TmpfsMount {
                target: self.target.unwrap_or_default(),
                size: self.size,
            }),
            Kind::Secret => Mount::Secret(self.secret()?),
            Kind::Ssh => Mount::Ssh(SshMount {
                id: self
                    .id
                    .or(self.source)
                    .unwrap_or_else(|| "default".to_owned()),
                target: self.target,
                required: self.required.unwrap_or_default(),
                file: self.file,
            }),
        })
    }

    fn check_places(&self) -> Result<(), MountError> {
        let has_file = matches!(self.kind, Kind::Cache | Kind::Secret | Kind::Ssh);
        let is_secret = matches!(self.kind, Kind::Secret);
        let places = [
            ("mode", self.file.mode.is_some(), has_file),
            ("uid", self.file.uid.is_some(), has_file),
            ("gid", self.file.gid.is_some(), has_file),
            (
                "required",
                self.required.is_some(),
                is_secret || matches!(self.kind, Kind::Ssh),
            ),
            (
                "size",
                self.size.is_some(),
                matches!(self.kind, Kind::Tmpfs),
            ),
            (
                "sharing",
                self.sharing.is_some(),
                matches!(self.kind, Kind::Cache),
            ),
            ("env", self.env.is_some(), is_secret),
            ("from", self.from.is_some(), !is_secret),
        ];
        match places.iter().find(|(_, given, fits)| *given && !fits) {
            Some((key, ..)) => {
                let kind = match self.kind {
                    Kind::Bind => "bind",
                    Kind::Cache => "cache",
                    Kind::Tmpfs => "tmpfs",
                    Kind::Secret => "secret",
                    Kind::Ssh => "ssh",
                };
                Err(MountError::Misplaced {
                    key: (*key).to_owned(),
                    kind,
                })
            }
            None => Ok(()),
        }
    }

    fn cache(self) -> CacheMount {
        let target = self.target.unwrap_or_default();
        CacheMount {
            // A path with and without a slash at its end is one cache.
            id: self.id.unwrap_or_else(|| path::clean(&target)),
            target,
            sharing: self.sharing.unwrap_or_default(),
            from: self.from,
            source: self.source,
            read_only: self.read_only.unwrap_or_default(),
            file: self.file,
        }
    }

    fn secret(self) -> Result<SecretMount, MountError> {
        let id = match (self.id, self.source, &self.target) {
            (Some(_), Some(_), _) => return Err(MountError::SecretNamedTwice),
            (Some(id), None, _) | (None, Some(id), _) => id,
            (None, None, Some(target)) => path::base(target).to_owned(),
            (None, None, None) => return Err(MountError::NamelessSecret),
        };
        // With a variable and no path there is no file.
        let target = match self.env {
            Some(_) => self.target,
            None => self
                .target
                .or_else(|| Some(format!("/run/secrets/{}", path::base(&id)))),
        };
        Ok(SecretMount {
            id,
            target,
            env: self.env,
            required: self.required.unwrap_or_default(),
            file: self.file,
        })
    }
}

fn some(value: String) -> Option<String> {
    Some(value).filter(|value| !value.is_empty())
}

fn unknown_key(key: &str) -> MountError {
    MountError::UnknownKey {
        key: key.to_owned(),
        suggestion: suggest::nearest(key, &KEYS),
    }
}

fn choose<T: Copy>(key: &str, value: &str, choices: &[(&'static str, T)]) -> Result<T, MountError> {
    let found = choices
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(value));
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<&'static str> = choices.iter().map(|(name, _)| *name).collect();
        MountError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            suggestion: suggest::nearest(value, &names),
        }
    })
}

fn parse_with<T>(
    key: &str,
    value: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, MountError> {
    parse(value).ok_or_else(|| MountError::Value {
        key: key.to_owned(),
        value: value.to_owned(),
        suggestion: None,
    })
}

fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn parse_number(value: &str, radix: u32) -> Option<u32> {
    let digits = value.chars().all(|c| c.is_digit(radix));
    u32::from_str_radix(value, radix).ok().filter(|_| digits)
}

/// Reads a size such as `512`, `64m` or `1.5GiB`; units are powers of 1024.
fn parse_size(value: &str) -> Option<u64> {
    let end = value
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let unit = unit.trim_start_matches(' ').to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    let bytes = number * 1024_f64.powi(power);
    // Beyond this a float cannot count bytes, and no tmpfs can be so large.
    (bytes < 2_f64.powi(62)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::super::parse_mount;
    use super::*;

    fn mount(text: &str) -> Mount {
        parse_mount(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn each_type_has_its_defaults() {
        let bind = BindMount {
            from: None,
            source: None,
            target: "/a".into(),
            read_only: true,
        };
        assert_eq!(mount("target=/a"), Mount::Bind(bind.clone()));
        let written = BindMount {
            from: Some("x".into()),
            source: Some("/s".into()),
            read_only: false,
            ..bind
        };
        assert_eq!(
            mount("Type=BIND,from=x,src=/s,dst=/a,rw"),
            Mount::Bind(written.clone())
        );
        assert_eq!(
            mount("from=x,source=/s,destination=/a,ro=false"),
            Mount::Bind(written)
        );

        let Mount::Cache(cache) = mount("type=cache,target=/c/,sharing=locked,mode=0700") else {
            panic!("not a cache")
        };
        assert_eq!((cache.id.as_str(), cache.sharing), ("/c", Sharing::Locked));
        assert_eq!((cache.file.mode, cache.read_only), (Some(0o700), false));

        let tmpfs = TmpfsMount {
            target: "/t".into(),
            size: Some(64 << 20),
        };
        assert_eq!(mount("size=64m,type=tmpfs,target=/t"), Mount::Tmpfs(tmpfs));

        let Mount::Ssh(ssh) = mount("type=ssh") else {
            panic!("not ssh")
        };
        assert_eq!(
            (ssh.id.as_str(), ssh.target, ssh.required),
            ("default", None, false)
        );
    }

    #[test]
    fn secrets_are_files_variables_or_both() {
        let table = [
            ("id=a", ("a", Some("/run/secrets/a"), None)),
            ("source=d/a", ("d/a", Some("/run/secrets/a"), None)),
            ("target=/etc/a", ("a", Some("/etc/a"), None)),
            ("id=a,env=A", ("a", None, Some("A"))),
            ("id=a,env=A,target=/a", ("a", Some("/a"), Some("A"))),
        ];
        for (text, (id, target, env)) in table {
            let Mount::Secret(secret) = mount(&format!("type=secret,{text}")) else {
                panic!("not a secret")
            };
            let found = (
                secret.id.as_str(),
                secret.target.as_deref(),
                secret.env.as_deref(),
            );
            assert_eq!(found, (id, target, env), "{text}");
        }
    }

    #[test]
    fn wrong_options_are_refused() {
        let table = [
            (
                "type=cahce,target=/a",
                "option \"type\" cannot be \"cahce\", did you mean \"cache\"?",
            ),
            (
                "tpye=cache",
                "unknown option \"tpye\", did you mean \"type\"?",
            ),
            ("target", "option \"target\" needs a value"),
            (
                "type=bind,target=/a,mode=1",
                "option \"mode\" does not fit a mount of type bind",
            ),
            (
                "type=cache,required",
                "option \"required\" does not fit a mount of type cache",
            ),
            (
                "type=secret,id=a,from=b",
                "option \"from\" does not fit a mount of type secret",
            ),
            (
                "type=cache,size=1",
                "option \"size\" does not fit a mount of type cache",
            ),
            ("type=secret", "a secret needs an id or a target"),
            (
                "type=secret,id=a,src=b",
                "a secret takes an id or a source, not both",
            ),
            ("type=cache,mode=9", "option \"mode\" cannot be \"9\""),
            ("type=cache,uid=-1", "option \"uid\" cannot be \"-1\""),
            ("type=tmpfs,size=1x", "option \"size\" cannot be \"1x\""),
            ("target=/a,ro=maybe", "option \"ro\" cannot be \"maybe\""),
            ("a\"b", "options \"a\\\"b\" have quotes in the wrong place"),
            (
                "\"target=/a",
                "options \"\\\"target=/a\" have quotes in the wrong place",
            ),
        ];
        for (text, expected) in table {
            let message = parse_mount(text).map_err(|error| error.to_string());
            assert_eq!(message, Err(expected.to_owned()), "{text}");
        }
        assert_eq!(
            parse_mount("from=$x,target=/a"),
            Err(MountError::VariableFrom)
        );
        assert!(parse_mount("from=x$,target=/a").is_ok());
    }

    #[test]
    fn values_are_expanded_after_the_record_is_split() {
        let expand = |value: &str| Ok(value.replace("$v", "/a,rw"));
        let Ok(Mount::Bind(bind)) = Mount::parse("target=$v", &expand) else {
            panic!("not a bind")
        };
        assert_eq!((bind.target.as_str(), bind.read_only), ("/a,rw", true));
        let Mount::Bind(bind) = mount("\"target=/a,\"\"b\"\"\",rw") else {
            panic!("not a bind")
        };
        assert_eq!((bind.target.as_str(), bind.read_only), ("/a,\"b\"", false));
    }

    #[test]
    fn sizes_have_units_of_1024() {
        let table = [
            ("10", 10),
            ("1k", 1024),
            ("1.5KiB", 1536),
            ("2 mb", 2 << 20),
            ("1P", 1 << 50),
        ];
        for (text, expected) in table {
            assert_eq!(parse_size(text), Some(expected), "{text}");
        }
        for text in ["", "k", "-1", "1kk", "1e3", "9999999999p", "1.2.3"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}

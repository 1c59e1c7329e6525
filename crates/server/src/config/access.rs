//! Who may use the service.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use ocibuild_registry::Secret;

use super::error::Problem;
use super::settings::{TOKENS, TOKENS_FILE};
use super::values::Reader;

/// A bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose builds it shows; None is the administrator, who sees all.
    pub tenant: Option<String>,
    /// What clients send.
    pub secret: Secret,
}

/// How much of a file of tokens or accounts is read.
const LONGEST_FILE: u64 = 1 << 20;

/// Reads the tokens of the variable and of the file.
pub(super) fn read(reader: &mut Reader) -> Vec<Token> {
    let mut all: Vec<Token> = reader.list(&TOKENS, token);
    if has_twins(&all) {
        reader.refuse(&TOKENS);
    }
    let Some(path) = reader.path(&TOKENS_FILE) else {
        return all;
    };
    let text = match read_file(&path) {
        Ok(text) => text,
        Err(source) => {
            let name = TOKENS_FILE.name;
            reader.add(Problem::File { name, path, source });
            return all;
        }
    };
    match lines(&text).map(token).collect::<Option<Vec<_>>>() {
        Some(more) => all.extend(more),
        None => reader.refuse(&TOKENS_FILE),
    }
    if has_twins(&all) {
        reader.refuse(&TOKENS_FILE);
    }
    all
}

pub(super) fn read_file(path: &PathBuf) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(LONGEST_FILE + 1)
        .read_to_string(&mut text)?;
    match text.len() as u64 > LONGEST_FILE {
        true => Err(std::io::ErrorKind::FileTooLarge.into()),
        false => Ok(text),
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn token(text: &str) -> Option<Token> {
    let (tenant, secret) = text.split_once(':')?;
    let tenant = (tenant != "*").then(|| tenant.to_owned());
    let valid = tenant.as_deref().is_none_or(is_name)
        && !secret.is_empty()
        && secret.bytes().all(|byte| byte.is_ascii_graphic());
    valid.then(|| Token {
        tenant,
        secret: Secret::new(secret),
    })
}

/// Tells whether a text can be the name of a tenant or of a replica.
pub(super) fn is_name(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(valid)
}

/// Nobody could say whose such a token is.
fn has_twins(tokens: &[Token]) -> bool {
    let mut secrets: Vec<_> = tokens.iter().map(|token| token.secret.expose()).collect();
    secrets.sort_unstable();
    secrets.windows(2).any(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, names_of_problems};
    use super::*;

    fn token_of(tenant: Option<&str>, secret: &str) -> Token {
        Token {
            tenant: tenant.map(str::to_owned),
            secret: Secret::new(secret),
        }
    }

    #[test]
    fn tokens_come_from_the_variable_and_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        std::fs::write(&file, "# people\n\n one:t:2 \r\nthree:t,3\n").unwrap();
        let file = file.to_str().unwrap();
        let tokens = config(&[
            ("OCIBUILD_TOKENS", "*:root,one:t1"),
            ("OCIBUILD_TOKENS_FILE", file),
        ]);
        assert_eq!(
            tokens.unwrap().tokens,
            [
                token_of(None, "root"),
                token_of(Some("one"), "t1"),
                token_of(Some("one"), "t:2"),
                token_of(Some("three"), "t,3"),
            ]
        );
        for text in [
            "hidden",
            "a:hidden\na:hidden b",
            "a:hidden\nb:hidden",
            "a:t1",
        ] {
            std::fs::write(file, text).unwrap();
            let vars = [("OCIBUILD_TOKENS", "x:t1"), ("OCIBUILD_TOKENS_FILE", file)];
            let error = config(&vars).unwrap_err();
            assert_eq!(
                names_of_problems(&error),
                ["OCIBUILD_TOKENS_FILE"],
                "{text}"
            );
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
        std::fs::write(file, "#".repeat(1 << 20) + "#").unwrap();
        assert!(config(&[("OCIBUILD_TOKENS_FILE", file)]).is_err());
        let error = config(&[("OCIBUILD_TOKENS_FILE", "/no/such/file")]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("OCIBUILD_TOKENS_FILE: cannot read /no/such/file: "),
            "{text}"
        );
    }

    #[test]
    fn wrong_tokens_are_refused_and_not_shown() {
        for value in [
            "hidden",
            ":hidden",
            "a:",
            "a b:hidden",
            "a:hid den",
            "a:hidden,b:hidden",
        ] {
            let error = config(&[("OCIBUILD_TOKENS", value)]).unwrap_err();
            assert_eq!(names_of_problems(&error), ["OCIBUILD_TOKENS"], "{value}");
            assert!(!error.to_string().contains("hid"), "{error}");
        }
    }
}

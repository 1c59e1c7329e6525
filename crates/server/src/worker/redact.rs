//! Takes secrets out of text before it is written anywhere.

use std::borrow::Cow;

use ocibuild_registry::Secret;

/// What stands in the place of a secret.
const HIDDEN: &str = "****";
/// A shorter secret would take ordinary words out of the log, and protects nothing.
const SHORTEST: usize = 4;
/// A key of several lines is hidden line by line, where a line says something.
const SHORTEST_LINE: usize = 8;

/// Knows the secrets of one build.
#[derive(Default)]
pub(super) struct Redactor {
    /// Longest first, so that a secret that contains another one is hidden whole.
    needles: Vec<String>,
}

impl Redactor {
    pub(super) fn new<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let mut needles: Vec<String> = secrets.flat_map(|secret| forms(secret.expose())).collect();
        needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        Self { needles }
    }

    /// Gives `text` without secrets and without the credentials of URLs.
    pub(super) fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for needle in &self.needles {
            if text.contains(needle.as_str()) {
                text = Cow::Owned(text.replace(needle.as_str(), HIDDEN));
            }
        }
        match without_credentials(&text) {
            Some(clean) => Cow::Owned(clean),
            None => text,
        }
    }
}

/// The forms in which a secret may show up.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = Vec::new();
    if secret.len() >= SHORTEST {
        forms.push(secret.to_owned());
        forms.push(url::form_urlencoded::byte_serialize(secret.as_bytes()).collect());
    }
    if secret.contains('\n') || secret.contains("\\n") {
        let lines = secret
            .split('\n')
            .flat_map(|line| line.split("\\n"))
            .map(str::trim);
        forms.extend(
            lines
                .filter(|line| line.len() >= SHORTEST_LINE)
                .map(str::to_owned),
        );
    }
    forms
}

/// Hides what stands between `://` and `@` in every URL of a text, if it has any.
fn without_credentials(text: &str) -> Option<String> {
    let mut clean = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://").map(|at| at + "://".len()) {
        let (before, after) = rest.split_at(start);
        let ends = |c: char| c.is_whitespace() || "/?#\"'<>".contains(c);
        let authority = after.split(ends).next().unwrap_or_default();
        clean.push_str(before);
        rest = after;
        if let Some(at) = authority.rfind('@') {
            clean.push_str(HIDDEN);
            rest = after.split_at(at).1;
        }
    }
    if clean.is_empty() {
        return None;
    }
    clean.push_str(rest);
    Some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_in_every_form() {
        let key = "{\"private_key\": \"-----BEGIN\\nAAAABBBBCCCC\\nend\"}";
        let secrets = ["ghp_token", "p@ss/word", key, "ghp_token_longer", "abc"].map(Secret::new);
        let redactor = Redactor::new(secrets.iter());
        for (text, expected) in [
            ("fatal: ghp_token is wrong", "fatal: **** is wrong"),
            ("ghp_token_longer", "****"),
            (
                "https://ghp_token@github.com/a/b",
                "https://****@github.com/a/b",
            ),
            ("p%40ss%2Fword and p@ss/word", "**** and ****"),
            ("line AAAABBBBCCCC of a key", "line **** of a key"),
            ("abc is too short to hide", "abc is too short to hide"),
            (
                "https://x:y@host/p http://u@h",
                "https://****@host/p http://****@h",
            ),
            ("https://host/a@b stays", "https://host/a@b stays"),
            ("nothing :// here", "nothing :// here"),
            ("", ""),
        ] {
            assert_eq!(redactor.redact(text), expected);
        }
    }
}

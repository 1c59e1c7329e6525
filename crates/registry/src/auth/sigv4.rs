//! Signature Version 4, with which Amazon's services want requests signed: the
//! request in a canonical form, hashed, and a signature over that hash with a key that
//! is derived for one day, region and service.
//!
//! Rules: "AWS Signature Version 4 for API requests" in the IAM User Guide. Time comes
//! in as an argument. Requests with a query or without a body of known bytes are not
//! signed here.

use std::fmt;

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};

use crate::Secret;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// An access key of an Amazon account. `Debug` shows no part of it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The key's id, which is sent along.
    pub id: String,
    /// The secret, which is never sent.
    pub secret: Secret,
    /// What a temporary key has beside its secret.
    pub session_token: Option<Secret>,
}

impl AccessKey {
    /// Tells whether it is complete and has only characters that keys have.
    pub(super) fn is_sendable(&self) -> bool {
        let token = self.session_token.as_ref().map(Secret::expose);
        let parts = [Some(self.id.as_str()), Some(self.secret.expose()), token];
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
        parts.into_iter().flatten().all(is_part)
    }

    /// Replaces every part of the key in a foreign text.
    pub(super) fn hide(&self, text: &str) -> String {
        let parts = [Some(self.id.as_str()), Some(self.secret.expose())];
        let token = self.session_token.as_ref().map(Secret::expose);
        let parts = parts.into_iter().chain([token]).flatten();
        parts
            .filter(|part| !part.is_empty())
            .fold(text.to_owned(), |text, part| text.replace(part, "****"))
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessKey(****)")
    }
}

/// What a signature is good for.
pub(super) struct Signer<'a> {
    pub(super) key: &'a AccessKey,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) time: DateTime<Utc>,
}

/// A request before it is signed.
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// The path as it is sent.
    pub(super) path: &'a str,
    /// The headers that are signed, by lower-case name, in the order of their names.
    pub(super) headers: &'a [(&'a str, String)],
    pub(super) body: &'a [u8],
}

impl Signer<'_> {
    /// Gives the time in the form of the header `X-Amz-Date`.
    pub(super) fn date_header(&self) -> String {
        self.time.format("%Y%m%dT%H%M%SZ").to_string()
    }

    /// Gives the value of the header `Authorization`.
    pub(super) fn authorization(&self, request: &Unsigned<'_>) -> String {
        let signature = hex::encode(hmac(&self.signing_key(), &self.string_to_sign(request)));
        format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={signature}",
            self.key.id,
            self.scope(),
            request.signed_names()
        )
    }

    fn string_to_sign(&self, request: &Unsigned<'_>) -> String {
        format!(
            "{ALGORITHM}\n{}\n{}\n{}",
            self.date_header(),
            self.scope(),
            sha256(request.canonical().as_bytes())
        )
    }

    fn scope(&self) -> String {
        let (day, region, service) = (self.day(), self.region, self.service);
        format!("{day}/{region}/{service}/aws4_request")
    }

    fn day(&self) -> String {
        self.time.format("%Y%m%d").to_string()
    }

    fn signing_key(&self) -> [u8; 32] {
        let start = format!("AWS4{}", self.key.secret.expose());
        [&self.day(), self.region, self.service, "aws4_request"]
            .into_iter()
            .fold(None, |key: Option<[u8; 32]>, part| {
                let key = key.as_ref().map_or(start.as_bytes(), |key| &key[..]);
                Some(hmac(key, part))
            })
            .unwrap_or_default()
    }
}

impl Unsigned<'_> {
    fn canonical(&self) -> String {
        let headers: String = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}:{}\n", single_spaced(value)))
            .collect();
        // The empty line in the middle is where a query would stand.
        format!(
            "{}\n{}\n\n{headers}\n{}\n{}",
            self.method,
            encode_path(self.path),
            self.signed_names(),
            sha256(self.body)
        )
    }

    fn signed_names(&self) -> String {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        names.join(";")
    }
}

fn single_spaced(value: &str) -> String {
    let words: Vec<&str> = value.split_whitespace().collect();
    words.join(" ")
}

/// Encodes a path that is encoded already once more: every service but S3 wants it so.
fn encode_path(path: &str) -> String {
    let mut encoded = String::new();
    for byte in path.bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example_key(session_token: Option<&str>) -> AccessKey {
        AccessKey {
            id: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: session_token.map(Secret::new),
        }
    }

    /// Signs as the examples of the documentation do: on 30 August 2015, 12:36.
    fn sign(service: &str, request: &Unsigned<'_>) -> String {
        let key = example_key(None);
        let signer = Signer {
            key: &key,
            region: "us-east-1",
            service,
            time: DateTime::from_timestamp(1_440_938_160, 0).unwrap(),
        };
        assert_eq!(signer.date_header(), "20150830T123600Z");
        signer.authorization(request)
    }

    fn example_headers(more: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("host", "example.amazonaws.com".to_owned()),
            ("x-amz-date", "20150830T123600Z".to_owned()),
        ];
        headers.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        headers.sort();
        headers
    }

    #[test]
    fn signatures_are_those_of_the_published_examples() {
        for (name, method, headers, body, want) in [
            (
                "get-vanilla",
                "GET",
                example_headers(&[]),
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "post-vanilla",
                "POST",
                example_headers(&[]),
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-x-www-form-urlencoded",
                "POST",
                example_headers(&[("content-type", "application/x-www-form-urlencoded")]),
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let request = Unsigned {
                method,
                path: "/",
                headers: &headers,
                body: body.as_bytes(),
            };
            let authorization = sign("service", &request);
            let names = request.signed_names();
            let scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
            assert_eq!(
                authorization,
                format!(
                    "AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={want}"
                ),
                "{name}"
            );
        }
    }

    #[test]
    fn the_steps_of_get_vanilla_are_those_of_the_documentation() {
        let headers = example_headers(&[]);
        let request = Unsigned {
            method: "GET",
            path: "/",
            headers: &headers,
            body: b"",
        };
        assert_eq!(
            sha256(request.canonical().as_bytes()),
            "bb579772317eb040ac9ed261061d46c1f17a8133879d6129b6e1c25292927e63"
        );
    }

    #[test]
    fn keys_are_derived_as_in_the_documentation() {
        let key = example_key(None);
        let signer = Signer {
            key: &key,
            region: "us-east-1",
            service: "iam",
            time: DateTime::from_timestamp(1_440_938_160, 0).unwrap(),
        };
        assert_eq!(
            hex::encode(signer.signing_key()),
            "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
        );
    }

    #[test]
    fn what_is_signed_is_in_canonical_form() {
        let headers = [("a", "  two   words ".to_owned()), ("b", "x".to_owned())];
        let request = Unsigned {
            method: "POST",
            path: "/a%20b/c~d",
            headers: &headers,
            body: b"",
        };
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(
            request.canonical(),
            format!("POST\n/a%2520b/c~d\n\na:two words\nb:x\n\na;b\n{empty}")
        );
    }

    #[test]
    fn keys_do_not_show_themselves() {
        let key = example_key(Some("session"));
        let text = format!("{key:?}");
        assert_eq!(key.hide(&text), text);
        assert_eq!(
            key.hide("x wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY AKIDEXAMPLE session"),
            "x **** **** ****"
        );
    }
}

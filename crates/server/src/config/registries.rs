//! The registries that images go to and come from.

use ocibuild_registry::Secret;
use url::Url;

use super::hosts;
use super::settings::{
    AWS_ACCESS_KEY_ID, AWS_DEFAULT_REGION, AWS_ECR_ACCOUNT_ID, AWS_ECR_REGION, AWS_ENDPOINT_URL,
    AWS_ENDPOINT_URL_ECR, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, CONTAINER_IMAGE_PREFIX,
    CONTAINER_IMAGE_PREFIX_GCP, GCP_CREDS_PATH, GCP_PROJECT_ID, IMAGE_REPOSITORY, LOCAL_REGISTRY,
    PLAIN_HTTP, REGISTRY_ALIAS, Setting,
};
use super::values::{Reader, items};
use crate::targets::{Aws, Google, LocalRegistry, Naming, Targets};

pub(super) fn read_targets(reader: &mut Reader, plain_http: &[String]) -> Targets {
    let local = reader.values.environment() == "local";
    Targets {
        naming: match local {
            true => Naming::Local,
            false => Naming::Production,
        },
        local_registry: reader.optional(&LOCAL_REGISTRY, |text| {
            local_registry(text, local, plain_http)
        }),
        image_repository: reader.read(&IMAGE_REPOSITORY, repository),
        image_prefix: reader.read(&CONTAINER_IMAGE_PREFIX, repository),
        image_prefix_google: reader.read(&CONTAINER_IMAGE_PREFIX_GCP, repository),
        aws: aws(reader),
        google: google(reader),
    }
}

pub(super) fn read_plain_http(reader: &mut Reader) -> Vec<String> {
    reader.list(&PLAIN_HTTP, hosts::normal)
}

/// Reads which registry is really where: name, and the endpoint in its place.
pub(super) fn read_aliases(reader: &mut Reader) -> Vec<(String, String)> {
    let aliases = |text: &str| {
        let mut all: Vec<(String, String)> = Vec::new();
        for item in items(text) {
            let (name, endpoint) = item.split_once('=')?;
            let name = hosts::normal(name.trim())?;
            if all.iter().any(|(other, _)| *other == name) {
                return None;
            }
            all.push((name, hosts::normal(endpoint.trim())?));
        }
        Some(all)
    };
    reader
        .optional(&REGISTRY_ALIAS, aliases)
        .unwrap_or_default()
}

/// A registry is spoken to in plain HTTP where the address or the place says so: with
/// `http://` before it, on the loopback, in a local deployment, or when it is listed in
/// `OCIBUILD_PLAIN_HTTP`.
fn local_registry(text: &str, local: bool, plain_http: &[String]) -> Option<LocalRegistry> {
    let (scheme, address) = text
        .split_once("://")
        .map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let address = address.trim_end_matches('/');
    let normal = hosts::normal(address)?;
    let plain_http = match scheme {
        Some("http") => true,
        Some("https") => false,
        Some(_) => return None,
        None => local || hosts::is_loopback(address) || plain_http.contains(&normal),
    };
    Some(LocalRegistry {
        address: address.to_owned(),
        plain_http,
    })
}

fn repository(text: &str) -> Option<String> {
    let word = |part: &str| {
        let inside = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let outside = |edge: Option<&u8>| edge.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = part.as_bytes();
        bytes.iter().copied().all(inside) && outside(bytes.first()) && outside(bytes.last())
    };
    text.split('/').all(word).then(|| text.to_owned())
}

fn aws(reader: &mut Reader) -> Option<Aws> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let account = reader.optional(&AWS_ECR_ACCOUNT_ID, |text| {
        digits(text).then(|| text.to_owned())
    });
    let region = reader.optional(&AWS_ECR_REGION, region);
    let usual_region = reader.read(&AWS_DEFAULT_REGION, self::region);
    let key = reader
        .string(&AWS_ACCESS_KEY_ID)
        .zip(secret(reader, &AWS_SECRET_ACCESS_KEY));
    let session_token = secret(reader, &AWS_SESSION_TOKEN);
    let endpoint = reader.optional(&AWS_ENDPOINT_URL_ECR, web_address);
    let usual_endpoint = reader.optional(&AWS_ENDPOINT_URL, web_address);
    Some(Aws {
        account: account?,
        region: region.unwrap_or(usual_region),
        key,
        session_token,
        endpoint: endpoint.or(usual_endpoint),
    })
}

fn region(text: &str) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    text.bytes().all(valid).then(|| text.to_owned())
}

fn google(reader: &mut Reader) -> Option<Google> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte);
    let project = reader.optional(&GCP_PROJECT_ID, |text| {
        // A project of a domain is `domain.com:project`, and `domain.com/project` in a name.
        text.bytes().all(valid).then(|| text.replace(':', "/"))
    });
    let key_file = reader.path(&GCP_CREDS_PATH).unwrap_or_default();
    project.map(|project| Google { project, key_file })
}

pub(super) fn secret(reader: &mut Reader, setting: &'static Setting) -> Option<Secret> {
    reader.string(setting).map(|text| Secret::new(text.trim()))
}

/// Reads a URL of http or https.
pub(super) fn web_address(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let web = matches!(url.scheme(), "http" | "https") && url.has_host();
    web.then(|| text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, names_of_problems};

    #[test]
    fn plain_http_needs_a_reason() {
        let plain = |vars: &[(&str, &str)]| {
            config(vars)
                .unwrap()
                .targets
                .local_registry
                .unwrap()
                .plain_http
        };
        let prod = ("ENV", "prod");
        assert!(plain(&[("LOCAL_REGISTRY", "kind-registry:5000")]));
        assert!(!plain(&[("LOCAL_REGISTRY", "https://kind-registry:5000")]));
        assert!(!plain(&[prod, ("LOCAL_REGISTRY", "registry.example:5000")]));
        assert!(plain(&[
            prod,
            ("LOCAL_REGISTRY", "http://registry.example")
        ]));
        assert!(plain(&[prod, ("LOCAL_REGISTRY", "localhost:5000")]));
        assert!(plain(&[prod, ("LOCAL_REGISTRY", "[::1]:5000")]));
        let listed = ("OCIBUILD_PLAIN_HTTP", "a:1, r:5000");
        assert!(plain(&[prod, ("LOCAL_REGISTRY", "r:5000"), listed]));
        assert_eq!(config(&[listed]).unwrap().plain_http, ["a:1", "r:5000"]);
    }

    #[test]
    fn aliases_name_registries_once() {
        let aliases =
            |text| config(&[("OCIBUILD_REGISTRY_ALIAS", text)]).map(|config| config.aliases);
        let pair = |name: &str, endpoint: &str| (name.to_owned(), endpoint.to_owned());
        assert_eq!(
            aliases("localhost:5000=kind-registry:5000, R=10.0.0.1:80,").unwrap(),
            [
                pair("localhost:5000", "kind-registry:5000"),
                pair("r", "10.0.0.1:80")
            ]
        );
        for wrong in ["a", "a=", "=b", "a=http://b", "a=b,A=c", "a=b=c", "a/b=c"] {
            let error = aliases(wrong).unwrap_err();
            assert_eq!(
                names_of_problems(&error),
                ["OCIBUILD_REGISTRY_ALIAS"],
                "{wrong}"
            );
        }
    }

    #[test]
    fn amazon_has_a_region_and_an_address() {
        let aws = |vars: &[(&str, &str)]| {
            let account = ("AWS_ECR_ACCOUNT_ID", "1");
            config(&[&[account], vars].concat())
                .unwrap()
                .targets
                .aws
                .unwrap()
        };
        let (ecr, usual) = (("AWS_ECR_REGION", "eu-1"), ("AWS_DEFAULT_REGION", "ap-1"));
        for (vars, expected) in [
            (&[][..], "us-east-1"),
            (&[usual], "ap-1"),
            (&[usual, ecr], "eu-1"),
        ] {
            assert_eq!(aws(vars).region, expected);
        }
        let (ecr, usual) = (
            ("AWS_ENDPOINT_URL_ECR", "http://ecr:1/"),
            ("AWS_ENDPOINT_URL", "http://aws:1"),
        );
        assert_eq!(aws(&[]).endpoint, None);
        assert_eq!(aws(&[usual]).endpoint.unwrap(), "http://aws:1");
        assert_eq!(aws(&[usual, ecr]).endpoint.unwrap(), "http://ecr:1");
    }
}

//! The credentials of a container: ECS tasks by a path at a fixed address, EKS pods and
//! others by a URL with a token.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use url::{Host, Url};

use super::{AwsKeyProblem, AwsKeySource, Finder, Found, read_document};
use crate::auth::call::{call, sensitive};
use crate::home::authority;

const TIME: Duration = Duration::from_secs(5);
const ECS: &str = "http://169.254.170.2";
/// Plain HTTP is spoken to these and to loopback.
const PLAIN: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

impl Finder<'_> {
    pub(super) async fn container(&self) -> Found {
        let (text, needs_check) = match (
            self.environment
                .get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            self.environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ) {
            (Some(path), _) => (format!("{ECS}{path}"), false),
            (None, Some(url)) => (url.to_owned(), true),
            (None, None) => return Ok(None),
        };
        let failed = |problem| AwsKeySource::Container.failed(problem);
        let address = |host: &str, problem| {
            failed(AwsKeyProblem::Address {
                host: host.to_owned(),
                problem,
            })
        };
        let url = Url::parse(&text).map_err(|_| address("", "it is not a URL"))?;
        let host = authority(&url);
        let stays = host == "169.254.170.2";
        if (needs_check && !is_permitted(&url)) || (!needs_check && !stays) {
            let problem = "it is neither https nor an address of this machine or its container";
            return Err(address(&host, problem));
        }
        let mut request = self.connector.direct().get(url);
        if let Some(token) = self.container_token()? {
            let token = sensitive(&token);
            let what = "the token of the container";
            let token = token.ok_or_else(|| failed(AwsKeyProblem::Characters { what }))?;
            request = request.header(AUTHORIZATION, token);
        }
        let answer = call(request, TIME).await;
        let answer = answer.map_err(|source| {
            failed(AwsKeyProblem::Call {
                host: host.clone(),
                source,
            })
        })?;
        if answer.status != 200 {
            return Err(failed(AwsKeyProblem::Refused {
                host,
                status: answer.status,
                kind: String::new(),
            }));
        }
        match read_document(&answer.body) {
            Some(found) => Ok(Some(found)),
            None => Err(failed(AwsKeyProblem::Answer { host })),
        }
    }

    /// A token in a file is renewed there, so it is read each time.
    fn container_token(&self) -> Result<Option<String>, super::AwsKeyError> {
        if let Some(path) = self
            .environment
            .path("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
        {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| AwsKeyProblem::Read { path, source })
                .map_err(|problem| AwsKeySource::Container.failed(problem))?;
            return Ok(Some(text.trim().to_owned()));
        }
        let token = self.environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN");
        Ok(token.map(str::to_owned))
    }
}

fn is_permitted(url: &Url) -> bool {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain("localhost")) => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => None,
    };
    match url.scheme() {
        "https" => url.has_host(),
        "http" => address.is_some_and(|a| a.is_loopback() || PLAIN.contains(&a)),
        _ => false,
    }
}

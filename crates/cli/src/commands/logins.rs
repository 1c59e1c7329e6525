//! The logins to registries that a machine has: Docker's, Podman's and Kubernetes' files of
//! one form, and a variable that holds such a text. The first that knows a registry counts.

use std::path::{Path, PathBuf};

use ocibuild::registry::Credentials;

use super::surroundings::{config_folder, variable};
use crate::error::Error;

/// What a variable of CI systems holds: the text of a `config.json`.
const TEXT: &str = "DOCKER_AUTH_CONFIG";
/// How the file is called in a volume of a Kubernetes secret, after how Docker calls it.
const NAMES: [&str; 2] = ["config.json", ".dockerconfigjson"];

/// Finds the logins; a file that was named has to be there.
pub(crate) fn find(named: Option<&Path>) -> Result<Credentials, Error> {
    let mut found = Credentials::anonymous();
    if let Some(text) = variable(TEXT) {
        let text = text.to_string_lossy();
        let parsed = Credentials::from_docker_config(text.as_bytes());
        found = parsed.map_err(|error| Error::failed(format!("read ${TEXT}"), error))?;
    }
    let named = named.map(Path::to_owned);
    let named = named.or_else(|| variable("REGISTRY_AUTH_FILE").map(PathBuf::from));
    let usual = usual().into_iter().filter(|file| file.is_file());
    for file in named.into_iter().chain(usual) {
        let read = Credentials::from_docker_config_file(&file);
        let failed = |error| Error::failed(format!("read {}", file.display()), error);
        found = found.or(read.map_err(failed)?);
    }
    Ok(found)
}

/// Lists where Docker and Podman keep logins, Docker's first.
fn usual() -> Vec<PathBuf> {
    let home = || Some(PathBuf::from(variable("HOME")?).join(".docker"));
    let docker = variable("DOCKER_CONFIG").map(PathBuf::from).or_else(home);
    let docker = docker
        .into_iter()
        .flat_map(|folder| NAMES.map(|name| folder.join(name)));
    let running = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let podman = running.into_iter().chain(config_folder());
    docker
        .chain(podman.map(|folder| folder.join("containers/auth.json")))
        .collect()
}

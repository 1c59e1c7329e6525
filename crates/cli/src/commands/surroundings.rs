//! What commands take from their surroundings — environment, home directory, Docker's
//! configuration — so that the library gets it as values.

use std::path::PathBuf;

use ocibuild::Cancel;
use ocibuild::registry::{Client, Credentials, InvalidReference, Platform, Reference};

use crate::args::{RegistryArgs, StoreArgs};
use crate::error::Error;

/// Gives the folder of the store.
pub(crate) fn store_root(args: &StoreArgs) -> Result<PathBuf, Error> {
    if let Some(root) = &args.root {
        return Ok(root.clone());
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    variable("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/share")))
        .map(|data| data.join("ocibuild"))
        .ok_or_else(|| Error::Usage("no home directory: say --root DIR".to_owned()))
}

/// Makes the client of registries, with the credentials of Docker's configuration.
pub(crate) fn client(args: &RegistryArgs) -> Result<Client, Error> {
    let mut builder = Client::builder()
        .credentials(credentials()?)
        .plain_http(args.plain_http.iter().cloned());
    for file in &args.ca_file {
        let pem = std::fs::read(file)
            .map_err(|error| Error::failed(format!("read {}", file.display()), error))?;
        builder = builder.extra_ca(pem);
    }
    builder
        .build()
        .map_err(|error| Error::failed("set up the registry client", error))
}

fn credentials() -> Result<Credentials, Error> {
    let folder = match std::env::var_os("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => match std::env::var_os("HOME") {
            Some(home) => PathBuf::from(home).join(".docker"),
            None => return Ok(Credentials::anonymous()),
        },
    };
    let file = folder.join("config.json");
    if !file.exists() {
        return Ok(Credentials::anonymous());
    }
    Credentials::from_docker_config_file(&file)
        .map_err(|error| Error::failed(format!("read {}", file.display()), error))
}

/// Parses the name of an image.
pub(crate) fn reference(text: &str) -> Result<Reference, Error> {
    text.parse()
        .map_err(|error: InvalidReference| Error::Usage(error.to_string()))
}

/// Parses a platform.
pub(crate) fn platform(text: &str) -> Result<Platform, Error> {
    text.parse()
        .map_err(|error| Error::Usage(format!("--platform: {error}")))
}

/// Gives a switch that Ctrl-C and SIGTERM turn on; the second signal ends the program at once.
pub(crate) fn cancel_on_signal() -> Cancel {
    use tokio::signal::unix::{SignalKind, signal};
    let cancel = Cancel::new();
    let switch = cancel.clone();
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            return;
        };
        let mut again = false;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if again {
                std::process::exit(130);
            }
            again = true;
            switch.cancel();
        }
    });
    cancel
}

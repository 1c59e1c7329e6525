//! What commands take from their surroundings — environment, home directory, Docker's
//! configuration — so that the library gets it as values.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ocibuild::Cancel;
use ocibuild::registry::{
    Client, CloudEnvironment, InvalidReference, Platform, Reference, Registries,
};

use super::logins;
use crate::args::{RegistryArgs, StoreArgs};
use crate::error::Error;

/// Gives the folder of the store.
pub(crate) fn store_root(args: &StoreArgs) -> Result<PathBuf, Error> {
    if let Some(root) = &args.root {
        return Ok(root.clone());
    }
    variable("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/share")))
        .map(|data| data.join("ocibuild"))
        .ok_or_else(|| Error::Usage("no home directory: say --root DIR".to_owned()))
}

/// Makes the client of registries, with the logins of this machine.
pub(crate) fn client(args: &RegistryArgs) -> Result<Client, Error> {
    let mut builder = Client::builder()
        .credentials(logins::find(args.authfile.as_deref())?)
        .plain_http(args.plain_http.iter().cloned());
    for file in &args.ca_file {
        let pem = std::fs::read(file)
            .map_err(|error| Error::failed(format!("read {}", file.display()), error))?;
        builder = builder.extra_ca(pem);
    }
    if let Some(policy) = args.tag_policy {
        builder = builder.tag_policy(policy);
    }
    if let Some(file) = registries_file(args.registries.as_deref()) {
        let failed = |error| Error::failed(format!("take over {}", file.display()), error);
        let registries = Registries::read(&file).map_err(failed)?;
        let environment = CloudEnvironment::from_vars(text_variables());
        builder = builder
            .registries(&registries, &environment)
            .map_err(failed)?;
    }
    builder
        .build()
        .map_err(|error| Error::failed("set up the registry client", error))
}

/// Finds the settings of registries: a file that was named has to be there.
fn registries_file(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(file) = named {
        return Some(file.to_owned());
    }
    if let Some(file) = variable("OCIBUILD_REGISTRIES") {
        return Some(file.into());
    }
    let own = config_folder().map(|folder| folder.join("ocibuild/registries.toml"));
    let usual = own
        .into_iter()
        .chain([PathBuf::from("/etc/ocibuild/registries.toml")]);
    usual.into_iter().find(|file| file.is_file())
}

/// Gives the folder of settings of whoever calls.
pub(crate) fn config_folder() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(variable("HOME")?).join(".config"));
    variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)
}

/// Gives a variable of the environment that is not empty.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn text_variables() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text)
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

//! `ocibuild serve`: the build service, and its demonstration.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use ocibuild_server::demo::{self, Addresses};
use ocibuild_server::{Config, Defaults, Options, ServeError, Service};
use tokio_util::sync::CancellationToken;

use super::surroundings::{cancel_on_signal, store_root};
use crate::args::{ServeArgs, StoreArgs};
use crate::error::Error;

/// Runs the command.
pub(crate) async fn run(args: ServeArgs) -> Result<ExitCode, Error> {
    if args.demo {
        return demonstrate(args).await;
    }
    let data = store_root(&StoreArgs { root: None }).unwrap_or_else(|_| PathBuf::from("."));
    let mut variables: Vec<(String, String)> = std::env::vars().collect();
    if let Some(listen) = &args.listen {
        variables.push(("OCIBUILD_LISTEN".to_owned(), listen.clone()));
    }
    let service = start(variables, data, None).await?;
    let shutdown = shutdown_on_signal();
    service.run(shutdown).await.map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

async fn start(
    variables: Vec<(String, String)>,
    data: PathBuf,
    embedded_registry: Option<SocketAddr>,
) -> Result<Service, Error> {
    let max_builds = std::thread::available_parallelism().map_or(1, usize::from);
    let defaults = Defaults { data, max_builds };
    let config =
        Config::from_vars(variables, &defaults).map_err(|error| Error::Usage(error.to_string()))?;
    let program = std::env::current_exe()
        .map_err(|error| Error::failed("find the path of this program", error))?;
    let options = Options {
        embedded_registry,
        ..Options::new(program)
    };
    Service::start(config, options).await.map_err(failed)
}

fn failed(error: ServeError) -> Error {
    Error::failed("run the build service", error)
}

fn shutdown_on_signal() -> CancellationToken {
    let (cancel, shutdown) = (cancel_on_signal(), CancellationToken::new());
    let token = shutdown.clone();
    tokio::spawn(async move {
        cancel.cancelled().await;
        token.cancel();
    });
    shutdown
}

/// Starts everything on this machine only, in a folder that goes with the program.
async fn demonstrate(args: ServeArgs) -> Result<ExitCode, Error> {
    let folder = tempfile::Builder::new().prefix("ocibuild-demo-").tempdir();
    let folder = folder.map_err(|error| Error::failed("make a folder for the demo", error))?;
    let service = start_demo(&args, folder.path().to_owned()).await?;
    let free = (Ipv4Addr::LOCALHOST, 0).into();
    let addresses = Addresses {
        service: service.address(),
        registry: service.registry().unwrap_or(free),
    };
    let shutdown = shutdown_on_signal();
    let serving = tokio::spawn(service.run(shutdown.clone()));
    let mut out = std::io::stdout();
    let shown = demo::run(addresses, |text| {
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    });
    let shown = tokio::select! {
        shown = shown => shown,
        () = shutdown.cancelled() => return Ok(ExitCode::from(130)),
    };
    let result = match shown {
        Ok(image) => {
            let _ = writeln!(out, "demo: pushed {}@{}", image.reference, image.digest);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(Error::failed("run the demo", error)),
    };
    if args.demo_exit || result.is_err() {
        shutdown.cancel();
    } else {
        let _ = writeln!(
            out,
            "demo: the service listens on http://{0}/, its API is described on http://{0}/docs, \
             its registry is {1}; Ctrl-C ends it",
            addresses.service, addresses.registry
        );
    }
    let served = serving.await;
    served
        .map_err(|error| Error::failed("run the build service", error))?
        .map_err(failed)?;
    result
}

/// The usual port where it is free, else any; an address that was asked for or none.
async fn start_demo(args: &ServeArgs, data: PathBuf) -> Result<Service, Error> {
    let registry = Some((Ipv4Addr::LOCALHOST, 0).into());
    let at = |listen: &str| vec![("OCIBUILD_LISTEN".to_owned(), listen.to_owned())];
    if let Some(listen) = &args.listen {
        return start(at(listen), data, registry).await;
    }
    match start(at("127.0.0.1:8000"), data.clone(), registry).await {
        Err(_) => start(at("127.0.0.1:0"), data, registry).await,
        started => started,
    }
}

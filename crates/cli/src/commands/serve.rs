//! `ocibuild serve`: the build service, and its demonstration.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;

use ocibuild_server::demo::{self, Addresses};
use ocibuild_server::{Config, Options, ServeError, Service, Source, Values};
use tokio_util::sync::CancellationToken;

use super::settings;
use super::surroundings::cancel_on_signal;
use crate::args::ServeArgs;
use crate::error::Error;
use crate::logging;

/// Runs the command.
pub(crate) async fn run(args: ServeArgs) -> Result<ExitCode, Error> {
    if args.demo {
        return demonstrate(args).await;
    }
    let values = settings::values(&args)?;
    let config = checked(&values)?;
    if let Some(format) = args.print_config {
        settings::print(&values, format)?;
        return Ok(ExitCode::SUCCESS);
    }
    logging::start(&config.log_filter, config.log_format);
    let service = start(config).await?;
    let shutdown = shutdown_on_signal();
    service.run(shutdown).await.map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

fn checked(values: &Values) -> Result<Config, Error> {
    let config = values.config();
    config.map_err(|error| Error::Usage(error.to_string()))
}

async fn start(config: Config) -> Result<Service, Error> {
    let program = std::env::current_exe()
        .map_err(|error| Error::failed("find the path of this program", error))?;
    let service = Service::start(config, Options::new(program)).await;
    service.map_err(failed)
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

/// Starts everything on this machine only, in a folder that goes with the program, unless a
/// flag names another one.
async fn demonstrate(args: ServeArgs) -> Result<ExitCode, Error> {
    let folder = tempfile::Builder::new().prefix("ocibuild-demo-").tempdir();
    let folder = folder.map_err(|error| Error::failed("make a folder for the demo", error))?;
    let values = demo_values(&args, folder.path());
    if let Some(format) = args.print_config {
        checked(&values)?;
        settings::print(&values, format)?;
        return Ok(ExitCode::SUCCESS);
    }
    logging::start_from_environment();
    let service = start_demo(&args, &values).await?;
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

/// The demo does not look at the environment: what it shows must not depend on it.
fn demo_values(args: &ServeArgs, folder: &Path) -> Values {
    let own = [
        ("OCIBUILD_LISTEN", "127.0.0.1:8000"),
        ("OCIBUILD_EMBEDDED_REGISTRY", "127.0.0.1:0"),
        // Where the sample repository is served.
        ("OCIBUILD_GIT_HTTP_HOSTS", "127.0.0.1"),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Values::new(settings::defaults(folder.to_owned()))
        .with(Source::Default, own)
        .with(Source::Flag, settings::flags(args))
}

/// The usual port where it is free, else any; an address that was asked for or none.
async fn start_demo(args: &ServeArgs, values: &Values) -> Result<Service, Error> {
    let config = checked(values)?;
    if args.listen.is_some() {
        return start(config).await;
    }
    let anywhere = Config {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        ..config.clone()
    };
    match start(config).await {
        Err(_) => start(anywhere).await,
        started => started,
    }
}

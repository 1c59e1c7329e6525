//! A certificate authority for tests, made with the program `openssl`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::testing::MariaDbError;
use crate::testing::mariadb::io_error;

/// An authority that nobody trusts who was not told to.
#[derive(Debug)]
pub struct Authority {
    /// File with its certificate (PEM).
    pub certificate: PathBuf,
    key: PathBuf,
}

/// What a server needs to prove who it is.
#[derive(Debug)]
pub(super) struct ServerCertificate {
    /// File with the certificate (PEM).
    pub(super) file: PathBuf,
    /// File with its key (PEM).
    pub(super) key: PathBuf,
    /// File with the certificate of the authority (PEM).
    pub(super) authority: PathBuf,
}

impl Authority {
    /// Makes an authority; its files are kept in the folder.
    pub fn make(folder: &Path) -> Result<Self, MariaDbError> {
        let (certificate, key) = (folder.join("authority.pem"), folder.join("authority.key"));
        new_certificate(&certificate, &key)
            .args(["-subj", "/CN=authority of a test"])
            .args(["-addext", "keyUsage=critical,keyCertSign"])
            .succeed()?;
        Ok(Self { certificate, key })
    }

    /// Makes a certificate for a server on the loopback interface.
    pub(super) fn certify(&self, folder: &Path) -> Result<ServerCertificate, MariaDbError> {
        let (file, key) = (folder.join("server.pem"), folder.join("server.key"));
        new_certificate(&file, &key)
            .arg("-CA")
            .arg(&self.certificate)
            .arg("-CAkey")
            .arg(&self.key)
            .args(["-subj", "/CN=server of a test"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .succeed()?;
        Ok(ServerCertificate {
            file,
            key,
            authority: self.certificate.clone(),
        })
    }
}

fn new_certificate(certificate: &Path, key: &Path) -> Command {
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-days", "2", "-nodes", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout"])
        .arg(key)
        .arg("-out")
        .arg(certificate);
    command
}

trait Succeed {
    fn succeed(&mut self) -> Result<(), MariaDbError>;
}

impl Succeed for Command {
    fn succeed(&mut self) -> Result<(), MariaDbError> {
        let output = self
            .stdin(Stdio::null())
            .output()
            .map_err(io_error("run openssl"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(MariaDbError::Failed {
            program: "openssl",
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

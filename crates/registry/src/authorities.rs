//! Whose certificates are believed. The system's authorities are read when a server first
//! shows a certificate: to read some hundred of them takes as long as all the rest of a build
//! that changes nothing, and a registry over plain HTTP needs none.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::BuildError;

/// Judges the certificates of servers.
#[derive(Debug)]
pub(crate) struct Judge {
    provider: Arc<CryptoProvider>,
    believes: Believes,
}

#[derive(Debug)]
enum Believes {
    /// Any certificate, for hosts whose operator said so.
    Everyone,
    /// What an authority has signed: one of those that are named, or one of the system's.
    Authorities {
        named: RootCertStore,
        /// None inside where there is no authority at all.
        all: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
    },
}

impl Judge {
    /// Believes everyone.
    pub(crate) fn believing_everyone(provider: Arc<CryptoProvider>) -> Self {
        let believes = Believes::Everyone;
        Self { provider, believes }
    }

    /// Believes the system's authorities and those of these PEM texts.
    pub(crate) fn new(
        named: &[Vec<u8>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, BuildError> {
        let mut roots = RootCertStore::empty();
        for pem in named {
            let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
                .collect::<Result<_, _>>()
                .map_err(|_| BuildError::InvalidCa)?;
            if certificates.is_empty() {
                return Err(BuildError::InvalidCa);
            }
            for certificate in certificates {
                roots.add(certificate).map_err(BuildError::UnusableCa)?;
            }
        }
        let believes = Believes::Authorities {
            named: roots,
            all: OnceLock::new(),
        };
        Ok(Self { provider, believes })
    }

    /// Adds the system's authorities to those that are named. What cannot be read is left out:
    /// a host that needs it is refused with a certificate error, all others still work.
    fn all(&self, named: &RootCertStore) -> Option<Arc<WebPkiServerVerifier>> {
        let mut roots = named.clone();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let (roots, provider) = (Arc::new(roots), Arc::clone(&self.provider));
        WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .ok()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Believes::Authorities { named, all } = &self.believes else {
            return Ok(ServerCertVerified::assertion());
        };
        match all.get_or_init(|| self.all(named)) {
            Some(all) => all.verify_server_cert(certificate, above, server, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

//! The certificates that TLS clients trust: the system's, and those of a CA file.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

use crate::error::{Error, Result};

use super::http::read_ca_file;

/// Reads the certificates of a CA file. Empty without a file.
///
/// # Errors
/// `Error::Usage` if the file cannot be read or holds no certificate.
pub(super) fn ca_certificates(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>> {
    let Some(file) = ca_file else { return Ok(Vec::new()) };
    let roots = CertificateDer::pem_slice_iter(&read_ca_file(file)?).collect::<std::result::Result<_, _>>();
    roots.map_err(|error| Error::Usage(format!("the CA file {}: {error}", file.display())))
}

/// Builds a TLS configuration that trusts the system's certificates and `roots`. Loading the system's takes long, so
/// build it once.
///
/// # Errors
/// `rustls::Error` if the system has no certificates.
pub(super) fn client_config(roots: &[CertificateDer<'static>]) -> std::result::Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder();
    let verifier = Verifier::new_with_extra_roots(roots.iter().cloned(), builder.crypto_provider().clone())?;
    // rustls calls every verifier but its own "dangerous"; this is the one that reqwest uses as well.
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

//! What clients that speak TLS trust: the system's certificates, and those of a CA file.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

use crate::error::{Error, Result};

use super::http::read_ca;

/// The certificates of a CA file.
///
/// # Errors
/// `Error::Usage` where the file cannot be read or holds none.
pub(super) fn roots(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>> {
    let Some(file) = ca_file else { return Ok(Vec::new()) };
    let roots = CertificateDer::pem_slice_iter(&read_ca(file)?).collect::<std::result::Result<_, _>>();
    roots.map_err(|error| Error::Usage(format!("the CA file {}: {error}", file.display())))
}

/// A client that trusts the system's certificates and `roots`. Reads the system's, which takes long.
///
/// # Errors
/// Where the system has none.
pub(super) fn config(roots: &[CertificateDer<'static>]) -> std::result::Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder();
    let verifier = Verifier::new_with_extra_roots(roots.iter().cloned(), builder.crypto_provider().clone())?;
    // "Dangerous" is any verifier but rustls's own; this is the one that reqwest has, too.
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

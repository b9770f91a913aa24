//! TLS of the listeners: the server's certificate, and what clients must show.
//!
//! | where the certificate comes from | who renews it | what clients trust |
//! |---|---|---|
//! | `certificate_file`, `key_file` | whoever made them; read again when they change | its issuer |
//! | neither: [`Authority`] makes one | we do, 60 days before its end, and when the machine's names change | `ca.pem` in the directory |
//!
//! A connection that is open keeps the certificate that it began with. When new files can't be used,
//! that is logged once, and the old ones stay.
//!
//! A client certificate's common name is the user's name. Taking a user out of the users file takes
//! its certificate's power away.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    config::{ClientCertificates, Tls},
    session::lock,
};

mod authority;

pub use authority::{Authority, Issued};

/// Why TLS can't be offered.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what the fields are.
pub enum TlsError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} holds no {what} in PEM: {problem}", path.display())]
    Pem { path: PathBuf, what: &'static str, problem: String },
    #[error("{}: {problem}", path.display())]
    Certificate { path: PathBuf, problem: String },
    #[error("tls.certificate_file and tls.key_file go together")]
    Half,
    #[error("a certificate can't be made: {0}")]
    Make(String),
    #[error("{0} is open to others than its owner; chmod 600 it", .path.display())]
    Open { path: PathBuf },
}

/// What the listeners offer now; replaced as a whole.
pub(crate) struct Acceptor {
    tls: Tls,
    current: RwLock<Arc<ServerConfig>>,
    /// The files' contents that `current` was made of, and then the last that could not be used.
    seen: Mutex<Files>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Acceptor {
    pub(crate) fn new(tls: &Tls) -> Result<Self, TlsError> {
        let files = Files::read(tls)?;
        let config = files.server_config(tls)?;
        Ok(Self {
            tls: tls.clone(),
            current: RwLock::new(Arc::new(config)),
            seen: Mutex::new(files),
        })
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Reads the files again, and renews what is ours. True when something new is offered; an error
    /// only once for the same contents.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        let files = Files::read(&self.tls)?;
        {
            let mut seen = lock(&self.seen);
            if *seen == files {
                return Ok(false);
            }
            *seen = files.clone();
        }
        let config = Arc::new(files.server_config(&self.tls)?);
        *self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = config;
        Ok(true)
    }
}

#[cfg(test)]
impl Acceptor {
    /// Whether this key was read, be it of use or not.
    pub(crate) fn saw(&self, key: &[u8]) -> bool {
        lock(&self.seen).key.1 == key
    }
}

/// The contents of the files, and where they lie for messages.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    certificate: (PathBuf, Vec<u8>),
    key: (PathBuf, Vec<u8>),
    client_ca: Option<(PathBuf, Vec<u8>)>,
}

impl Files {
    fn read(tls: &Tls) -> Result<Self, TlsError> {
        let (certificate, key) = match (&tls.certificate_file, &tls.key_file) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            (None, None) => Authority::open(&tls.directory)?.server_files(&tls.names)?,
            (Some(_), None) | (None, Some(_)) => return Err(TlsError::Half),
        };
        let client_ca = match (tls.client_certificates, &tls.client_ca_file) {
            (ClientCertificates::Off, _) => None,
            (_, Some(path)) => Some(path.clone()),
            (_, None) => Some(Authority::open(&tls.directory)?.certificate_file()),
        };
        refuse_open_key(&key)?;
        Ok(Self {
            certificate: read(certificate)?,
            key: read(key)?,
            client_ca: client_ca.map(read).transpose()?,
        })
    }

    fn server_config(&self, tls: &Tls) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (path, pem) = &self.certificate;
        let chain = certificates(path, pem)?;
        let (key_path, key_pem) = &self.key;
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| TlsError::Pem {
            path: key_path.clone(),
            what: "private key",
            problem: error.to_string(),
        })?;
        let unusable = |problem: String| TlsError::Certificate { path: path.clone(), problem };
        let versions = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?;
        let clients = match &self.client_ca {
            None => versions.with_no_client_auth(),
            Some((path, pem)) => {
                versions.with_client_cert_verifier(client_verifier(provider, path, pem, tls)?)
            }
        };
        clients.with_single_cert(chain, key).map_err(|error| unusable(error.to_string()))
    }
}

fn client_verifier(
    provider: Arc<CryptoProvider>,
    path: &Path,
    pem: &[u8],
    tls: &Tls,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let unusable = |problem: String| TlsError::Certificate { path: path.to_owned(), problem };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match tls.client_certificates {
        ClientCertificates::Required => builder,
        ClientCertificates::Optional | ClientCertificates::Off => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| unusable(error.to_string()))
}

/// The user that a checked client certificate names: its only common name.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok().map(str::to_owned),
        _ => None,
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong =
        |problem: String| TlsError::Pem { path: path.to_owned(), what: "certificate", problem };
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() { Err(wrong("nothing found".to_owned())) } else { Ok(all) }
}

/// Larger files are nobody's certificates.
const MAX_FILE_BYTES: u64 = 1 << 20;

fn read(path: PathBuf) -> Result<(PathBuf, Vec<u8>), TlsError> {
    use io::Read as _;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok((path, bytes)),
        Err(source) => Err(TlsError::Read { path, source }),
    }
}

/// A private key that everybody on the machine can read is none. The group may: that is how ACME
/// clients share theirs.
#[cfg(unix)]
fn refuse_open_key(path: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::PermissionsExt as _;
    match std::fs::metadata(path) {
        Ok(meta) if meta.permissions().mode() & 0o007 != 0 => {
            Err(TlsError::Open { path: path.to_owned() })
        }
        Ok(_) => Ok(()),
        Err(source) => Err(TlsError::Read { path: path.to_owned(), source }),
    }
}

#[cfg(not(unix))]
fn refuse_open_key(_: &Path) -> Result<(), TlsError> {
    Ok(())
}

#[cfg(test)]
mod tests;

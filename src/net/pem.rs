//! `Pem`: certificates and keys, in a file or as text.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::error::NetError;
use crate::env::Env;

/// The largest PEM file, in bytes. The system's list of authorities has about 230 kB.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// Where Linux distributions keep the authorities that the system trusts.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Certificates or a key in PEM: where they are, or what they are.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file; a symbolic link in the path's last place is not followed.
    File(PathBuf),
    /// The text itself.
    Text(String),
}

impl FromStr for Pem {
    type Err = Infallible;

    /// Text if it begins as PEM does, else a path.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.trim_start().starts_with("-----BEGIN") {
            true => Self::Text(text.to_owned()),
            false => Self::File(PathBuf::from(text)),
        })
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "Pem({})", path.display()),
            // It may be a key.
            Self::Text(_) => f.write_str("Pem(***)"),
        }
    }
}

impl Pem {
    /// All certificates in it, in order; at least one.
    pub(super) fn certificates(&self, env: &Env) -> Result<Vec<CertificateDer<'static>>, NetError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes(env)?).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(self.unusable("it holds no certificate")),
            Err(error) => Err(self.unusable(&error.to_string())),
        }
    }

    /// The first private key in it.
    pub(super) fn key(&self, env: &Env) -> Result<PrivateKeyDer<'static>, NetError> {
        let bytes = self.bytes(env)?;
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
            let is_encrypted = memchr::memmem::find(&bytes, b"ENCRYPTED").is_some();
            match is_encrypted {
                true => self.unusable(
                    "its key is encrypted, which is not supported; decrypt it (openssl pkcs8) and guard the file",
                ),
                false => self.unusable(&format!("it holds no private key ({error})")),
            }
        })
    }

    fn bytes(&self, env: &Env) -> Result<Vec<u8>, NetError> {
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::File(path) => {
                let read = env.files.read(path, PEM_BYTES_MAX);
                read.map_err(|source| NetError::PemFile {
                    path: path.clone(),
                    source,
                })
            }
        }
    }

    fn unusable(&self, why: &str) -> NetError {
        NetError::TlsSettings {
            why: format!("{self:?}: {why}"),
        }
    }
}

/// The authorities that the system trusts.
pub(super) fn system_authorities(env: &Env) -> Result<Vec<CertificateDer<'static>>, NetError> {
    for path in SYSTEM_AUTHORITIES.map(Path::new) {
        if env.files.exists(path).unwrap_or(false) {
            return Pem::File(path.to_owned()).certificates(env);
        }
    }
    Err(NetError::TlsSettings {
        why: "the system has no list of trusted authorities: name the file of yours (ssl.truststore.location)".to_owned(),
    })
}

//! TLS 1.2 and 1.3 for both ends, from PEM.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
#[cfg(feature = "postgres")]
pub(crate) use tokio_rustls::client::TlsStream as ClientTlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::error::NetError;
use super::pem::{Pem, system_authorities};
use crate::env::Env;

/// TLS settings of a client.
#[derive(Debug, Clone)]
pub(crate) struct ClientTlsSettings {
    /// The authorities that may have signed the broker's certificate; `None`: those that the system trusts.
    pub ca: Option<Pem>,
    /// Our own certificate and its chain, for brokers that ask for one.
    pub certificate: Option<Pem>,
    /// The key of our certificate.
    pub key: Option<Pem>,
    /// Whether the certificate must name the host that was dialled. Without it anybody with a certificate of the
    /// same authority can stand between.
    pub verify_hostname: bool,
}

impl Default for ClientTlsSettings {
    fn default() -> Self {
        Self {
            ca: None,
            certificate: None,
            key: None,
            verify_hostname: true,
        }
    }
}

/// Whether a server asks its clients for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// No.
    #[default]
    None,
    /// It asks; a client without one is let in, and is nobody until it logs in otherwise.
    Requested,
    /// It insists.
    Required,
}

/// TLS settings of a server.
#[derive(Debug, Clone)]
pub struct ServerTlsSettings {
    /// The server's certificate, then its chain.
    pub certificate: Pem,
    /// The certificate's key.
    pub key: Pem,
    /// The authorities that may have signed clients' certificates.
    pub client_ca: Option<Pem>,
    /// Whether clients are asked for certificates.
    pub client_auth: ClientAuth,
}

/// A client's side of TLS, ready for use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ClientTls {
    connector: TlsConnector,
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`NetError::PemFile`], [`NetError::TlsSettings`].
    pub(crate) fn new(env: &Env, settings: &ClientTlsSettings) -> Result<Self, NetError> {
        let authorities = match &settings.ca {
            Some(pem) => pem.certificates(env)?,
            None => system_authorities(env)?,
        };
        let provider = provider();
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots(authorities)?),
            Arc::clone(&provider),
        );
        let inner = verifier.build().map_err(unusable)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match settings.verify_hostname {
            true => builder.with_webpki_verifier(inner),
            false => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyName { inner })),
        };
        let config = match (&settings.certificate, &settings.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(certificate.certificates(env)?, key.key(env)?)
                .map_err(unusable)?,
            _ => {
                let why = "a client's certificate and its key are given together, or neither";
                return Err(NetError::TlsSettings {
                    why: why.to_owned(),
                });
            }
        };
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Makes a stream to `host` secure, whatever carries it.
    #[cfg(feature = "postgres")]
    pub(crate) async fn secure<S>(&self, host: &str, stream: S) -> io::Result<ClientTlsStream<S>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.connector.connect(name, stream).await
    }

    pub(super) async fn handshake(
        &self,
        host: &str,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>, NetError> {
        let failed = |source: io::Error| NetError::Handshake {
            peer: host.to_owned(),
            source,
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        match tokio::time::timeout(limit, self.connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(TlsStream::Client(stream)),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(NetError::Timeout {
                doing: "the TLS handshake",
                limit,
            }),
        }
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientTls")
    }
}

/// A server's side of TLS, ready for use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ServerTls {
    acceptor: TlsAcceptor,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`NetError::PemFile`], [`NetError::TlsSettings`].
    pub(crate) fn new(env: &Env, settings: &ServerTlsSettings) -> Result<Self, NetError> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match (settings.client_auth, &settings.client_ca) {
            (ClientAuth::None, _) => builder.with_no_client_auth(),
            (_, None) => {
                let why = "clients are to show certificates, but the authority that signs them is not named";
                return Err(NetError::TlsSettings {
                    why: why.to_owned(),
                });
            }
            (client_auth, Some(ca)) => {
                let authorities = Arc::new(roots(ca.certificates(env)?)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider);
                let verifier = match client_auth {
                    ClientAuth::Required => verifier,
                    _ => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build().map_err(unusable)?)
            }
        };
        let config = builder
            .with_single_cert(
                settings.certificate.certificates(env)?,
                settings.key.key(env)?,
            )
            .map_err(unusable)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    pub(super) async fn handshake(
        &self,
        peer: &str,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>, NetError> {
        match tokio::time::timeout(limit, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Ok(TlsStream::Server(stream)),
            Ok(Err(source)) => Err(NetError::Handshake {
                peer: peer.to_owned(),
                source,
            }),
            Err(_) => Err(NetError::Timeout {
                doing: "the TLS handshake",
                limit,
            }),
        }
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTls")
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Unusable authorities among usable ones are passed over, as the system's list may hold some; none usable is an error.
fn roots(authorities: Vec<CertificateDer<'static>>) -> Result<RootCertStore, NetError> {
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(authorities);
    match added {
        0 => Err(NetError::TlsSettings {
            why: format!("none of the {ignored} certificates of authorities is usable"),
        }),
        _ => Ok(roots),
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "it stands in `map_err`, for two types of error"
)]
fn unusable(error: impl ToString) -> NetError {
    NetError::TlsSettings {
        why: error.to_string(),
    }
}

/// Verifies everything but the name (`ssl.endpoint.identification.algorithm` is empty).
#[derive(Debug)]
struct AnyName {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is what the inner verifier looks at last: the chain has been verified when it complains of this.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

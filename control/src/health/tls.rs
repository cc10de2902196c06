//! TLS for `SSL_GET`: certificates are not verified, as in keepalived.
//!
//! The check asks whether the real server serves, not who it is; a real server
//! is reached by an address that no certificate names. So nothing of the
//! certificate is looked at, not even its form: one of X.509 version 1, which
//! `rustls` would refuse, serves clients that take it.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, client};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::in_words::in_words;

/// One for all checks; sessions are not resumed, so every try does a whole handshake.
static WITH_SNI: LazyLock<Option<TlsConnector>> = LazyLock::new(|| connector(true));
static WITHOUT_SNI: LazyLock<Option<TlsConnector>> = LazyLock::new(|| connector(false));

fn connector(enable_sni: bool) -> Option<TlsConnector> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate {
        provider: Arc::clone(&provider),
    });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.enable_sni = enable_sni;
    config.resumption = client::Resumption::disabled();
    Some(TlsConnector::from(Arc::new(config)))
}

/// Why there is no TLS session.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("{0} is no name for SNI: {1}")]
    Name(String, InvalidDnsNameError),
    #[error("TLS: {}", in_words(.0))]
    Handshake(std::io::Error),
    #[error("TLS: no protocol version is left")]
    NoVersion,
    #[error("TLS: the server does not speak {0} (ALPN)")]
    Alpn(String),
}

/// Shakes hands with the server at `address`; `name` is sent if there is one. `alpn` is a protocol that it
/// has to agree to.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    address: IpAddr,
    name: Option<&str>,
    alpn: Option<&[u8]>,
) -> Result<TlsStream<S>, TlsError> {
    let (connector, server) = match name {
        Some(name) => {
            // The port of a `Host` is not part of the name.
            let host = name.split(':').next().unwrap_or(name).to_owned();
            let server = ServerName::try_from(host);
            (
                &WITH_SNI,
                server.map_err(|error| TlsError::Name(name.to_owned(), error))?,
            )
        }
        None => (&WITHOUT_SNI, ServerName::IpAddress(address.into())),
    };
    let connector = connector.as_ref().ok_or(TlsError::NoVersion)?;
    let wanted = alpn.map(<[u8]>::to_vec).into_iter().collect();
    let stream = connector.with_alpn(wanted).connect(server, stream).await;
    let stream = stream.map_err(TlsError::Handshake)?;
    match alpn {
        Some(alpn) if stream.get_ref().1.alpn_protocol() != Some(alpn) => {
            let name = String::from_utf8_lossy(alpn);
            Err(TlsError::Alpn(name.into_owned()))
        }
        Some(_) | None => Ok(stream),
    }
}

/// Takes every certificate.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

//! TLS for `SSL_GET`: certificates are not verified, as in keepalived.
//!
//! The check asks whether the real server serves, not who it is; a real server
//! is reached by an address that no certificate names. So nothing of the
//! certificate is looked at, not even its form: one of X.509 version 1, which
//! `rustls` would refuse, serves clients that take it. Every kind of key and of
//! signature is therefore offered, also those that `rustls` cannot verify.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
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
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
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
            let server = server_name(name);
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

/// The name of a `Host`, without its port. An address is no name for SNI, and is not sent (RFC 6066 §3).
fn server_name(host: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next(),
        None if host.parse::<IpAddr>().is_ok() => None,
        None => host.split(':').next(),
    };
    ServerName::try_from(name.unwrap_or(host).to_owned())
}

/// Takes every certificate.
#[derive(Debug)]
struct AnyCertificate;

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
        // The better ones first: a server that has a choice takes the first.
        vec![
            SignatureScheme::ED25519,
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::ED448,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
            SignatureScheme::ECDSA_SHA1_Legacy,
            SignatureScheme::RSA_PKCS1_SHA1,
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use tokio::net::TcpStream;

    use super::*;

    fn openssl(directory: &Path, arguments: &str) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(directory).args(arguments.split(' '));
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    /// Killed when it is dropped.
    struct Server(Child);

    impl Drop for Server {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// A server with a certificate that was asked for so, and its port.
    fn serve(directory: &Path, certificate: &str) -> (Server, u16) {
        let request = "req -x509 -nodes -days 1 -subj /CN=x -keyout key -out certificate";
        let made = openssl(directory, &format!("{request} {certificate}")).status();
        assert!(made.unwrap().success(), "{certificate}");
        let serve =
            "s_server -accept 127.0.0.1:0 -key key -cert certificate -cipher DEFAULT@SECLEVEL=0";
        let mut server = openssl(directory, serve);
        let mut server = Server(server.stdin(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(server.0.stdout.as_mut().unwrap()).lines();
        let port = lines.find_map(|line| {
            let place = line.unwrap().strip_prefix("ACCEPT ")?.to_owned();
            place.rsplit(':').next()?.parse().ok()
        });
        (server, port.unwrap())
    }

    #[tokio::test]
    async fn any_key_and_signature() {
        let directory = tempfile::tempdir().unwrap();
        if openssl(directory.path(), "version").status().is_err() {
            return skip::skipped("openssl is not installed");
        }
        let certificates = [
            "-newkey rsa:2048",
            "-newkey rsa:1024 -sha1",
            "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -sha1",
            "-newkey ec -pkeyopt ec_paramgen_curve:P-521",
            "-newkey ed25519",
            "-newkey ed448",
        ];
        for certificate in certificates {
            let (_server, port) = serve(directory.path(), certificate);
            let address = IpAddr::from([127, 0, 0, 1]);
            let stream = TcpStream::connect((address, port)).await.unwrap();
            let shaken = handshake(stream, address, None, None).await;
            assert!(shaken.is_ok(), "{certificate}: {shaken:?}");
        }
    }

    #[test]
    fn names_for_sni() {
        let name = |text: &str| server_name(text).map(|name| name.to_str().into_owned());
        let cases = [
            ("www.example.org", "www.example.org"),
            ("a_b.example:8443", "a_b.example"),
            ("10.0.0.1:443", "10.0.0.1"),
            ("[fd00::1]", "fd00::1"),
            ("[fd00::1]:443", "fd00::1"),
            ("fd00::1", "fd00::1"),
        ];
        for (host, expected) in cases {
            assert_eq!(name(host).unwrap(), expected);
        }
        assert!(server_name("*.example.org").is_err());
    }
}

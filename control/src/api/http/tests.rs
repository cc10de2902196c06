//! The server on a real port, with a control loop that answers by examples.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::*;
use crate::api::example;

const TOKEN: &str = "0123456789abcdef0123";

/// A server on a free port, for as long as the value lives.
struct Server {
    address: SocketAddr,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    fn start(token_file: Option<&Path>) -> Self {
        Self::of(bind(([127, 0, 0, 1], 0).into(), token_file).unwrap())
    }

    fn of(listener: Listener) -> Self {
        let address = listener.address();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (queries, mut questions) = mpsc::channel(8);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let answer = async {
                    while let Some(query) = questions.recv().await {
                        example::answer(query);
                    }
                };
                tokio::select! {
                    _ = stopped => {}
                    ended = serve(listener, queries) => ended.unwrap(),
                    () = answer => {}
                }
            });
        });
        Self {
            address,
            _stop: stop,
        }
    }

    /// Head and body of the answer to a request.
    fn ask(&self, request: &str, headers: &str) -> (String, String) {
        let mut stream = std::net::TcpStream::connect(self.address).unwrap();
        write!(stream, "{request} HTTP/1.0\r\nhost: a\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }
}

fn token_file(text: &str, mode: u32) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
    file
}

#[test]
fn page_metrics_health_and_json() {
    let server = Server::start(None);
    let (head, page) = server.ask("GET /", "");
    assert!(head.starts_with("http/1.0 200"), "{head}");
    assert!(
        head.contains("content-type: text/html; charset=utf-8"),
        "{head}"
    );
    assert!(
        head.contains("content-security-policy: default-src 'none'"),
        "{head}"
    );
    assert!(page.contains("<h1>appliance</h1>") && page.ends_with("</html>\n"));
    let (head, metrics) = server.ask("GET /metrics", "");
    let content_type = "content-type: text/plain; version=0.0.4; charset=utf-8";
    assert!(head.contains(content_type), "{head}");
    assert!(metrics.contains("\nappliance_rx_packets_total{worker=\"0\"} 1234567\n"));
    assert_eq!(server.ask("GET /healthz", "").1, "ok\n");
    for what in [
        "services",
        "connections",
        "vrrp",
        "health",
        "workers",
        "drops",
        "config",
    ] {
        let (head, body) = server.ask(&format!("GET /api/v1/{what}"), "");
        assert!(head.starts_with("http/1.0 200"), "{what}: {head}");
        assert!(!serde_json::from_str::<Value>(&body).unwrap().is_null());
    }
    let (head, body) = server.ask("HEAD /metrics", "");
    assert!(
        head.starts_with("http/1.0 200") && body.is_empty(),
        "{head}"
    );
}

#[test]
fn the_configuration_has_no_passwords() {
    let (_, body) = Server::start(None).ask("GET /api/v1/config", "");
    let config: crate::api::view::Config = serde_json::from_str(&body).unwrap();
    assert_eq!(config, example::public_config());
}

#[test]
fn changes_need_the_token() {
    let file = token_file(TOKEN, 0o640);
    let server = Server::start(Some(file.path()));
    let reload = |headers: &str| server.ask("POST /api/v1/reload", headers);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\ncontent-length: 0\r\n");
    let expected = "changes need the header \\\"Authorization: Bearer TOKEN\\\"";
    for wrong in [
        String::new(),
        bearer("0123456789abcdef012"),
        bearer("0123456789abcdef0124"),
        bearer("0123456789abcdef01234"),
        bearer(""),
        format!("Authorization: Basic {TOKEN}\r\n"),
    ] {
        let (head, body) = reload(&wrong);
        assert!(head.starts_with("http/1.0 403"), "{wrong}: {head}");
        assert!(body.contains(expected), "{body}");
    }
    let (head, body) = reload(&bearer(TOKEN));
    assert!(head.starts_with("http/1.0 200"), "{head}");
    assert!(body.contains("\"generation\":8"), "{body}");
    let lower_case = bearer(TOKEN).replace("Bearer", "bearer");
    assert!(reload(&lower_case).0.starts_with("http/1.0 200"));
    // Another token takes effect at once.
    fs::write(file.path(), "another-token-of-20-c\n").unwrap();
    assert!(reload(&bearer(TOKEN)).0.starts_with("http/1.0 403"));
    assert!(
        reload(&bearer("another-token-of-20-c"))
            .0
            .starts_with("http/1.0 200")
    );
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let (head, body) = reload(&bearer("another-token-of-20-c"));
    assert!(
        head.starts_with("http/1.0 403") && body.contains("others can read it"),
        "{body}"
    );
}

#[test]
fn without_a_token_file_there_are_no_changes() {
    let (head, body) = Server::start(None).ask("POST /api/v1/reload", "Authorization: Bearer \r\n");
    assert!(head.starts_with("http/1.0 403"), "{head}");
    assert!(body.contains("http_token_file is not set"), "{body}");
}

/// As a reload does, while the first one is still open.
#[test]
fn the_same_port_with_another_token() {
    let first = bind(([127, 0, 0, 1], 0).into(), None).unwrap();
    let file = token_file(TOKEN, 0o600);
    let second = first.with_token(Some(file.path())).unwrap();
    assert_eq!(second.address(), first.address());
    assert_ne!(second, first);
    assert_eq!(second.try_clone().unwrap(), second);
    let public = token_file(TOKEN, 0o644);
    let error = first.with_token(Some(public.path())).unwrap_err();
    assert!(error.to_string().contains("has mode 0644"), "{error}");
    let server = Server::of(second);
    drop(first);
    let (head, _) = server.ask("POST /api/v1/reload", "");
    assert!(head.starts_with("http/1.0 403"), "{head}");
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let (head, _) = server.ask("POST /api/v1/reload", &token);
    assert!(!head.starts_with("http/1.0 403"), "{head}");
}

#[test]
fn a_bad_port_or_token_is_explained() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address, None).unwrap_err().to_string();
    let expected = format!(
        "cannot listen on {address} (appliance.http): address already in use: \
         choose another address or port, or stop what uses it (ss -ltnp)"
    );
    assert_eq!(error, expected);
    for (text, mode, expected) in [
        (TOKEN, 0o644, "has mode 0644, others can read it: chmod o= "),
        ("short\n", 0o600, "has 5 characters, expected 16 or more"),
    ] {
        let file = token_file(text, mode);
        let error = bind(([127, 0, 0, 1], 0).into(), Some(file.path())).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = bind(([127, 0, 0, 1], 0).into(), Some(Path::new("/nowhere"))).unwrap_err();
    let expected = "appliance.http_token_file: cannot read /nowhere: no such file or directory";
    assert_eq!(error.to_string(), expected);
}

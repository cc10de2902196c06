//! Health checks as configured: what `control::health` runs.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::scripts::Script;

/// A health check of one real server, every parameter filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub kind: CheckKind,
    /// Where to connect; with `through_vip`, the virtual server; of `MISC_CHECK` and `FILE_CHECK`, which connect
    /// nowhere, the real server.
    pub target: SocketAddr,
    #[serde(default)]
    pub source: CheckSource,
    /// `target` is an address of the virtual server, reached as clients' packets reach the real
    /// server: by the forwarding method.
    #[serde(default)]
    pub through_vip: bool,
    pub connect_timeout: Duration,
    /// Time between checks while the result does not change.
    pub delay_loop: Duration,
    /// Failures tolerated before the server is down: it goes down at failure
    /// `retry + 1` in a row.
    pub retry: u32,
    /// Successes in a row, 1 at least, after which a server that is down is up.
    pub rise: u32,
    /// Time between a try that contradicts the server's state and the next.
    pub delay_before_retry: Duration,
    /// The first check starts after a random part of this.
    pub warmup: Duration,
    /// Start as down until the first check passes (`alpha`).
    pub alpha: bool,
}

/// Where a check's packets come from; what is not set is the kernel's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckSource {
    /// Source address, of the target's IP version.
    pub bindto: Option<IpAddr>,
    /// Source port.
    pub bind_port: Option<u16>,
    /// Interface.
    pub bind_if: Option<String>,
    /// Mark of the packets, for the kernel's rules (`SO_MARK`).
    pub fwmark: Option<u32>,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CheckKind {
    /// A TCP connection is accepted.
    TcpCheck,
    /// `HTTP_GET` and `SSL_GET`: every url answers as it should.
    HttpGet(HttpGet),
    /// A UDP datagram is not refused, or is answered.
    UdpCheck(UdpCheck),
    /// A name server answers without an error.
    DnsCheck(DnsCheck),
    /// A mail server greets and takes a HELO.
    SmtpCheck { helo_name: Option<String> },
    /// An ICMP echo request is answered.
    PingCheck,
    /// A script ends with status 0.
    MiscCheck(MiscCheck),
    /// A number in a file.
    FileCheck(FileCheck),
}

impl CheckKind {
    /// keepalived's name: `TCP_CHECK`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::TcpCheck => "TCP_CHECK",
            Self::HttpGet(HttpGet { tls: None, .. }) => "HTTP_GET",
            Self::HttpGet(HttpGet { tls: Some(_), .. }) => "SSL_GET",
            Self::UdpCheck(_) => "UDP_CHECK",
            Self::DnsCheck(_) => "DNS_CHECK",
            Self::SmtpCheck { .. } => "SMTP_CHECK",
            Self::PingCheck => "PING_CHECK",
            Self::MiscCheck(_) => "MISC_CHECK",
            Self::FileCheck(_) => "FILE_CHECK",
        }
    }
}

/// Parameters of an `HTTP_GET` or `SSL_GET`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpGet {
    /// `SSL_GET`: within TLS.
    pub tls: Option<Tls>,
    pub protocol: HttpProtocol,
    pub urls: Vec<CheckUrl>,
    pub virtualhost: Option<String>,
}

/// How an `SSL_GET` speaks TLS. The server's certificate is not verified, as in keepalived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The virtualhost is said in the handshake (RFC 6066 §3).
    pub enable_sni: bool,
}

/// `http_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpProtocol {
    Http10,
    /// HTTP/1.0 with `Connection: close`.
    Http10Close,
    /// HTTP/1.1 with `Connection: close`.
    Http11,
    /// HTTP/2, within TLS by ALPN, else with prior knowledge (RFC 9113 §3).
    Http2,
}

impl HttpProtocol {
    pub(super) const NAMES: [(&'static str, Self); 4] = [
        ("1.0", Self::Http10),
        ("1.0C", Self::Http10Close),
        ("1.1", Self::Http11),
        ("2", Self::Http2),
    ];
}

/// One url of an `HTTP_GET`. All that is set must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckUrl {
    pub path: String,
    /// Accepted status codes, inclusive ranges; keepalived's default is 200–299.
    pub status_code: Vec<(u16, u16)>,
    /// Overrides the check's `virtualhost`.
    pub virtualhost: Option<String>,
    /// MD5 of the body, as `genhash` prints it.
    pub digest: Option<[u8; 16]>,
    pub regex: Option<BodyRegex>,
}

/// What to look for in a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyRegex {
    /// In the syntax of the `regex` crate, over bytes.
    pub pattern: String,
    pub options: Vec<RegexOption>,
    /// The pattern must not be found.
    pub no_match: bool,
    /// Bytes of the body that are skipped.
    pub min_offset: usize,
    /// Last byte of the body at which a match may begin.
    pub max_offset: Option<usize>,
}

/// Those of keepalived's `regex_options` that the `regex` crate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegexOption {
    Caseless,
    Dotall,
    Extended,
    Multiline,
    Ungreedy,
    Utf,
}

impl RegexOption {
    pub(super) const NAMES: [(&'static str, Self); 6] = [
        ("caseless", Self::Caseless),
        ("dotall", Self::Dotall),
        ("extended", Self::Extended),
        ("multiline", Self::Multiline),
        ("ungreedy", Self::Ungreedy),
        ("utf", Self::Utf),
    ];
}

impl BodyRegex {
    /// # Errors
    /// The pattern is wrong or too large.
    pub fn compile(&self) -> Result<regex::bytes::Regex, regex::Error> {
        let has = |option| self.options.contains(&option);
        regex::bytes::RegexBuilder::new(&self.pattern)
            .case_insensitive(has(RegexOption::Caseless))
            .dot_matches_new_line(has(RegexOption::Dotall))
            .ignore_whitespace(has(RegexOption::Extended))
            .multi_line(has(RegexOption::Multiline))
            .swap_greed(has(RegexOption::Ungreedy))
            .unicode(has(RegexOption::Utf))
            .build()
    }
}

/// Parameters of a `UDP_CHECK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpCheck {
    /// What is sent; `None`: random bytes.
    pub payload: Option<Vec<u8>>,
    /// `None`: that nothing refuses it is enough.
    pub reply: Option<UdpReply>,
}

/// The answer that a `UDP_CHECK` requires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpReply {
    /// Its first bytes, as (value, mask): bits that are 0 in the mask may be anything.
    pub content: Vec<(u8, u8)>,
    /// Bytes.
    pub min_length: u16,
    /// Bytes.
    pub max_length: u16,
}

/// Parameters of a `DNS_CHECK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsCheck {
    pub record_type: RecordType,
    /// In ASCII; `.` is the root.
    pub name: String,
}

/// What a `DNS_CHECK` asks for (RFC 1035 §3.2.2, RFC 3596).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordType {
    A = 1,
    Ns = 2,
    Cname = 5,
    Soa = 6,
    Mx = 15,
    Txt = 16,
    Aaaa = 28,
}

impl RecordType {
    pub(super) const NAMES: [(&'static str, Self); 7] = [
        ("A", Self::A),
        ("NS", Self::Ns),
        ("CNAME", Self::Cname),
        ("SOA", Self::Soa),
        ("MX", Self::Mx),
        ("TXT", Self::Txt),
        ("AAAA", Self::Aaaa),
    ];

    /// As keepalived.conf and zone files write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Ns => "NS",
            Self::Cname => "CNAME",
            Self::Soa => "SOA",
            Self::Mx => "MX",
            Self::Txt => "TXT",
            Self::Aaaa => "AAAA",
        }
    }
}

/// Parameters of a `MISC_CHECK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MiscCheck {
    pub script: Script,
    pub timeout: Duration,
    /// Exit status 2 to 255 is a success that sets the weight to two less.
    pub dynamic: bool,
}

/// Passive health of a real server: whether clients' connections to it come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passive {
    /// SYNs without an answer within `fail_timeout`, 1 at least, that take the
    /// server out.
    pub max_fails: u32,
    /// The time in which they are counted, and for which the server is out.
    pub fail_timeout: Duration,
}

/// Parameters of a `FILE_CHECK`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCheck {
    /// The file: a number in text.
    pub file: String,
    /// The number times this is added to the real server's weight. 0: any
    /// number but 0 is a failure.
    pub weight: i32,
    /// The product is subtracted.
    pub reverse: bool,
}

//! Health checks.

use super::Kind::{Hosts, Sections};
use super::Shape::{Command, Escaped, Flag, FlagOrWords, Number, Text, Time, Words};
use super::{Block, Keyword, ignored, keyword, value};

/// What virtual servers, real servers and checks have alike.
pub(super) static PARAMETERS: &[Keyword] = &[
    value("delay_loop", Time),
    value("connect_timeout", Time),
    value("retry", Number),
    value("nb_get_retry", Number).named("retry"),
    value("delay_before_retry", Time),
    value("warmup", Time),
    value("alpha", Flag),
    ignored("log_all_failures", "the log has changes only"),
];

/// The same with what every check has that connects to something.
static CONNECTION: &[Keyword] = &[
    PARAMETERS[0],
    PARAMETERS[1],
    PARAMETERS[2],
    PARAMETERS[3],
    PARAMETERS[4],
    PARAMETERS[5],
    PARAMETERS[6],
    PARAMETERS[7],
    value("connect_ip", Text),
    value("connect_port", Number),
    value("bindto", Text),
    value("bind_if", Text),
    value("bind_port", Number),
    value("fwmark", Number),
];

const CERTIFICATE: &str = "the name is sent whenever there is one";

pub(super) static TCP_CHECK: Block = Block {
    name: "TCP_CHECK",
    heading: "TCP_CHECK",
    keywords: &[],
    shared: CONNECTION,
};

pub(super) static HTTP_GET: Block = Block {
    name: "HTTP_GET",
    heading: "HTTP_GET",
    keywords: HTTP,
    shared: CONNECTION,
};

pub(super) static SSL_GET: Block = Block {
    name: "SSL_GET",
    heading: "SSL_GET",
    keywords: HTTP,
    shared: CONNECTION,
};

static HTTP: &[Keyword] = &[
    keyword("url", Sections(&URL)),
    value("virtualhost", Text),
    value("http_protocol", Text),
    value("fast_recovery", Flag).or_warn("all urls are asked in every round anyway"),
    value("enable_sni", Flag).or_warn(CERTIFICATE),
];

static URL: Block = Block {
    name: "url",
    heading: "url",
    keywords: &[
        value("path", Text),
        value("status_code", Words),
        value("virtualhost", Text),
        value("digest", Text).or_refuse("the page would not be compared"),
        value("regex", Escaped).or_refuse("the page would not be searched"),
        value("regex_no_match", Flag).or_refuse("the page would not be searched"),
        value("regex_options", Words).or_refuse("the page would be searched in another way"),
        value("regex_min_offset", Number).or_refuse("the page would be searched from its start"),
        value("regex_max_offset", Number).or_refuse("the page would be searched to its end"),
        ignored("regex_stack", "searching needs no stack"),
    ],
    shared: &[],
};

pub(super) static SMTP_CHECK: Block = Block {
    name: "SMTP_CHECK",
    heading: "SMTP_CHECK",
    keywords: &[value("helo_name", Escaped), keyword("host", Hosts(&HOST))],
    shared: CONNECTION,
};

/// Where else an older SMTP_CHECK connects to.
static HOST: Block = Block {
    name: "host",
    heading: "SMTP_CHECK",
    keywords: &[],
    shared: CONNECTION,
};

pub(super) static DNS_CHECK: Block = Block {
    name: "DNS_CHECK",
    heading: "DNS_CHECK",
    keywords: &[value("type", Text), value("name", Text)],
    shared: CONNECTION,
};

pub(super) static MISC_CHECK: Block = Block {
    name: "MISC_CHECK",
    heading: "MISC_CHECK",
    keywords: &[
        value("misc_path", Command),
        value("misc_timeout", Time),
        value("misc_dynamic", Flag),
        value("user", Words).or_warn("scripts run as the appliance's user"),
    ],
    shared: PARAMETERS,
};

pub(super) static PING_CHECK: Block = Block {
    name: "PING_CHECK",
    heading: "PING_CHECK",
    keywords: &[],
    shared: CONNECTION,
};

pub(super) static UDP_CHECK: Block = Block {
    name: "UDP_CHECK",
    heading: "UDP_CHECK",
    keywords: &[
        value("payload", Words),
        value("require_reply", FlagOrWords),
        value("min_reply_length", Number),
        value("max_reply_length", Number),
    ],
    shared: CONNECTION,
};

/// keepalived names a `track_file` block, TOML the file itself: [`Kind::FileChecks`](super::Kind::FileChecks).
pub(super) static FILE_CHECK: Block = Block {
    name: "FILE_CHECK",
    heading: "FILE_CHECK",
    keywords: &[
        value("track_file", Text).named("file"),
        value("weight", Number),
        value("dynamic", Flag).or_warn("a weight other than 0 is always added"),
    ],
    shared: &[],
};

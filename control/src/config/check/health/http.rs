//! `HTTP_GET` and `SSL_GET`.

use std::ops::RangeInclusive;

use super::super::super::raw::{Spec, Table, Value};
use super::super::super::report::Report;
use super::super::super::{
    BodyRegex, CheckKind, CheckUrl, HttpGet, HttpProtocol, RegexOption, Tls,
};
use super::{CONNECTION_AND_PARAMETERS, Inherited};

pub(in super::super) static HTTP_GET: Spec = Spec {
    heading: "HTTP_GET",
    keys: &["url", "virtualhost", "http_protocol"],
    shared: &CONNECTION_AND_PARAMETERS,
    unsupported: &["fast_recovery", "enable_sni"],
};

pub(in super::super) static SSL_GET: Spec = Spec {
    heading: "SSL_GET",
    keys: &["url", "virtualhost", "http_protocol", "enable_sni"],
    shared: &CONNECTION_AND_PARAMETERS,
    unsupported: &["fast_recovery"],
};

pub(in super::super) static URL: Spec = Spec {
    heading: "url",
    keys: &[
        "path",
        "status_code",
        "virtualhost",
        "digest",
        "regex",
        "regex_no_match",
        "regex_options",
        "regex_min_offset",
        "regex_max_offset",
    ],
    shared: &[],
    unsupported: &["regex_stack"],
};

/// What a status line can carry (RFC 9110 §15).
const STATUS: RangeInclusive<u16> = 100..=599;
const OFFSET: RangeInclusive<i64> = 0..=1_048_576;

/// keepalived's `regex_options` that the `regex` crate has no equivalent of.
const LATER_OPTIONS: [&str; 17] = [
    "allow_empty_class",
    "alt_bsux",
    "alt_circumflex",
    "alt_verbnames",
    "auto_callout",
    "dollar_endonly",
    "dupnames",
    "firstline",
    "match_unset_backref",
    "never_backslash_c",
    "never_ucp",
    "never_utf",
    "no_auto_capture",
    "no_auto_possess",
    "no_dotstar_anchor",
    "no_start_optimize",
    "use_offset_limit",
];

pub(super) fn http_get(
    table: &Table<'_>,
    parameters: &Inherited,
    report: &mut Report<'_>,
) -> Option<CheckKind> {
    Some(CheckKind::HttpGet(get(table, parameters, None, report)))
}

pub(super) fn ssl_get(
    table: &Table<'_>,
    parameters: &Inherited,
    report: &mut Report<'_>,
) -> Option<CheckKind> {
    let enable_sni = table.get("enable_sni");
    let tls = Tls {
        enable_sni: enable_sni
            .as_ref()
            .and_then(|value| value.boolean(report))
            .unwrap_or(false),
    };
    let get = get(table, parameters, Some(tls), report);
    let nameless = get.virtualhost.is_none() && get.urls.iter().any(|u| u.virtualhost.is_none());
    if let (Some(value), true) = (enable_sni, tls.enable_sni && nameless) {
        let message = "no virtualhost: as in keepalived, no name is sent";
        report.warning(value.at, &value.place, message);
    }
    Some(CheckKind::HttpGet(get))
}

fn get(
    table: &Table<'_>,
    parameters: &Inherited,
    tls: Option<Tls>,
    report: &mut Report<'_>,
) -> HttpGet {
    let protocol = table.get("http_protocol");
    let protocol = protocol.and_then(|v| v.choice(&HttpProtocol::NAMES, &[], report));
    HttpGet {
        tls,
        protocol: protocol.unwrap_or(HttpProtocol::Http10),
        urls: urls(table, report),
        virtualhost: parameters.virtualhost.clone(),
    }
}

pub(super) fn virtualhost(table: &Table<'_>, report: &mut Report<'_>) -> Option<String> {
    host_name(&table.get_if_known("virtualhost")?, report)
}

/// The name of a host as protocols carry it.
pub(super) fn host_name(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = value.text(report)?;
    if text.contains(char::is_whitespace) {
        value.reject("a host name", "remove the space", report);
        return None;
    }
    if text.contains(|c: char| !c.is_ascii_graphic()) {
        let fix = "write its form that begins with \"xn--\"";
        value.reject("a host name in ASCII", fix, report);
        return None;
    }
    Some(text.to_owned())
}

fn urls(table: &Table<'_>, report: &mut Report<'_>) -> Vec<CheckUrl> {
    let Some(value) = table.require("url", r#"url = [{ path = "/" }]"#, report) else {
        return Vec::new();
    };
    let mut urls = Vec::new();
    for entry in value.entries(r#"url = { path = "/" }"#, report) {
        let table = Table::new(entry, value.place.clone(), &URL, report);
        let path = table.require("path", r#"path = "/""#, report);
        let path = path.and_then(|v| url_path(&v, report));
        let digest = table.get("digest").and_then(|v| digest(&v, report));
        let status_code = match table.get("status_code") {
            Some(value) => status_codes(&value, report),
            None => vec![(200, 299)],
        };
        let virtualhost = virtualhost(&table, report);
        let regex = regex(&table, report);
        if let Some(path) = path {
            urls.push(CheckUrl {
                path: path.to_owned(),
                status_code,
                virtualhost,
                digest,
                regex,
            });
        }
    }
    urls
}

fn digest(value: &Value<'_>, report: &mut Report<'_>) -> Option<[u8; 16]> {
    let text = value.text(report)?;
    if text.len() == 32
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && let Ok(digest) = u128::from_str_radix(text, 16)
    {
        return Some(digest.to_be_bytes());
    }
    value.reject(
        "an MD5 digest, 32 hexadecimal digits",
        "write what `curl URL | md5sum` prints",
        report,
    );
    None
}

fn regex(table: &Table<'_>, report: &mut Report<'_>) -> Option<BodyRegex> {
    const COMPANIONS: [&str; 4] = [
        "regex_no_match",
        "regex_options",
        "regex_min_offset",
        "regex_max_offset",
    ];
    let Some(written) = table.get("regex") else {
        for value in COMPANIONS.iter().filter_map(|key| table.get(key)) {
            value.reject("it beside regex only", "add regex, or remove it", report);
        }
        return None;
    };
    let no_match = table.get("regex_no_match");
    let no_match = no_match.and_then(|v| v.boolean(report)).unwrap_or(false);
    let options = table.get("regex_options");
    let options = options.map(|v| options_of(&v, report)).unwrap_or_default();
    let min_offset = table.get("regex_min_offset");
    let min_offset = min_offset.and_then(|v| v.integer(&OFFSET, report));
    let max_offset = table.get("regex_max_offset");
    let regex = BodyRegex {
        pattern: written.text(report)?.to_owned(),
        options,
        no_match,
        min_offset: min_offset.unwrap_or(0),
        max_offset: max_offset.and_then(|v| v.integer(&OFFSET, report)),
    };
    if let Err(error) = regex.compile() {
        let error = error.to_string();
        // The whole message is a drawing of several lines.
        let error = error.lines().last().unwrap_or_default();
        let error = error.strip_prefix("error: ").unwrap_or(error);
        written.reject(
            format_args!("a regular expression, but {error}"),
            "look-around and back-references are not supported",
            report,
        );
    }
    Some(regex)
}

fn options_of(value: &Value<'_>, report: &mut Report<'_>) -> Vec<RegexOption> {
    let Some(text) = value.text(report) else {
        return Vec::new();
    };
    let mut options = Vec::new();
    for word in text.split_whitespace() {
        match RegexOption::NAMES.iter().find(|(name, _)| *name == word) {
            Some(&(_, option)) if options.contains(&option) => {}
            Some(&(_, option)) => options.push(option),
            None if LATER_OPTIONS.contains(&word) => report.unsupported(
                value.at,
                &value.place,
                format_args!("{word:?}"),
                "only caseless, dotall, extended, multiline, ungreedy, utf",
                "remove it",
            ),
            None => value.reject(
                "words of caseless, dotall, extended, multiline, ungreedy, utf",
                "remove the others",
                report,
            ),
        }
    }
    options
}

fn url_path<'d>(value: &Value<'d>, report: &mut Report<'_>) -> Option<&'d str> {
    let text = value.text(report)?;
    if !text.starts_with('/') || text.contains(|c: char| !c.is_ascii_graphic()) {
        value.reject(
            "a path that starts with \"/\", in ASCII and without space",
            "begin it with \"/\", encode the rest as %XX",
            report,
        );
        return None;
    }
    Some(text)
}

/// A number, text such as `"200-299 404"`, or a list of both.
fn status_codes(value: &Value<'_>, report: &mut Report<'_>) -> Vec<(u16, u16)> {
    let elements = if value.raw.is_array() {
        value.list(report).unwrap_or_default()
    } else {
        vec![value.clone()]
    };
    let mut ranges = Vec::new();
    for element in elements {
        match ranges_of(&element) {
            Some(found) => ranges.extend(found),
            None => element.reject(
                "status codes of 100 to 599",
                r#"write 200, "200-299" or a list of them"#,
                report,
            ),
        }
    }
    ranges
}

fn ranges_of(value: &Value<'_>) -> Option<Vec<(u16, u16)>> {
    let code = |text: &str| text.parse().ok().filter(|code| STATUS.contains(code));
    if let Some(number) = value.raw.as_integer() {
        let code = code(number.as_str()).filter(|_| number.radix() == 10)?;
        return Some(vec![(code, code)]);
    }
    let text = value.raw.as_str()?;
    let separates = |character: char| character.is_whitespace() || character == ',';
    let words = text.split(separates).filter(|word| !word.is_empty());
    let ranges = words.map(|word| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (first, last) = (code(first)?, code(last)?);
        (first <= last).then_some((first, last))
    });
    let ranges = ranges.collect::<Option<Vec<_>>>()?;
    (!ranges.is_empty()).then_some(ranges)
}

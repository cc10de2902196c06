//! Health checks and scripts.

use std::fmt::{self, Write};

use super::{commas, print_ip, print_time, quoted};
use crate::config::{
    BodyRegex, Check, CheckKind, CheckSource, CheckUrl, DnsCheck, FileCheck, HttpGet, HttpProtocol,
    MiscCheck, RegexOption, Tls, UdpCheck, UdpReply,
};
use crate::scripts::{Script, ScriptUser};

pub(super) fn print_check(f: &mut fmt::Formatter<'_>, check: &Check) -> fmt::Result {
    let Check {
        kind,
        target,
        source,
        through_vip,
        connect_timeout,
        delay_loop,
        retry,
        rise,
        delay_before_retry,
        warmup,
        alpha,
    } = check;
    writeln!(f, "\n[[virtual_server.real_server.{}]]", kind.name())?;
    print_kind(f, kind)?;
    if matches!(kind, CheckKind::FileCheck(_)) {
        return Ok(());
    }
    if !matches!(kind, CheckKind::MiscCheck(_)) {
        print_ip(f, "connect_ip", target.ip())?;
        writeln!(f, "connect_port = {}", target.port())?;
        print_source(f, source)?;
    }
    if *through_vip {
        writeln!(f, "through_vip = true")?;
    }
    print_time(f, "connect_timeout", *connect_timeout)?;
    print_time(f, "delay_loop", *delay_loop)?;
    writeln!(f, "retry = {retry}")?;
    writeln!(f, "rise = {rise}")?;
    print_time(f, "delay_before_retry", *delay_before_retry)?;
    print_time(f, "warmup", *warmup)?;
    writeln!(f, "alpha = {alpha}")
}

fn print_source(f: &mut fmt::Formatter<'_>, source: &CheckSource) -> fmt::Result {
    let CheckSource {
        bindto,
        bind_port,
        bind_if,
        fwmark,
    } = source;
    if let Some(bindto) = bindto {
        print_ip(f, "bindto", *bindto)?;
    }
    if let Some(port) = bind_port {
        writeln!(f, "bind_port = {port}")?;
    }
    if let Some(interface) = bind_if {
        writeln!(f, "bind_if = {}", quoted(interface))?;
    }
    if let Some(mark) = fwmark {
        writeln!(f, "fwmark = {mark}")?;
    }
    Ok(())
}

fn print_kind(f: &mut fmt::Formatter<'_>, kind: &CheckKind) -> fmt::Result {
    match kind {
        CheckKind::TcpCheck | CheckKind::PingCheck => Ok(()),
        CheckKind::HttpGet(get) => print_get(f, get),
        CheckKind::UdpCheck(check) => print_udp(f, check),
        CheckKind::DnsCheck(DnsCheck { record_type, name }) => {
            writeln!(
                f,
                "type = \"{}\"\nname = {}",
                record_type.name(),
                quoted(name)
            )
        }
        CheckKind::SmtpCheck { helo_name } => match helo_name {
            Some(name) => writeln!(f, "helo_name = {}", quoted(name)),
            None => Ok(()),
        },
        CheckKind::MiscCheck(MiscCheck {
            script: Script { words, user },
            timeout,
            dynamic,
        }) => {
            writeln!(
                f,
                "misc_path = [{}]",
                commas(words.iter().map(|w| quoted(w)))
            )?;
            print_time(f, "misc_timeout", *timeout)?;
            writeln!(f, "misc_dynamic = {dynamic}")?;
            print_user(f, "user", user.as_ref())
        }
        CheckKind::FileCheck(FileCheck {
            file,
            weight,
            reverse,
        }) => writeln!(
            f,
            "file = {}\nweight = {weight}\nreverse = {reverse}",
            quoted(file)
        ),
    }
}

fn print_get(f: &mut fmt::Formatter<'_>, get: &HttpGet) -> fmt::Result {
    let HttpGet {
        tls,
        protocol,
        urls,
        virtualhost,
    } = get;
    writeln!(f, "url = [{}]", commas(urls.iter().map(url_text)))?;
    if let Some(name) = virtualhost {
        writeln!(f, "virtualhost = {}", quoted(name))?;
    }
    let mut names = HttpProtocol::NAMES.iter();
    if let Some((name, _)) = names.find(|(_, known)| known == protocol) {
        writeln!(f, "http_protocol = \"{name}\"")?;
    }
    if let Some(Tls { enable_sni }) = tls {
        writeln!(f, "enable_sni = {enable_sni}")?;
    }
    Ok(())
}

fn url_text(url: &CheckUrl) -> String {
    let CheckUrl {
        path,
        status_code,
        virtualhost,
        digest,
        regex,
    } = url;
    let codes = status_code.iter().map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("\"{first}-{last}\"")
        }
    });
    let mut text = format!(
        "{{ path = {}, status_code = [{}]",
        quoted(path),
        commas(codes)
    );
    if let Some(virtualhost) = virtualhost {
        let _ = write!(text, ", virtualhost = {}", quoted(virtualhost));
    }
    if let Some(digest) = digest {
        let _ = write!(text, ", digest = \"{:032x}\"", u128::from_be_bytes(*digest));
    }
    if let Some(regex) = regex {
        text += &regex_text(regex);
    }
    text + " }"
}

fn regex_text(regex: &BodyRegex) -> String {
    let BodyRegex {
        pattern,
        options,
        no_match,
        min_offset,
        max_offset,
    } = regex;
    let mut text = format!(
        ", regex = {}, regex_no_match = {no_match}, regex_min_offset = {min_offset}",
        quoted(pattern)
    );
    if let Some(offset) = max_offset {
        let _ = write!(text, ", regex_max_offset = {offset}");
    }
    if !options.is_empty() {
        let names = RegexOption::NAMES.iter();
        let name = |option| names.clone().find(|(_, known)| known == option);
        let names: Vec<_> = options.iter().filter_map(name).map(|(n, _)| *n).collect();
        let _ = write!(text, ", regex_options = \"{}\"", names.join(" "));
    }
    text
}

fn print_udp(f: &mut fmt::Formatter<'_>, check: &UdpCheck) -> fmt::Result {
    let UdpCheck { payload, reply } = check;
    if let Some(payload) = payload {
        let bytes: Vec<_> = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(f, "payload = \"{}\"", bytes.join(" "))?;
    }
    let Some(UdpReply {
        content,
        min_length,
        max_length,
    }) = reply
    else {
        return Ok(());
    };
    if content.is_empty() {
        writeln!(f, "require_reply = true")?;
    } else {
        let digit = |value: u8, mask: u8| match mask & 0xf {
            0 => "x".to_owned(),
            _ => format!("{:x}", value & 0xf),
        };
        let bytes: Vec<_> = content
            .iter()
            .map(|&(value, mask)| digit(value >> 4, mask >> 4) + &digit(value, mask))
            .collect();
        writeln!(f, "require_reply = \"{}\"", bytes.join(" "))?;
    }
    writeln!(
        f,
        "min_reply_length = {min_length}\nmax_reply_length = {max_length}"
    )
}

pub(super) fn print_user(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    user: Option<&ScriptUser>,
) -> fmt::Result {
    user.map_or(Ok(()), |user| {
        writeln!(f, "{key} = {}", quoted(&user_text(user)))
    })
}

pub(super) fn user_text(user: &ScriptUser) -> String {
    let ScriptUser { user, group } = user;
    match group {
        Some(group) => format!("{user} {group}"),
        None => user.clone(),
    }
}

pub(super) fn print_script(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    script: Option<&Script>,
) -> fmt::Result {
    let Some(Script { words, user }) = script else {
        return Ok(());
    };
    let words = commas(words.iter().map(|word| quoted(word)));
    match user {
        None => writeln!(f, "{key} = [{words}]"),
        Some(user) => writeln!(
            f,
            "{key} = {{ script = [{words}], user = {} }}",
            quoted(&user_text(user))
        ),
    }
}
